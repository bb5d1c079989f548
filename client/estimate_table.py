"""How an estimate looks in a terminal of 80 columns."""

from collections.abc import Iterator
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from client.tables import bytes_text, seconds_text, title


def estimate_page(estimate: dict[str, Any]) -> RenderableType:
    rows = Table.grid(padding=(0, 2))
    rows.add_column(style="dim", no_wrap=True)
    rows.add_column(overflow="fold")
    for label, value in _facts(estimate):
        rows.add_row(label, value)
    return rows


def _facts(estimate: dict[str, Any]) -> Iterator[tuple[str, Text]]:
    yield "what", Text(title(estimate["resolved_spec"]))
    yield "steps", Text(f"{estimate['steps']:,}")
    if span := estimate["seconds"]:
        low, likely, high = (seconds_text(span[name]) for name in ("low", "likely", "high"))
        basis = f"\nby {span['runs']} past job{'s' * (span['runs'] > 1)}: {span['basis']}"
        yield "time", Text.assemble((f"about {likely}", "bold"), f", between {low} and {high}", (basis, "dim"))
    if estimate["memory_bytes"] is not None:
        yield "memory", Text.assemble(bytes_text(estimate["memory_bytes"]), _room(estimate["fits"]))
    if estimate["disk_bytes"] is not None:
        yield "disk", Text(bytes_text(estimate["disk_bytes"]))
    ahead = estimate["queue"]["position"]
    yield "queue", Text(f"{ahead} job{'s' * (ahead > 1)} before it" if ahead else "no job before it")
    yield "note", Text(estimate["note"], style="dim")


def _room(fits: bool | None) -> tuple[str, str]:
    match fits:
        case True:
            return ", which a worker there has", "green"
        case False:
            return ", more than any worker there has", "red"
        case None:
            return "", ""
