"""Keys: who may use a service."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from client import service_tables
from client.commands.options import SERVICE, JsonOption, UrlOption
from client.console import connect, find_id, note, out, print_json, say
from client.keys import SCOPES, new_token

app = typer.Typer()
group = typer.Typer(no_args_is_help=True, help="Make, list and revoke the keys that people use a service with.")
app.add_typer(group, name="keys", rich_help_panel=SERVICE)


@group.command()
def generate(as_json: JsonOption = False) -> None:
    """Make a key for a service that has none yet, here and without asking it."""
    token = new_token()
    if as_json:
        print_json({"token": token})
    else:
        say(token)
        note("Set DREAM_ADMIN_KEY to it where the service runs, and DREAM_API_KEY where you use it; keep it secret.")


@group.command()
def create(
    owner: Annotated[str, typer.Argument(metavar="OWNER", help="Whom it is for: jobs made with it belong to them.")],
    scopes: Annotated[
        list[str] | None,
        typer.Option(
            "--scope", metavar="SCOPE", help=f"{', '.join(SCOPES)}; repeatable.", show_default="all but admin"
        ),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="For people, to know it by.")] = None,
    days: Annotated[int | None, typer.Option("--days", min=1, help="Good for so many days.")] = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key for someone. It is shown this once."""
    expires_at = (datetime.now(UTC) + timedelta(days=days)).isoformat() if days else None
    with connect(url) as client:
        key = client.keys.create(owner, scopes, name, expires_at)
    if as_json:
        print_json(key)
    else:
        say(key["token"])
        note(f"For {owner}, with {', '.join(key['scopes'])}. Hand it on now: it is not shown again.")


@group.command("ls")
def list_keys(
    owner: Annotated[str | None, typer.Option("--owner", help="Only theirs.")] = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """List keys, the latest first."""
    with connect(url) as client:
        found = list(client.keys.list(owner=owner))
    if as_json:
        print_json(found)
    elif found:
        out.print(service_tables.key_list(found))
    else:
        say("No keys. Make one with: dream keys create OWNER")


@group.command()
def revoke(
    key: Annotated[
        str, typer.Argument(metavar="KEY", help="Its id, or the last characters, as `dream keys ls` has it.")
    ],
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """End a key for good."""
    with connect(url) as client:
        key_id = find_id((each["id"] for each in client.keys.list()), key, "of the keys", "`dream keys ls` shows them")
        client.keys.revoke(key_id)
    if as_json:
        print_json({"revoked": [key_id]})
    else:
        say(f"{key_id} is revoked")
