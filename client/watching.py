"""`dream watch`: a job's life as it goes, drawn in place in a terminal, one line per event elsewhere."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from client import console
from client.resources import Event, Job
from client.sdk import Client
from client.tables import SUBJECTS, job_page, seconds_text, status_text, title

LINE_INTERVAL_S = 5.0


@dataclass(frozen=True, slots=True)
class View:
    """What the screen shows; every event makes the next one."""

    status: str
    phase: str | None = None
    metric: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, dict[str, Any]] = field(default_factory=dict)
    remark: str = ""

    def after(self, event: Event) -> "View":
        data = event.data
        match event.type:
            case "state":
                return replace(self, status=data.get("to") or self.status, metric={}, phase=None)
            case "phase":
                return replace(self, phase=data.get("phase"), metric={})
            case "metric":
                return replace(self, metric=data)
            case "evaluation":
                return replace(self, scores=self.scores | {str(data.get("subject")): data})
            case "warning" | "log":
                return replace(self, remark=str(data.get("message", "")))
            case _:
                return self


def watch(client: Client, job: Job, as_json: bool, advise: bool = True) -> int:
    """Follow a job to its end. The exit code says how it ended; Ctrl-C leaves it running.

    `advise` names the command to go on with.
    """
    try:
        if as_json:
            job = client.jobs.wait(job.id, on_event=lambda event: console.print_json(event.raw))
            console.print_json(job.raw)
        else:
            job = _draw(client, job) if console.fancy() else _lines(client, job)
            console.out.print(job_page(job))
    except KeyboardInterrupt:
        console.note(f"\nNo longer watching; the job goes on.\nTo stop it: dream cancel {job.id}")
        return console.EXIT_DETACHED
    if advise and not as_json and (job.status == "succeeded" or job.partial):
        console.say(f"Fetch {'what it had made' if job.partial else 'it'} with: dream download {job.id}")
    return console.OUTCOMES[job.status]


def _draw(client: Client, job: Job) -> Job:
    view = View(job.status)
    spinner = Spinner("dots", style="cyan")
    with Live(screen(job, view, spinner), console=console.out, refresh_per_second=8, transient=True) as live:

        def show(event: Event) -> None:
            nonlocal view
            view = view.after(event)
            live.update(screen(job, view, spinner))

        return client.jobs.wait(job.id, on_event=show)


def _lines(client: Client, job: Job) -> Job:
    console.say(f"{job.id}  {title(job.spec)}")

    show = line_printer()
    return client.jobs.wait(job.id, on_event=show)


def line_printer() -> Callable[[Event], None]:
    """Prints events a line each, but of steps only one in LINE_INTERVAL_S and the last."""
    shown_at = -LINE_INTERVAL_S

    def show(event: Event) -> None:
        nonlocal shown_at
        if event.type == "metric" and event.data.get("step") != event.data.get("total"):
            if time.monotonic() - shown_at < LINE_INTERVAL_S:
                return
            shown_at = time.monotonic()
        if line := event_line(event):
            console.say(line)

    return show


def screen(job: Job, view: View, spinner: RenderableType) -> RenderableType:
    head = Table.grid(padding=(0, 1))
    state = status_text(view.status)
    if view.phase:
        state.append(f" · {view.phase}", style="dim")
    head.add_row(spinner, Text(title(job.spec), style="bold"), state)
    parts: list[RenderableType] = [head]
    if view.metric.get("total"):
        parts.append(bar(view.metric))
    if view.scores:
        parts.append(scores(view.scores))
    if view.remark:
        parts.append(Text(view.remark, style="dim", overflow="ellipsis", no_wrap=True))
    hint = f"To let it go on: dream resume {job.id}" if view.status == "paused" else "Ctrl-C leaves it running"
    parts.append(Text(hint, style="dim"))
    return Group(*parts)


def bar(metric: dict[str, Any]) -> Table:
    step, total = metric.get("step", 0), metric["total"]
    row = Table.grid(padding=(0, 2), expand=False)
    words = [f"{unit(metric)} {step}/{total}"]
    if metric.get("loss") is not None:
        words.append(f"loss {metric['loss']:.4g}")
    if metric.get("eta_s") is not None:
        words.append(f"{seconds_text(metric['eta_s'])} to go")
    row.add_row("  ", ProgressBar(total=total, completed=step, width=24), *words)
    return row


def unit(metric: dict[str, Any]) -> str:
    """What a metric counts: the steps of the distillation, or the epochs of all networks that judge it."""
    return "epoch" if "subject" in metric else "step"


def scores(latest: dict[str, dict[str, Any]]) -> Table:
    """The accuracies seen so far: the last network of every set that is being judged."""
    table = Table.grid(padding=(0, 2))
    for subject, data in latest.items():
        table.add_row(
            "  ", Text(SUBJECTS.get(subject, subject)), f"network {data.get('run')}/{data.get('runs')}",
            Text(f"{data.get('last', 0):.1f} %", style="bold"), Text(f"best {data.get('best', 0):.1f}", style="dim"),
        )  # fmt: skip
    return table


def event_line(event: Event) -> str:
    """An event in a line, for logs and pipes. Empty for what needs no line."""
    data = event.data
    match event.type:
        case "state":
            return f"status {data.get('to')}" + (f" ({data['reason']})" if data.get("reason") else "")
        case "phase":
            return f"phase {data.get('phase')}"
        case "metric":
            loss = f" loss {data['loss']:.4g}" if data.get("loss") is not None else ""
            eta = f" eta {seconds_text(data['eta_s'])}" if data.get("eta_s") is not None else ""
            return f"{unit(data)} {data.get('step')}/{data.get('total')}{loss}{eta}"
        case "evaluation":
            subject = SUBJECTS.get(str(data.get("subject")), str(data.get("subject")))
            best = f", best {data['best']:.1f}" if data.get("best") is not None else ""
            return f"{subject}: network {data.get('run')}/{data.get('runs')} {data.get('last', 0):.1f} %{best}"
        case "warning" | "log":
            return f"{event.type} {data.get('message', '')}"
        case _:
            return ""
