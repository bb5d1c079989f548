"""What can be asked for: the methods."""

from collections.abc import Callable
from typing import Annotated, Any

import typer

from client import method_tables, plugins
from client.commands.options import FACTS, JsonOption, UrlOption
from client.console import connect, note, out, print_json
from client.errors import ClientError, ServiceUnreachable
from client.sdk import Client

app = typer.Typer()


@app.command(rich_help_panel=FACTS)
def methods(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Show this one, with all that can be set.")] = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the methods of distillation, or show one with its parameters and presets."""
    found = ask("methods", Client.methods, url)
    by_name = {method["name"]: method for method in found}
    if name is not None and name not in by_name:
        raise ClientError(f"there is no method {name!r}", advice=f"take one of {', '.join(by_name)}")
    if as_json:
        print_json(found if name is None else by_name[name])
    else:
        out.print(method_tables.method_list(found) if name is None else method_tables.method_page(by_name[name]))


def ask(what: str, read: Callable[[Client], list[dict[str, Any]]], url: str | None) -> list[dict[str, Any]]:
    """What `read` finds on the service; or this machine's own `what`, where no service was named and none answers."""
    with connect(url) as client:
        try:
            answer = read(client)
        except ServiceUnreachable:
            if url or (answer := plugins.local(what)) is None:
                raise
            note(f"From this machine: no service answers at {client.base_url}.")
            return answer
        note(f"From the service at {client.base_url}.")
        return answer
