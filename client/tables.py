"""How jobs, methods, datasets and results look in a terminal of 80 columns."""

from datetime import UTC, datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from client.resources import Job

COLOURS = {
    "queued": "yellow",
    "running": "cyan",
    "cancelling": "magenta",
    "succeeded": "green",
    "failed": "red",
    "cancelled": "magenta",
}
SUBJECTS = {"synthetic": "synthetic set", "random": "random real images", "full": "whole training set"}


def status_text(status: str) -> Text:
    return Text(status, style=COLOURS.get(status, ""))


def seconds_text(seconds: float | None) -> str:
    """`42 s`, `3 min 05 s`, `2 h 10 min`, `3 d 04 h`; empty where unknown."""
    if seconds is None:
        return ""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 86400} d {whole % 86400 // 3600:02} h"


def bytes_text(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def accuracy_text(score: dict[str, Any] | None) -> str:
    """`54.1 ± 0.3`, in percent; a single network has no deviation."""
    if not score or score.get("mean") is None:
        return "–"
    deviation = f" ± {score['std']:.1f}" if score.get("std") is not None and (score.get("n") or 0) > 1 else ""
    return f"{score['mean']:.1f}{deviation}"


def plain_table() -> Table:
    return Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim", title_justify="left")


def job_list(jobs: list[Job]) -> Table:
    table = plain_table()
    table.add_column("job", style="bold", no_wrap=True)
    table.add_column("status", no_wrap=True)
    table.add_column("method", no_wrap=True)
    table.add_column("dataset", overflow="ellipsis", no_wrap=True, max_width=14)
    table.add_column("ipc", justify="right", no_wrap=True)
    table.add_column("accuracy %", justify="right", no_wrap=True)
    table.add_column("age", justify="right", no_wrap=True)
    for job in jobs:
        what = [escape(str(job.spec.get(word, ""))) for word in ("method", "dataset", "ipc")]
        table.add_row(job.id[-12:], how_far(job), *what, accuracy(job), age(job.timestamps.get("created_at")))
    return table


def how_far(job: Job) -> Text:
    """The status; of a running job what it is at, and how much of that is done."""
    if job.status != "running" or not job.phase:
        return status_text(job.status)
    done = f" {100 * job.progress.step // job.progress.total} %" if job.progress and job.progress.total else ""
    return Text(f"{job.phase}{done}", style=COLOURS["running"])


def accuracy(job: Job) -> str:
    return accuracy_text(job.result_summary.get("accuracy")) if job.result_summary else ""


def age(created_at: str | None) -> str:
    """The time since, in one unit."""
    if not created_at:
        return ""
    seconds = (datetime.now(UTC) - datetime.fromisoformat(created_at)).total_seconds()
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{max(0, int(seconds))} s"


def job_page(job: Job) -> RenderableType:
    rows = Table.grid(padding=(0, 2))
    rows.add_column(style="dim", no_wrap=True)
    rows.add_column(overflow="fold")
    rows.add_row("job", Text(job.id, style="bold"))
    if job.name:
        rows.add_row("name", Text(job.name))
    rows.add_row("status", status_line(job))
    rows.add_row("what", Text(title(job)))
    for word in ("params", "evaluation"):
        if job.spec.get(word):
            rows.add_row(word, Text("  ".join(f"{key}={value}" for key, value in job.spec[word].items())))
    if job.progress and not job.finished:
        eta = f", {seconds_text(job.progress.eta_s)} to go" if job.progress.eta_s is not None else ""
        rows.add_row("progress", f"{job.progress.step}/{job.progress.total}{eta}")
    for word in ("created", "started", "finished"):
        if moment := job.timestamps.get(f"{word}_at"):
            rows.add_row(word, datetime.fromisoformat(moment).astimezone().strftime("%Y-%m-%d %H:%M:%S"))
    if job.attempt > 1:
        rows.add_row("attempt", str(job.attempt))
    if job.error:
        rows.add_row(
            "error",
            Text(f"{job.error.get('message', '')}\n({job.error.get('class')}, {job.error.get('code')})", style="red"),
        )
    return Group(rows, "", results(job)) if job.result_summary else rows


def status_line(job: Job) -> Text:
    text = status_text(job.status)
    if job.phase and not job.finished:
        text.append(f" · {job.phase}", style="dim")
    if job.status_reason and job.status_reason != job.status:
        text.append(f" · {job.status_reason}", style="dim")
    return text


def title(job: Job) -> str:
    spec = job.spec
    words = [
        spec.get("method"),
        spec.get("dataset"),
        f"ipc {spec.get('ipc')}",
        f"seed {spec.get('seed', 0)}",
    ]
    return " · ".join(map(str, words))


def results(job: Job) -> Table:
    """Accuracy of the synthetic set beside what it is to be compared with."""
    summary = job.result_summary or {}
    baselines = summary.get("baselines") or {}
    table = plain_table()
    table.add_column("trained on", no_wrap=True)
    table.add_column("accuracy %", justify="right", no_wrap=True)
    table.add_column("networks", justify="right", no_wrap=True)
    table.add_column("")
    score = summary.get("accuracy") or {}
    best = f"best on the way {score['best_mean']:.1f}" if score.get("best_mean") is not None else ""
    table.add_row("synthetic set", Text(accuracy_text(score), style="bold"), str(score.get("n", "")), best)
    for name in ("random", "full"):
        if baseline := baselines.get(name):
            source = "" if baseline.get("source") in (None, "measured") else str(baseline["source"])
            if baseline.get("epochs") not in (None, (summary.get("budget") or {}).get("epochs")):
                source = f"trained {baseline['epochs']} epochs"
            table.add_row(SUBJECTS[name], accuracy_text(baseline), str(baseline.get("n") or "–"), source)
    budget = summary.get("budget") or {}
    if budget and not budget.get("published"):
        table.caption = (
            f"with {budget['steps']:,} of {budget['recipe_steps']:,} steps "
            f"and {budget['epochs']:,} of {budget['recipe_epochs']:,} epochs"
        )
        table.caption_justify = "left"
    return table


def dataset_list(datasets: list[dict[str, Any]]) -> RenderableType:
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
    advice = Table.grid(padding=(0, 2, 0, 0))
    for dataset in datasets:
        if dataset.get("advice"):
            advice.add_row(Text(dataset["name"]), Text(dataset["advice"], style="dim"))
    return Group(table, "", advice) if advice.row_count else table
