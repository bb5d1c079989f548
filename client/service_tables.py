"""How webhooks, keys, workers and usage look in a terminal of 80 columns."""

import re
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from client.tables import age, bytes_text, plain_table, seconds_text

ID = re.compile(r"[a-z]+_[0-9a-f]{32}")
DELIVERY_COLOURS = {"delivered": "green", "pending": "yellow", "failed": "red"}


def webhook_list(webhooks: list[dict[str, Any]]) -> Table:
    table = plain_table()
    table.add_column("webhook", style="bold", no_wrap=True)
    table.add_column("address", overflow="fold")
    table.add_column("told of", overflow="fold")
    table.add_column("", no_wrap=True)
    table.add_column("age", justify="right", no_wrap=True)
    for webhook in webhooks:
        state = Text("off", style="red") if webhook["disabled_at"] else Text("on", style="green")
        events = ", ".join(webhook["events"]) or "everything"
        table.add_row(webhook["id"][-12:], escape(webhook["url"]), events, state, age(webhook["created_at"]))
    return table


def delivery_list(deliveries: list[dict[str, Any]]) -> Table:
    table = plain_table()
    table.add_column("delivery", style="bold", no_wrap=True)
    table.add_column("told", no_wrap=True)
    table.add_column("status", no_wrap=True)
    table.add_column("tries", justify="right", no_wrap=True)
    table.add_column("answer", overflow="fold")
    table.add_column("age", justify="right", no_wrap=True)
    for delivery in deliveries:
        status = Text(delivery["status"], style=DELIVERY_COLOURS.get(delivery["status"], ""))
        answer = [str(part) for part in (delivery["response_status"], delivery["error"]) if part]
        table.add_row(
            delivery["id"][-12:],
            delivery["event"]["type"],
            status,
            str(delivery["attempts"]),
            escape(": ".join(answer)),
            age(delivery["created_at"]),
        )
    return table


def key_list(keys: list[dict[str, Any]]) -> Table:
    table = plain_table()
    table.add_column("key", style="bold", no_wrap=True)
    table.add_column("begins, ends", no_wrap=True)
    table.add_column("owner", overflow="fold")
    table.add_column("may", overflow="fold")
    table.add_column("state", no_wrap=True)
    table.add_column("used", justify="right", no_wrap=True)
    for key in keys:
        owner = escape(key["owner"] + (f" ({key['name']})" if key["name"] else ""))
        used = age(key["last_used_at"]) or "never"
        table.add_row(key["id"][-12:], escape(key["shown"]), owner, ", ".join(key["scopes"]), key_state(key), used)
    return table


def key_state(key: dict[str, Any]) -> Text:
    if key["revoked_at"]:
        return Text("revoked", style="red")
    if not key["expires_at"]:
        return Text("good", style="green")
    left = (datetime.fromisoformat(key["expires_at"]) - datetime.now(UTC)).total_seconds()
    return Text(f"for {left / 86400:.0f} d", style="green") if left > 0 else Text("expired", style="red")


def worker_list(workers: list[dict[str, Any]]) -> Table:
    table = plain_table()
    table.add_column("worker", style="bold", overflow="fold")
    table.add_column("state", no_wrap=True)
    table.add_column("job", no_wrap=True)
    table.add_column("queue", no_wrap=True)
    table.add_column("machine", style="dim", overflow="fold")
    table.add_column("seen", justify="right", no_wrap=True)
    for worker in workers:
        machine = machine_text(worker["facts"])
        job = (worker["job_id"] or "")[-12:]
        table.add_row(
            escape(worker["id"]), worker_state(worker), job, worker["queue"], escape(machine), age(worker["seen_at"])
        )
    return table


def machine_text(facts: dict[str, Any]) -> str:
    """What a worker says of itself: it may say more than is known here."""
    units: dict[str, Callable[[Any], str]] = {
        "memory_bytes": bytes_text,
        "cpus": lambda count: f"{count} cores",
        "devices": lambda count: f"up to {count} devices a job",
        "version": lambda version: f"dream {version}",
    }
    return ", ".join(units.get(name, str)(value) for name, value in facts.items() if value is not None)


