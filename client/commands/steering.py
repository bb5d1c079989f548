"""Stop jobs, hold them, let them go on, do them again, change and remove them."""

from typing import Annotated, Literal

import typer

from client.commands.jobs import PriorityOption, submitted
from client.commands.options import (
    JOBS,
    JobArgument,
    JobsArgument,
    JsonOption,
    NameOption,
    UrlOption,
    WatchOption,
    parse_metadata,
)
from client.console import connect, find_job, print_json, say
from client.resources import Job

app = typer.Typer()

NEXT = {
    "queued": "It goes on as soon as a worker is free: dream watch {id}",
    "pausing": "It writes a checkpoint, and is then paused: dream show {id}",
    "paused": "Let it go on with: dream resume {id}",
    "cancelling": "It stops at its next step, and keeps what it has made: dream watch {id}",
}
"""What to do once a job has been brought into a state."""


@app.command(rich_help_panel=JOBS)
def pause(job: JobArgument, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Hold a job, and free its worker for others. It loses nothing."""
    with connect(url) as client:
        tell(client.jobs.pause(find_job(client, job).id), as_json)


@app.command(rich_help_panel=JOBS)
def resume(job: JobArgument, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Let a paused job go on from its checkpoint. It ends with the same bytes as if never paused."""
    with connect(url) as client:
        tell(client.jobs.resume(find_job(client, job).id), as_json)


@app.command(rich_help_panel=JOBS)
def cancel(
    job: JobArgument,
    now: Annotated[bool, typer.Option("--now", help="Wait for no worker, and keep nothing of it.")] = False,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Stop a job, and keep what it has made by then."""
    with connect(url) as client:
        tell(client.jobs.cancel(find_job(client, job).id, "now" if now else "graceful"), as_json)


@app.command(rich_help_panel=JOBS)
def retry(
    job: JobArgument,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="latest|STEP", help="Go on from its newest checkpoint, or from the one at this step."
        ),
    ] = None,
    more: Annotated[
        int | None, typer.Option("--more", min=1, metavar="N", help="Go on for N iterations beyond its end.")
    ] = None,
    name: NameOption = None,
    priority: PriorityOption = "normal",
    watch: WatchOption = False,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Do again what a job did, as a new job; or go on from where it was, or beyond its end."""
    with connect(url) as client:
        found = find_job(client, job)
        new = client.jobs.retry(found.id, parse_checkpoint(checkpoint), more, name, priority)
        submitted(client, new, watch, as_json)


@app.command(rich_help_panel=JOBS)
def edit(
    job: JobArgument,
    name: Annotated[str | None, typer.Option("--name", help="What to call it; '' for nothing.")] = None,
    priority: Annotated[
        Literal["high", "normal", "low"] | None, typer.Option("--priority", help="Only while it waits.")
    ] = None,
    metadata: Annotated[
        list[str] | None,
        typer.Option(
            "--meta", metavar="KEY=VALUE", help="Add or change this pair, or remove it with KEY=; repeatable."
        ),
    ] = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change a job's name, its priority, or pairs of its metadata."""
    changes = parse_metadata(metadata or [])
    if name is None and priority is None and not changes:
        raise typer.BadParameter("nothing to change; give --name, --priority or --meta")
    with connect(url) as client:
        found = find_job(client, job)
        if not changes:
            changed = client.jobs.update(found.id, name=name, priority=priority)
        else:  # the pairs that stay are sent as well, so they must not have changed meanwhile
            pairs = {key: value for key, value in (found.metadata | changes).items() if value}
            changed = client.jobs.update(found.id, name=name, metadata=pairs, priority=priority, version=found.version)
    if as_json:
        print_json(changed.raw)
    else:
        say(f"{changed.id} is changed")


@app.command("rm", rich_help_panel=JOBS)
def remove(jobs: JobsArgument, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Delete jobs that are over, with all they have made."""
    with connect(url) as client:
        ids = [find_job(client, job).id for job in jobs]
        for job_id in ids:
            client.jobs.delete(job_id)
            if not as_json:
                say(f"{job_id} is deleted")
    if as_json:
        print_json({"deleted": ids})


def tell(job: Job, as_json: bool) -> None:
    """What a job is now, and what to do next."""
    if as_json:
        print_json(job.raw)
        return
    say(f"{job.id} is {job.status}")
    if advice := NEXT.get(job.status):
        say(advice.format(id=job.id), style="dim")


def parse_checkpoint(text: str | None) -> Literal["latest"] | int | None:
    if text is None or text == "latest":
        return text
    if not text.isdecimal():
        raise typer.BadParameter(f"{text!r} is neither `latest` nor the step of a checkpoint", param_hint="--from")
    return int(text)
