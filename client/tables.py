"""How jobs, methods, datasets and results look in a terminal of 80 columns."""

from collections.abc import Iterator
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
    "pausing": "blue",
    "paused": "blue",
    "cancelling": "magenta",
    "succeeded": "green",
    "failed": "red",
    "cancelled": "magenta",
}
MOMENTS = {
    "created": "created",
    "started": "started",
    "paused": "paused",
    "finished": "finished",
    "expires": "kept until",
}
WIDE = 100
"""Columns from which on there is room for names."""
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


def job_list(jobs: list[Job], wide: bool = False) -> Table:
    table = plain_table()
    table.add_column("job", style="bold", no_wrap=True)
    table.add_column("status", no_wrap=True)
    table.add_column("method", no_wrap=True)
    table.add_column("dataset", overflow="ellipsis", no_wrap=True, max_width=30 if wide else 14)
    table.add_column("ipc", justify="right", no_wrap=True)
    table.add_column("accuracy %", justify="right", no_wrap=True)
    table.add_column("age", justify="right", no_wrap=True)
    if wide:
        table.add_column("name", overflow="ellipsis", no_wrap=True)
    for job in jobs:
        what = [escape(str(job.spec.get(word, ""))) for word in ("method", "dataset", "ipc")]
        name = [escape(job.name or "")] if wide else []
        table.add_row(job.id[-12:], how_far(job), *what, accuracy(job), age(job.timestamps.get("created_at")), *name)
    return table


def how_far(job: Job) -> Text:
    """The status; of a running job what it is at, and how much of that is done."""
    if job.status == "queued" and job.priority != "normal":
        return status_text(job.status).append(f" {job.priority}", style="dim")
    if job.status != "running" or not job.phase:
        return status_text(job.status)
    done = f" {100 * job.progress.step // job.progress.total} %" if job.progress and job.progress.total else ""
    return Text(f"{job.phase}{done}", style=COLOURS["running"])


def accuracy(job: Job) -> str:
    if score := (job.result_summary or {}).get("accuracy"):
        return accuracy_text(score)
    return "partial" if job.partial else ""


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
    for label, value in (*_what(job), *_how_far(job), *_when(job), *_how_it_ended(job)):
        rows.add_row(label, value)
    return Group(rows, "", results(job)) if (job.result_summary or {}).get("accuracy") else rows


def _what(job: Job) -> Iterator[tuple[str, Text]]:
    yield "job", Text(job.id, style="bold")
    if job.name:
        yield "name", Text(job.name)
    yield "status", status_line(job)
    yield "what", Text(title(job.spec))
    pairs = {"params": job.spec.get("params"), "evaluation": job.spec.get("evaluation"), "metadata": job.metadata}
    for label, values in pairs.items():
        if values:
            yield label, Text("  ".join(f"{key}={value}" for key, value in values.items()))
    if job.parent_job_id:
        step = job.raw.get("parent_step")
        yield "retry of", Text(job.parent_job_id + ("" if step is None else f", going on from step {step:,}"))


def _how_far(job: Job) -> Iterator[tuple[str, Text]]:
    if job.priority != "normal":
        yield "priority", Text(job.priority)
    if job.progress and not job.finished:
        eta = f", {seconds_text(job.progress.eta_s)} to go" if job.progress.eta_s is not None else ""
        yield "progress", Text(f"{job.progress.step}/{job.progress.total}{eta}")
    if job.attempt > 1:
        yield "attempt", Text(str(job.attempt))


def _when(job: Job) -> Iterator[tuple[str, Text]]:
    for word, label in MOMENTS.items():
        if (moment := job.timestamps.get(f"{word}_at")) and (word != "paused" or job.status == "paused"):
            yield label, Text(moment_text(moment))


def _how_it_ended(job: Job) -> Iterator[tuple[str, Text]]:
    if job.error:
        kind = f"{job.error.get('class')}, {job.error.get('code')}"
        yield "error", Text(f"{job.error.get('message', '')}\n({kind})", style="red")
    if job.partial and not (job.result_summary or {}).get("accuracy"):
        yield "result", Text(partial_text(job))


def partial_text(job: Job) -> str:
    summary = job.result_summary or {}
    how_far = f": step {summary['step']:,} of {summary['steps']:,}" if summary.get("steps") else ""
    return f"partial, what was made until the stop{how_far}"


def moment_text(moment: str) -> str:
    """A moment of the service in this machine's time."""
    return datetime.fromisoformat(moment).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def status_line(job: Job) -> Text:
    text = status_text(job.status)
    if job.phase and not job.finished:
        text.append(f" · {job.phase}", style="dim")
    if job.status_reason and job.status_reason != job.status:
        text.append(f" · {job.status_reason}", style="dim")
    return text


def title(spec: dict[str, Any]) -> str:
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