def worker_state(worker: dict[str, Any]) -> Text:
    if not worker["alive"]:
        return Text("away", style="red")
    if worker["draining"]:
        return Text("draining" if worker["job_id"] else "drained", style="yellow")
    return Text("busy", style="cyan") if worker["job_id"] else Text("free", style="green")


def queue_list(queues: list[dict[str, Any]]) -> Table:
    table = plain_table()
    table.add_column("queue", style="bold", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for word in ("waiting", "longest", "running", "workers"):
        table.add_column(word, justify="right", no_wrap=True)
    for queue in queues:
        state = Text("held", style="yellow") if queue["paused_at"] else Text("open", style="green")
        counts = [str(queue["queued"]), age(queue["oldest_queued_at"]), str(queue["running"]), str(queue["workers"])]
        table.add_row(queue["name"], state, *counts)
    return table


def owner_limits(limits: dict[str, Any]) -> Table:
    """What counts for an owner, and whether it is theirs or everyone's. The names are those of `--set`."""
    table = plain_table()
    table.add_column(escape(limits["owner"]), style="bold", no_wrap=True)
    table.add_column("limit", justify="right", no_wrap=True)
    table.add_column("", style="dim", no_wrap=True)
    texts = {"run_seconds_per_day": seconds_text, "storage_bytes": bytes_text}
    for name, limit in limits["in_force"].items():
        whose = "the service's" if limits["own"][name] is None else "their own"
        table.add_row(name, "any" if limit is None else texts.get(name, count_text)(limit), whose)
    return table


def audit_list(entries: list[dict[str, Any]]) -> Table:
    table = plain_table()
    table.add_column("age", justify="right", no_wrap=True)
    table.add_column("owner", overflow="fold")
    table.add_column("key", no_wrap=True)
    table.add_column("did", style="bold", overflow="fold")
    table.add_column("to", overflow="fold")
    for entry in entries:
        key = (entry["key_id"] or "")[-12:]
        subject = escape(_short(entry["resource"] or ""))
        table.add_row(age(entry["at"]), escape(entry["owner"]), key, entry["action"], subject)
    return table


def _short(resource: str) -> str:
    """The last letters of an id, by which it is found; a name as it is."""
    return resource[-12:] if ID.fullmatch(resource) else resource


def usage_page(limits: dict[str, Any], usage: dict[str, Any]) -> RenderableType:
    """What an owner uses beside what they may, and what they ran lately."""
    table = plain_table()
    table.add_column(escape(limits["owner"]), style="bold", no_wrap=True)
    table.add_column("used", justify="right", no_wrap=True)
    table.add_column("of", justify="right", no_wrap=True)
    requests = f"requests in {seconds_text(limits['requests']['window_s'])}"
    rows: list[tuple[str, str, Callable[[float], str]]] = [
        ("jobs that wait", "queued", count_text),
        ("jobs that run", "running", count_text),
        ("running in 24 h", "run_seconds_per_day", seconds_text),
        ("kept on disk", "storage_bytes", bytes_text),
        (requests, "requests", count_text),
    ]
    for label, name, text in rows:
        used, limit = limits[name]["used"], limits[name]["limit"]
        full = limit is not None and used >= limit
        table.add_row(label, Text(text(used), style="red" if full else ""), "any" if limit is None else text(limit))
    methods: Counter[str] = Counter()
    for day in usage["days"]:
        methods[day["method"]] += day["run_seconds"]
    ran = ", ".join(f"{escape(method)} {seconds_text(seconds)}" for method, seconds in methods.most_common())
    lately = f"The last 30 days: {seconds_text(usage['run_seconds'])}" + (f" ({ran})" if ran else "")
    kept = limits["retention_days"]
    results = "" if kept is None else f"Results are kept for {kept:g} days."
    return Group(table, "", Text.from_markup(lately), Text(results, style="dim"))


def count_text(count: float) -> str:
    return f"{count:,.0f}"
