"""How checkpoints, comparisons and the leaderboard look in a terminal of 80 columns."""

import string
from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from client.tables import accuracy_text, age, bytes_text, plain_table

BARS = "▁▂▃▄▅▆▇█"
CURVE_LETTERS = 10


def checkpoint_list(checkpoints: list[dict[str, Any]]) -> Table:
    table = plain_table()
    table.add_column("step", justify="right", style="bold", no_wrap=True)
    table.add_column("of", justify="right", no_wrap=True)
    table.add_column("phase", no_wrap=True)
    for word in ("loss", "size", "age"):
        table.add_column(word, justify="right", no_wrap=True)
    for point in checkpoints:
        total = f"{point['total']:,}" if point["total"] is not None else ""
        loss = f"{point['loss']:.4g}" if point["loss"] is not None else ""
        size = bytes_text(point["bytes"])
        table.add_row(f"{point['step']:,}", total, point["phase"] or "", loss, size, age(point["created_at"]))
    return table


def comparison(found: dict[str, Any]) -> RenderableType:
    """What came of each job, by a letter; then the values that differ, under these letters."""
    letters = string.ascii_uppercase[: len(found["jobs"])]
    parts: list[RenderableType] = [outcomes(found, letters)]
    if found["note"]:
        parts += ["", Text(found["note"], style="yellow")]
    parts += ["", differences(found["differences"], letters)]
    return Group(*parts)


def outcomes(found: dict[str, Any], letters: str) -> Table:
    table = plain_table()
    table.add_column("", style="bold cyan", no_wrap=True)
    table.add_column("job", style="bold", no_wrap=True)
    table.add_column("what", overflow="fold")
    table.add_column("accuracy %", justify="right", no_wrap=True, min_width=11)
    for word in ("random", "full"):
        table.add_column(word, justify="right", no_wrap=True)
    table.add_column("loss", style="cyan", no_wrap=True)
    for letter, job, result, curve in zip(letters, found["jobs"], found["results"], found["curves"], strict=True):
        accuracy = accuracy_text(result["accuracy"]) if result["accuracy"] else job["status"]
        baselines = [mean_text(result[name]) for name in ("baseline_random", "ceiling_full")]
        what = escape(f"{job['method']} · {job['dataset']} · {job['ipc']}")
        table.add_row(letter, job["id"][-12:], what, accuracy, *baselines, sparkline([y for _, y in curve["points"]]))
    return table


def differences(differing: list[dict[str, Any]], letters: str) -> RenderableType:
    if not differing:
        return Text("The recipes are the same.", style="dim")
    table = plain_table()
    table.add_column("differs", overflow="fold")
    for letter in letters:
        table.add_column(Text(letter, style="bold cyan"), justify="right", overflow="fold")
    for difference in differing:
        values = ("–" if value is None else str(value) for value in difference["values"])
        table.add_row(escape(difference["field"]), *map(escape, values))
    return table


def sparkline(values: Sequence[float]) -> str:
    """A curve in a few letters, each of them the mean of a stretch."""
    if not values:
        return ""
    count = min(CURVE_LETTERS, len(values))
    stretches = [values[len(values) * n // count : len(values) * (n + 1) // count] for n in range(count)]
    means = [sum(stretch) / len(stretch) for stretch in stretches]
    low, span = min(means), (max(means) - min(means)) or 1.0
    return "".join(BARS[round((mean - low) / span * (len(BARS) - 1))] for mean in means)


def leaderboard(groups: list[dict[str, Any]]) -> RenderableType:
    parts: list[RenderableType] = []
    for group in groups:
        head = Text(f"{group['dataset']}, {images_text(group['ipc'])} per class", style="bold")
        head.append(f" · protocol {group['protocol_hash'][:8]}", style="dim not bold")
        ceilings = (row["result"]["ceiling_full"] for row in group["rows"])
        if ceiling := next((score for score in ceilings if score), None):
            head.append(f" · {accuracy_text(ceiling)} with all real images", style="dim not bold")
        parts += [head, ranking(group["rows"]), ""]
    return Group(*parts[:-1])


def ranking(rows: list[dict[str, Any]]) -> Table:
    table = plain_table()
    table.add_column("", justify="right", style="bold", no_wrap=True)
    for word in ("accuracy %", "random"):
        table.add_column(word, justify="right", no_wrap=True)
    table.add_column("method", no_wrap=True)
    table.add_column("seed", justify="right", no_wrap=True)
    table.add_column("job", no_wrap=True)
    table.add_column("name", style="dim", no_wrap=True, overflow="ellipsis")
    table.add_column("age", justify="right", no_wrap=True, min_width=6)
    for row in rows:
        result, seed = row["result"], "" if row["seed"] is None else str(row["seed"])
        scores = [accuracy_text(result[name]) for name in ("accuracy", "baseline_random")]
        job, name = row["job_id"][-12:], escape(row["name"] or "")
        table.add_row(f"{row['rank']}.", *scores, row["method"], seed, job, name, age(row["finished_at"]))
    return table


def mean_text(score: dict[str, Any] | None) -> str:
    return accuracy_text(score and score | {"std": None})


def images_text(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"
