"""Fetch what jobs have made, and compare it."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from client import result_tables, tables
from client.commands.options import RESULTS, JobArgument, JobsArgument, JsonOption, UrlOption
from client.console import EXIT_DETACHED, connect, fancy, find_job, out, print_json, say
from client.jobs import ArchiveFormat

app = typer.Typer()


@app.command(rich_help_panel=RESULTS)
def download(
    job: JobArgument,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Directory to put the files in.", show_default="dream-<end of id>"),
    ] = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fetch what a job made, and verify it. Run again, it goes on where it stopped."""
    with connect(url) as client, byte_bars(as_json) as progress:
        found = find_job(client, job)
        result = client.jobs.download(found.id, output or Path(f"dream-{found.id[-12:]}"), Bars(progress))
    partial = bool(result.manifest.get("partial"))
    if as_json:
        files = [str(file.relative_to(result.directory)) for file in result.files]
        facts = {"directory": str(result.directory.resolve()), "files": files, "bytes": result.bytes}
        print_json(facts | {"partial": partial})
        return
    say(f"{len(result.files)} files, {tables.bytes_text(result.bytes)}, verified, in {result.directory}")
    if partial:
        say("This is a partial result: the job was stopped on its way.")
        say(f"Go on with: dream retry {found.id} --from latest", style="dim")


def byte_bars(quiet: bool) -> Progress:
    """Bars that count bytes, where there is a terminal that can redraw."""
    columns = (TextColumn("{task.description}"), BarColumn(24), DownloadColumn())
    return Progress(*columns, console=out, transient=True, disable=quiet or not fancy())


class Bars:
    """One bar per file."""

    def __init__(self, progress: Progress):
        self._progress = progress
        self._tasks: dict[str, Any] = {}

    def __call__(self, name: str, done: int, size: int) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name)
        self._progress.update(self._tasks[name], completed=done, total=size)


@app.command(rich_help_panel=RESULTS)
def checkpoints(job: JobArgument, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """List the states that a retry of a job can go on from."""
    with connect(url) as client:
        found = find_job(client, job)
        left = client.jobs.checkpoints(found.id)
    if as_json:
        print_json(left)
    elif left:
        out.print(result_tables.checkpoint_list(left))
        say(f"Go on from one with: dream retry {found.id} --from {left[-1]['step']}", style="dim")
    else:
        say(f"No checkpoints of {found.id} are left. Do it again from the beginning with: dream retry {found.id}")


@app.command(rich_help_panel=RESULTS)
def archive(
    job: JobArgument,
    form: Annotated[
        ArchiveFormat,
        typer.Option(
            "--format",
            "-f",
            help="All files as they are; the images for NumPy; or PNG for torchvision or load_dataset.",
        ),
    ] = "safetensors",
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="File to write, or folder to put it in.", show_default="here"),
    ] = Path(),
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fetch what a job made as one file, in a format to use elsewhere."""
    with connect(url) as client, byte_bars(as_json) as progress:
        found = find_job(client, job)
        task = progress.add_task(form, total=None)
        target = client.jobs.archive(
            found.id, output, form, lambda done, total: progress.update(task, completed=done, total=total)
        )
    size = target.stat().st_size
    if as_json:
        print_json({"file": str(target.resolve()), "bytes": size, "format": form})
    else:
        say(f"{tables.bytes_text(size)} in {target}")


@app.command(rich_help_panel=RESULTS)
def logs(
    job: JobArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job is over.")] = False,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a job's workers have said."""
    with connect(url) as client:
        found = find_job(client, job)
        chunks = client.jobs.follow_log(found.id) if follow else iter([client.jobs.log(found.id)])
        try:
            for chunk in chunks:
                if as_json:
                    print_json({"job": found.id, "text": chunk})
                else:
                    sys.stdout.write(chunk)
                    sys.stdout.flush()
        except KeyboardInterrupt:
            raise typer.Exit(EXIT_DETACHED) from None


@app.command(rich_help_panel=RESULTS)
def compare(jobs: JobsArgument, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Put two to eight jobs side by side: what came of them, and what differs in their recipes."""
    with connect(url) as client:
        found = client.jobs.compare(*(find_job(client, job).id for job in jobs))
    if as_json:
        print_json(found)
    else:
        out.print(result_tables.comparison(found))


@app.command(rich_help_panel=RESULTS)
def leaderboard(
    dataset: Annotated[str | None, typer.Option("--dataset", "-d", help="Of this dataset only.")] = None,
    ipc: Annotated[int | None, typer.Option("--ipc", min=1, help="With so many images per class only.")] = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the best jobs of each kind, among those that were judged in the same way."""
    with connect(url) as client:
        groups = client.leaderboard(dataset, ipc)
    if as_json:
        print_json(groups)
    elif groups:
        out.print(result_tables.leaderboard(groups))
    else:
        say("No job has a score yet. `dream ls` shows how they go.")
