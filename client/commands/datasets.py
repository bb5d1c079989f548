"""Datasets: those that a service knows, and one's own."""

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from client import dataset_tables
from client.commands.facts import ask
from client.commands.options import FACTS, JsonOption, UrlOption
from client.commands.results import Bars, byte_bars
from client.console import EXIT_DETACHED, EXIT_FAILED, connect, note, out, print_json, say
from client.sdk import Client

app = typer.Typer()
group = typer.Typer(invoke_without_command=True)
app.add_typer(group, name="datasets", rich_help_panel=FACTS)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Its name, as `dream datasets` shows it, or its id.")]


@group.callback()
def datasets(context: typer.Context, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """List the datasets, whether their files are there, and what to do if not; upload your own."""
    if context.invoked_subcommand:
        return
    found = ask("datasets", all_of, url)
    if as_json:
        print_json(found)
    else:
        out.print(dataset_tables.dataset_list(found))


def all_of(client: Client) -> list[dict[str, Any]]:
    own = (dataset | {"available": dataset["status"] == "ready"} for dataset in client.datasets.list())
    return [*client.datasets.builtin(), *own]


@group.command()
def upload(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="A zip or a folder, with train/CLASS/*.png and test/CLASS/*.png.")
    ],
    name: Annotated[
        str | None, typer.Option("--name", help="What jobs call it: upload:NAME.", show_default="from PATH")
    ] = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send a dataset of your own, and have it examined. Run again, it goes on where it stopped.

    Exits 0 if the dataset is ready for jobs, 1 if it was rejected.
    """
    name = name or re.sub(r"[^a-z0-9._-]+", "-", path.resolve().stem.lower()).strip("-._")
    try:
        with connect(url) as client:
            with byte_bars(as_json) as progress:
                sent = client.datasets.upload(path, name, Bars(progress))
            if not as_json and sent["status"] == "validating":
                note("All of it is there; the service examines it.")
            examined = client.datasets.wait(sent["id"])
    except KeyboardInterrupt:
        note(f"\nNot finished. To go on, run it again; to see how far it is: dream datasets show {name}")
        raise typer.Exit(EXIT_DETACHED) from None
    ready = examined["status"] == "ready"
    if as_json:
        print_json(examined)
    else:
        out.print(dataset_tables.dataset_page(examined))
        next_step = f"submit --dataset {examined['dataset']} --ipc 1" if ready else f"datasets rm {name}"
        say(f"{'Use it with' if ready else 'Mend it, remove this one, and upload it again'}: dream {next_step}")
    raise typer.Exit(0 if ready else EXIT_FAILED)


@group.command()
def show(name: NameArgument, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Show a dataset; of one of your own, how far it is and what was found in it."""
    with connect(url) as client:
        found = client.datasets.get(name)
    if as_json:
        print_json(found)
    else:
        out.print(dataset_tables.dataset_page(found) if "id" in found else dataset_tables.dataset_list([found]))


@group.command("rm")
def remove(name: NameArgument, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Remove a dataset of your own."""
    with connect(url) as client:
        client.datasets.delete(name)
    if as_json:
        print_json({"deleted": [name]})
    else:
        say(f"{name} is deleted")
