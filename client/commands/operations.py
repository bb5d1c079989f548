"""What is used of a service, and for its administrators, who does the work."""

from typing import Annotated, Any

import typer

from client import service_tables
from client.commands.options import SERVICE, JsonOption, UrlOption, parse_settings
from client.console import connect, out, print_json, say
from client.errors import NotFound
from client.sdk import Client

app = typer.Typer()
worker_group = typer.Typer(invoke_without_command=True)
queue_group = typer.Typer(invoke_without_command=True)

WorkerArgument = Annotated[str, typer.Argument(metavar="WORKER", help="Its name, as `dream workers` shows it.")]
QueueArgument = Annotated[str, typer.Argument(metavar="QUEUE", help="Its name, as `dream queues` shows it.")]


@app.command(rich_help_panel=SERVICE)
def usage(url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Show what you use of a service, and what you may."""
    with connect(url) as client:
        limits, used = client.limits(), client.usage()
    if as_json:
        print_json({"limits": limits, "usage": used})
    else:
        out.print(service_tables.usage_page(limits, used))


@app.command(rich_help_panel=SERVICE)
def limits(
    owner: Annotated[str, typer.Argument(metavar="OWNER", help="Whose they are.")],
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="LIMIT=NUMBER", help="As max_queued=50; null takes the service's. Repeatable."),
    ] = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what an owner may use of a service, and change it."""
    given, _ = parse_settings(changes or [])
    with connect(url) as client:
        if given:
            found = client.operations.set_limits(owner, own_limits(client, owner) | given)
        else:
            found = client.operations.limits(owner)
    if as_json:
        print_json(found)
    else:
        out.print(service_tables.owner_limits(found))


@app.command(rich_help_panel=SERVICE)
def audit(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="At most so many, the latest first.")] = 20,
    owner: Annotated[str | None, typer.Option("--owner", help="Only what they did.")] = None,
    action: Annotated[str | None, typer.Option("--action", help="Only this, as job.deleted.")] = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show who did what on a service."""
    with connect(url) as client:
        found = list(client.operations.audit(limit, owner, action))
    if as_json:
        print_json(found)
    elif found:
        out.print(service_tables.audit_list(found))
    else:
        say("Nothing of the kind has been done.")


@worker_group.callback()
def workers(context: typer.Context, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """List the workers of a service, drain them, and let them go on."""
    if context.invoked_subcommand:
        return
    with connect(url) as client:
        found = client.operations.workers()
    if as_json:
        print_json(found)
    elif found:
        out.print(service_tables.worker_list(found))
    else:
        say("No worker has been heard of. Start one with: celery -A worker.app worker")


@worker_group.command()
def drain(worker: WorkerArgument, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Have a worker finish its job and take no other, as before an update."""
    with connect(url) as client:
        drained = client.operations.drain(worker)
    tell_worker(drained, f"takes no more jobs. Undo it with: dream workers undrain {worker}", as_json)


@worker_group.command()
def undrain(worker: WorkerArgument, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Have a worker take jobs again."""
    with connect(url) as client:
        tell_worker(client.operations.undrain(worker), "takes jobs again", as_json)


@queue_group.callback()
def queues(context: typer.Context, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """List the queues of a service, hold them, and let them go on."""
    if context.invoked_subcommand:
        return
    with connect(url) as client:
        found = client.operations.queues()
    if as_json:
        print_json(found)
    else:
        out.print(service_tables.queue_list(found))


@queue_group.command()
def pause(queue: QueueArgument, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Have nothing taken from a queue. What runs goes on."""
    with connect(url) as client:
        held = client.operations.pause_queue(queue)
    tell_queue(held, f"is held. Let it go on with: dream queues resume {queue}", as_json)


@queue_group.command()
def resume(queue: QueueArgument, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Have jobs taken from a queue again."""
    with connect(url) as client:
        tell_queue(client.operations.resume_queue(queue), "goes on", as_json)


def own_limits(client: Client, owner: str) -> dict[str, int | None]:
    """The limits that an owner has already; none for one who has done nothing yet."""
    try:
        return client.operations.limits(owner)["own"]
    except NotFound:
        return {}


def tell_worker(worker: dict[str, Any], message: str, as_json: bool) -> None:
    if as_json:
        print_json(worker)
    else:
        busy = f"finishes {worker['job_id']}, and " if worker["job_id"] and worker["draining"] else ""
        say(f"{worker['id']} {busy}{message}")


def tell_queue(queue: dict[str, Any], message: str, as_json: bool) -> None:
    if as_json:
        print_json(queue)
    else:
        say(f"{queue['name']} {message}")


app.add_typer(worker_group, name="workers", rich_help_panel=SERVICE)
app.add_typer(queue_group, name="queues", rich_help_panel=SERVICE)
