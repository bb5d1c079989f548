"""Webhooks: have addresses told of what happens."""

from typing import Annotated, Any

import typer

from client import service_tables
from client.commands.options import SERVICE, JsonOption, UrlOption
from client.console import connect, find_id, out, print_json, say
from client.sdk import Client

app = typer.Typer()
group = typer.Typer(invoke_without_command=True)
app.add_typer(group, name="webhooks", rich_help_panel=SERVICE)

WebhookArgument = Annotated[
    str, typer.Argument(metavar="WEBHOOK", help="Its id, or the last characters of it as `dream webhooks` shows them.")
]


@group.callback()
def webhooks(context: typer.Context, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """List the addresses that are told of what happens, and tend them."""
    if context.invoked_subcommand:
        return
    with connect(url) as client:
        found = list(client.webhooks.list())
    if as_json:
        print_json(found)
    elif found:
        out.print(service_tables.webhook_list(found))
    else:
        say("No webhooks yet. Make one with: dream webhooks create https://example.org/hook")


@group.command()
def create(
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="An https address of the public internet.")],
    events: Annotated[
        list[str] | None,
        typer.Option("--event", metavar="TYPE", help="Tell it of these only, as job.succeeded; repeatable."),
    ] = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Have an address told, by messages that carry a signature."""
    with connect(url) as client:
        tell_secret(client.webhooks.create(address, events or []), as_json)


@group.command("rm")
def remove(webhook: WebhookArgument, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Tell an address no more."""
    with connect(url) as client:
        webhook_id = find(client, webhook)
        client.webhooks.delete(webhook_id)
    if as_json:
        print_json({"deleted": [webhook_id]})
    else:
        say(f"{webhook_id} is deleted")


@group.command()
def rotate(webhook: WebhookArgument, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Take a new secret to sign with. The old one signs as well for a day."""
    with connect(url) as client:
        tell_secret(client.webhooks.rotate(find(client, webhook)), as_json)


@group.command()
def enable(webhook: WebhookArgument, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Tell an address again that was turned off, because it had answered 410 Gone."""
    with connect(url) as client:
        enabled = client.webhooks.enable(find(client, webhook))
    if as_json:
        print_json(enabled)
    else:
        say(f"{enabled['id']} is told again")


@group.command()
def deliveries(
    webhook: WebhookArgument,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="At most so many, the latest first.")] = 20,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """List what was sent to an address, and what it answered."""
    with connect(url) as client:
        webhook_id = find(client, webhook)
        found = list(client.webhooks.deliveries(webhook_id, limit))
    if as_json:
        print_json(found)
    elif found:
        out.print(service_tables.delivery_list(found))
        say(f"Send one again with: dream webhooks redeliver {webhook_id[-12:]} DELIVERY", style="dim")
    else:
        say(f"Nothing has been sent to {webhook_id} yet.")


@group.command()
def redeliver(
    webhook: WebhookArgument,
    delivery: Annotated[
        str, typer.Argument(metavar="DELIVERY", help="Its id, or the last characters of it, of the latest 100.")
    ],
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send a message again."""
    with connect(url) as client:
        webhook_id = find(client, webhook)
        ids = [each["id"] for each in client.webhooks.deliveries(webhook_id, limit=100)]
        advice = f"`dream webhooks deliveries {webhook}` shows them"
        sent = client.webhooks.redeliver(webhook_id, find_id(ids, delivery, "of the latest 100 deliveries", advice))
    if as_json:
        print_json(sent)
    else:
        say(f"{sent['id']} is sent again")


def find(client: Client, text: str) -> str:
    ids = (each["id"] for each in client.webhooks.list())
    return find_id(ids, text, "of the webhooks", "`dream webhooks` shows them")


def tell_secret(webhook: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(webhook)
        return
    say(f"{webhook['id']} tells {webhook['url']}")
    say(f"secret {webhook['secret']}")
    say("Keep the secret where messages are verified (Standard Webhooks): it is not shown again.", style="dim")
