"""How datasets look in a terminal of 80 columns."""

from collections.abc import Iterator
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from client.tables import age, bytes_text, moment_text, plain_table

STATUS_COLOURS = {"uploading": "yellow", "validating": "cyan", "ready": "green", "rejected": "red"}
CLASSES_SHOWN = 20


def dataset_list(datasets: list[dict[str, Any]]) -> RenderableType:
    """The built-in ones, and under them one's own."""
    own = [dataset for dataset in datasets if "id" in dataset]
    builtin = [dataset for dataset in datasets if "id" not in dataset]
    parts: list[RenderableType] = [_builtin(builtin)]
    advice = Table.grid(padding=(0, 2, 0, 0))
    for dataset in builtin:
        if dataset.get("advice"):
            advice.add_row(Text(dataset["name"]), Text(dataset["advice"], style="dim"))
    if own:
        parts += ["", _own(own)]
    if advice.row_count:
        parts += ["", advice]
    return Group(*parts)


def _builtin(datasets: list[dict[str, Any]]) -> Table:
    table = plain_table()
    table.add_column("dataset", style="bold", no_wrap=True)
    table.add_column("files", no_wrap=True)
    for word in ("classes", "pixels", "train", "test"):
        table.add_column(word, justify="right", no_wrap=True)
    table.add_column("licence", style="dim", no_wrap=True, overflow="ellipsis")
    for dataset in datasets:
        here = Text("here", style="green") if dataset["available"] else Text("missing", style="yellow")
        pixels = f"{dataset['size']}×{dataset['size']}×{dataset['channels']}"
        counts = [str(dataset["classes"]), pixels, f"{dataset['train']:,}", f"{dataset['test']:,}"]
        table.add_row(escape(dataset["name"]), here, *counts, escape(dataset.get("licence") or ""))
    return table


def _own(datasets: list[dict[str, Any]]) -> Table:
    table = plain_table()
    table.add_column("your own", style="bold", overflow="fold")
    table.add_column("status", no_wrap=True)
    for word in ("classes", "train", "test", "size", "age"):
        table.add_column(word, justify="right", no_wrap=True)
    for dataset in datasets:
        size = bytes_text(dataset["bytes"]) if dataset["bytes"] else ""
        name, old = escape(dataset["dataset"]), age(dataset["created_at"])
        table.add_row(name, status_text(dataset), *_counts(dataset), size, old)
    return table


def _counts(dataset: dict[str, Any]) -> list[str]:
    """Classes, training images and test images, once they have been counted."""
    classes = (dataset.get("report") or {}).get("classes") or []
    if not classes:
        return ["", "", ""]
    return [str(len(classes)), *(f"{sum(each[split] for each in classes):,}" for split in ("train", "test"))]


def status_text(dataset: dict[str, Any]) -> Text:
    text = Text(dataset["status"], style=STATUS_COLOURS.get(dataset["status"], ""))
    if dataset["status"] == "uploading" and dataset["bytes"]:
        arrived = sum(part["bytes"] for part in dataset["parts"])
        text.append(f" {100 * arrived // dataset['bytes']} %")
    return text


def dataset_page(dataset: dict[str, Any]) -> RenderableType:
    """One of one's own, with what was found in it."""
    rows = Table.grid(padding=(0, 2))
    rows.add_column(style="dim", no_wrap=True)
    rows.add_column(overflow="fold")
    for label, value in _facts(dataset):
        rows.add_row(label, value)
    parts: list[RenderableType] = [rows]
    report = dataset["report"] or {}
    if report.get("problems"):
        parts += ["", _problems(report)]
    elif report.get("classes"):
        parts += ["", _classes(report["classes"])]
    return Group(*parts)


def _facts(dataset: dict[str, Any]) -> Iterator[tuple[str, Text]]:
    yield "dataset", Text(dataset["dataset"], style="bold")
    yield "id", Text(dataset["id"])
    yield "status", status_text(dataset)
    if dataset["bytes"]:
        yield "size", Text(bytes_text(dataset["bytes"]))
    yield "begun", Text(moment_text(dataset["created_at"]))
    report = dataset["report"] or {}
    if size := report.get("size"):
        least, most = ("×".join(map(str, size[end])) for end in ("min", "max"))
        yield "images", Text(least if least == most else f"{least} to {most}")
    if dataset["fingerprint"]:
        yield "fingerprint", Text(dataset["fingerprint"])
    for warning in report.get("warnings") or ():
        yield "warning", Text(warning, style="yellow")


def _classes(classes: list[dict[str, Any]]) -> Table:
    table = plain_table()
    table.add_column("class", overflow="fold")
    table.add_column("train", justify="right", no_wrap=True)
    table.add_column("test", justify="right", no_wrap=True)
    for each in classes[:CLASSES_SHOWN]:
        table.add_row(escape(each["name"]), f"{each['train']:,}", f"{each['test']:,}")
    if len(classes) > CLASSES_SHOWN:
        table.caption, table.caption_justify = f"and {len(classes) - CLASSES_SHOWN} more classes", "left"
    return table


def _problems(report: dict[str, Any]) -> RenderableType:
    """What to mend; beside each other, the tree that was expected and the one that was found."""
    lines = [
        Text.assemble(("✗ ", "red"), (f"{problem['path']}: " if problem["path"] else "", "bold"), problem["message"])
        for problem in report["problems"]
    ]
    if report["more_problems"]:
        lines.append(Text(f"and {report['more_problems']} more", style="dim"))
    trees = Table.grid(padding=(0, 4, 0, 0))
    trees.add_row(Text("expected", style="dim"), Text("found", style="dim"))
    trees.add_row(Text(report["expected"]), Text(report["found"]))
    return Group(*lines, "", trees)
