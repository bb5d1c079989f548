"""The `dream` command.

Exit codes: 0 done, 1 refused or failed, 2 cancelled or wrong usage, 3 no service, 130 left with Ctrl-C.
"""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from client import method_tables, plugins, tables
from client.console import JobArgument, JsonOption, UrlOption, fancy, find_job, note, out, print_json, report, say
from client.doctor import doctor
from client.errors import ClientError, ServiceUnreachable
from client.sdk import Client
from client.watching import watch as follow

JOBS, FACTS, HERE = "Jobs on a service", "What there is", "On this machine"

app = typer.Typer(
    help="Distil a dataset into a few synthetic images per class.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command(rich_help_panel=JOBS)
def submit(
    dataset: Annotated[str, typer.Option("--dataset", "-d", help="A name of `dream datasets`, or folder:NAME.")],
    method: Annotated[str, typer.Option("--method", "-m", help="A name of `dream methods`.")] = "dream",
    ipc: Annotated[int, typer.Option("--ipc", help="Images per class.")] = 1,
    seed: Annotated[int, typer.Option("--seed")] = 0,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Override a setting of the recipe, as factor=1 or evaluation.epochs=100."
        ),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="What to call the job.")] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Follow it to its end.")] = False,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Submit a distillation."""
    params, evaluation = parse_settings(settings or [])
    with Client(url) as client:
        job = client.jobs.create(dataset, method, ipc, seed, params, evaluation, name)
        if watch:
            if not as_json:
                say(f"Submitted {job.id}")
            raise typer.Exit(follow(client, job, as_json))
    if as_json:
        print_json(job.raw)
    else:
        say(f"Submitted {job.id}")
        say(f"Follow it with: dream watch {job.id}", style="dim")


@app.command("ls", rich_help_panel=JOBS)
def list_jobs(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="At most so many, the latest first.")] = 20,
    status: Annotated[str | None, typer.Option("--status", help="Only these, as running.")] = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """List jobs, the latest first."""
    with Client(url) as client:
        jobs = list(client.jobs.list(limit, **({"status": status} if status else {})))
    if as_json:
        print_json([job.raw for job in jobs])
    elif jobs:
        out.print(tables.job_list(jobs))
    else:
        say("No jobs yet. Submit one with: dream submit --dataset digits --method dream --ipc 1")


@app.command(rich_help_panel=JOBS)
def show(job: JobArgument, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Show a job: its status, and its accuracies once it has some."""
    with Client(url) as client:
        found = find_job(client, job)
    if as_json:
        print_json(found.raw)
    else:
        out.print(tables.job_page(found))


@app.command(rich_help_panel=JOBS)
def watch(job: JobArgument, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Follow a job to its end; exits 0 if it succeeded, 1 if it failed, 2 if it was cancelled."""
    with Client(url) as client:
        raise typer.Exit(follow(client, find_job(client, job), as_json))


@app.command(rich_help_panel=JOBS)
def cancel(job: JobArgument, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Stop a job."""
    with Client(url) as client:
        cancelled = client.jobs.cancel(find_job(client, job).id)
    if as_json:
        print_json(cancelled.raw)
    else:
        say(f"{cancelled.id} is {cancelled.status}")


@app.command(rich_help_panel=JOBS)
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
    columns = (TextColumn("{task.description}"), BarColumn(24), DownloadColumn())
    with (
        Client(url) as client,
        Progress(*columns, console=out, transient=True, disable=as_json or not fancy()) as progress,
    ):
        found = find_job(client, job)
        bars: dict[str, Any] = {}

        def advance(name: str, done: int, size: int) -> None:
            if name not in bars:
                bars[name] = progress.add_task(name)
            progress.update(bars[name], completed=done, total=size)

        result = client.jobs.download(found.id, output or Path(f"dream-{found.id[-12:]}"), advance)
    if as_json:
        files = [str(file.relative_to(result.directory)) for file in result.files]
        print_json({"directory": str(result.directory.resolve()), "files": files, "bytes": result.bytes})
    else:
        say(f"{len(result.files)} files, {tables.bytes_text(result.bytes)}, verified, in {result.directory}")


@app.command(rich_help_panel=FACTS)
def methods(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Show this one, with all that can be set.")] = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the methods of distillation, or show one with its parameters and presets."""
    found = ask("methods", url)
    by_name = {method["name"]: method for method in found}
    if name is not None and name not in by_name:
        raise ClientError(f"there is no method {name!r}", advice=f"take one of {', '.join(by_name)}")
    if as_json:
        print_json(found if name is None else by_name[name])
    else:
        out.print(method_tables.method_list(found) if name is None else method_tables.method_page(by_name[name]))


@app.command(rich_help_panel=FACTS)
def datasets(url: UrlOption = None, as_json: JsonOption = False) -> None:
    """List the datasets, whether their files are there, and what to do if not."""
    found = ask("datasets", url)
    if as_json:
        print_json(found)
    else:
        out.print(tables.dataset_list(found))


def ask(what: str, url: str | None) -> list[dict[str, Any]]:
    """`methods` or `datasets`, from the service; or from this machine where none was named and none answers."""
    with Client(url) as client:
        try:
            answer = client.methods() if what == "methods" else client.datasets()
        except ServiceUnreachable:
            if url or (answer := plugins.local(what)) is None:
                raise
            note(f"From this machine: no service answers at {client.base_url}.")
            return answer
        note(f"From the service at {client.base_url}.")
        return answer


def parse_settings(pairs: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """`--set` values as (params, evaluation). A value is JSON where it reads as JSON, else text."""
    params: dict[str, Any] = {}
    evaluation: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key.strip():
            raise typer.BadParameter(
                f"{pair!r} is not KEY=VALUE, as factor=1 or evaluation.epochs=100", param_hint="--set"
            )
        try:
            value = json.loads(text, parse_constant=str)  # NaN is no JSON
        except ValueError:
            value = text
        section, dot, field = key.strip().partition(".")
        if dot and section == "evaluation":
            evaluation[field] = value
        else:
            params[key.strip()] = value
    return params, evaluation


app.command(rich_help_panel=FACTS)(doctor)
for _command in plugins.commands():
    _lenient = not _command.loaded
    _context = {"ignore_unknown_options": _lenient, "allow_extra_args": _lenient}
    app.command(_command.name, rich_help_panel=HERE, context_settings=_context)(_command.function)


def main() -> None:
    try:
        app()
    except ClientError as error:
        sys.exit(report(error, as_json="--json" in sys.argv))


if __name__ == "__main__":
    main()
