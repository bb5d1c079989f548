"""Submit jobs, and look at them."""

from typing import Annotated, Literal

import typer

from client import tables
from client.commands.options import (
    JOBS,
    DatasetOption,
    GpusOption,
    IpcOption,
    JobArgument,
    JsonOption,
    MetaOption,
    MethodOption,
    NameOption,
    SeedOption,
    SetOption,
    UrlOption,
    WatchOption,
    parse_metadata,
    parse_settings,
)
from client.console import connect, find_job, out, print_json, say
from client.estimate_table import estimate_page
from client.resources import Job
from client.sdk import Client
from client.watching import watch as follow

app = typer.Typer()

PriorityOption = Annotated[
    Literal["high", "normal", "low"], typer.Option("--priority", help="Among waiting jobs, high comes first.")
]
GpuClassOption = Annotated[
    str | None,
    typer.Option("--gpu-class", help="Only on workers of this class, as a100: see `dream workers`.", metavar="CLASS"),
]


@app.command(rich_help_panel=JOBS)
def submit(
    dataset: DatasetOption,
    method: MethodOption = "dream",
    ipc: IpcOption = 1,
    seed: SeedOption = 0,
    settings: SetOption = None,
    name: NameOption = None,
    metadata: MetaOption = None,
    priority: PriorityOption = "normal",
    gpus: GpusOption = 1,
    gpu_class: GpuClassOption = None,
    watch: WatchOption = False,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Submit a distillation."""
    params, evaluation = parse_settings(settings or [])
    pairs = parse_metadata(metadata or [])
    with connect(url) as client:
        about = {"name": name, "metadata": pairs, "priority": priority, "gpus": gpus, "gpu_class": gpu_class}
        job = client.jobs.create(dataset, method, ipc, seed, params, evaluation, **about)
        submitted(client, job, watch, as_json)


@app.command(rich_help_panel=JOBS)
def estimate(
    dataset: DatasetOption,
    method: MethodOption = "dream",
    ipc: IpcOption = 1,
    seed: SeedOption = 0,
    settings: SetOption = None,
    priority: PriorityOption = "normal",
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell what a distillation would take, without submitting it."""
    params, evaluation = parse_settings(settings or [])
    with connect(url) as client:
        found = client.jobs.estimate(dataset, method, ipc, seed, params, evaluation, priority)
    if as_json:
        print_json(found)
    else:
        out.print(estimate_page(found))
        say("Nothing has been submitted: `dream submit` with the same options does that.", style="dim")


def submitted(client: Client, job: Job, watch: bool, as_json: bool) -> None:
    """Tell of a new job, and follow it if that is wanted."""
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
    status: Annotated[
        list[str] | None, typer.Option("--status", help="Only these, as running; repeatable.", metavar="STATUS")
    ] = None,
    metadata: Annotated[
        list[str] | None,
        typer.Option("--meta", metavar="KEY=VALUE", help="Only those with this pair; repeatable."),
    ] = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """List jobs, the latest first."""
    pairs = parse_metadata(metadata or [])
    with connect(url) as client:
        jobs = list(client.jobs.list(limit, pairs, **({"status": status} if status else {})))
    if as_json:
        print_json([job.raw for job in jobs])
    elif jobs:
        out.print(tables.job_list(jobs, wide=out.width >= tables.WIDE))
    elif status or pairs:
        say("No such jobs. Without --status and --meta, `dream ls` lists all.")
    else:
        say("No jobs yet. Submit one with: dream submit --dataset digits --method dream --ipc 1")


@app.command(rich_help_panel=JOBS)
def show(job: JobArgument, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Show a job: its status, and its accuracies once it has some."""
    with connect(url) as client:
        found = find_job(client, job)
    if as_json:
        print_json(found.raw)
    else:
        out.print(tables.job_page(found))


@app.command(rich_help_panel=JOBS)
def watch(job: JobArgument, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Follow a job to its end; exits 0 if it succeeded, 1 if it failed, 2 if it was cancelled."""
    with connect(url) as client:
        raise typer.Exit(follow(client, find_job(client, job), as_json))
