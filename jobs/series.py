"""What a job has measured, as series of numbers over its steps, thinned out so that they keep their shape."""

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from jobs.tables import JobEvent

ROWS_AT_A_TIME = 1000
NO_PHASE = "loading"
"""What a job is in before it says so."""
USUAL = ("loss", "step_seconds", "accuracy.synthetic", "best_accuracy.synthetic")
"""Keys that every job has, sooner or later."""
_MEASURE_NOTHING = frozenset({"step", "total", "eta_s", "run", "epoch"})


@dataclass(slots=True)
class Series:
    """Finite numbers by step, and when each was measured, in seconds since 1970: 24 bytes a point."""

    steps: "array[int]" = field(default_factory=lambda: array("q"))
    values: "array[float]" = field(default_factory=lambda: array("d"))
    times: "array[float]" = field(default_factory=lambda: array("d"))

    def __len__(self) -> int:
        return len(self.steps)

    def add(self, step: int, value: float, time: float) -> None:
        """Append a point. An attempt that goes on from a checkpoint repeats steps: their earlier points are dropped."""
        while self.steps and self.steps[-1] >= step:
            for column in (self.steps, self.values, self.times):
                column.pop()
        self.steps.append(step)
        self.values.append(value)
        self.times.append(time)

    def thinned(self, most: int) -> "Series":
        """As many of the points at most, chosen to look the same when drawn."""
        kept = lttb(self.steps, self.values, most)
        return Series(
            array("q", (self.steps[point] for point in kept)),
            array("d", (self.values[point] for point in kept)),
            array("d", (self.times[point] for point in kept)),
        )


def read_series(session: Session, job_id: str) -> dict[tuple[str, str], Series]:
    """All series of a job, by key and phase.

    The numbers of `metric` events go by their own names, those of `evaluation` events as `accuracy.<subject>` and
    `best_accuracy.<subject>` over the networks trained.
    """
    series: dict[tuple[str, str], Series] = {}
    phase = NO_PHASE
    for kind, created_at, data in _telling(session, job_id):
        if kind == "phase":
            phase = data.get("phase", phase)
            continue
        for key, step, value in _measured(kind, data):
            series.setdefault((key, phase), Series()).add(step, value, created_at.timestamp())
    return series


def _telling(session: Session, job_id: str) -> Iterator[tuple[str, datetime, dict[str, Any]]]:
    """Type, time and data of the events that tell a number or a phase, in order; few of them at a time in memory."""
    query = select(JobEvent.seq, JobEvent.type, JobEvent.created_at, JobEvent.data).order_by(JobEvent.seq)
    query = query.where(JobEvent.job_id == job_id, JobEvent.type.in_(("phase", "metric", "evaluation")))
    after = 0
    while rows := session.execute(query.where(JobEvent.seq > after).limit(ROWS_AT_A_TIME)).all():
        after = rows[-1].seq
        yield from ((row.type, row.created_at, row.data) for row in rows)


def _measured(kind: str, data: Mapping[str, Any]) -> Iterator[tuple[str, int, float]]:
    """Key, step and value of what an event says."""
    match kind, data:
        case "evaluation", {"subject": subject, "run": int(run), "last": last, "best": best}:
            found = {f"accuracy.{subject}": last, f"best_accuracy.{subject}": best}
            yield from ((key, run, value) for key, value in found.items() if isinstance(value, int | float))
        case "metric", {"step": int(step)}:
            for key, value in data.items():
                if key not in _MEASURE_NOTHING and isinstance(value, int | float) and not isinstance(value, bool):
                    yield key, step, value


def lttb(x: Sequence[float], y: Sequence[float], most: int) -> list[int]:
    """Indices of at most `most` (two or more) points that keep a curve's shape: largest triangle, three buckets.

    Of each of as many buckets as there is room for, between the first point and the last, the point that spans the
    largest triangle with the one chosen before and the mean of the next bucket. Steinarsson, Downsampling Time Series
    for Visual Representation, 2013, §4.2.
    """
    count = len(x)
    if count <= most:
        return list(range(count))
    edges = [1 + bucket * (count - 2) // (most - 2) for bucket in range(most - 1)] if most > 2 else []
    edges.append(count)
    kept = [0]
    for start, end, behind in zip(edges, edges[1:], edges[2:], strict=False):
        mean_x, mean_y = sum(x[end:behind]) / (behind - end), sum(y[end:behind]) / (behind - end)
        x0, y0 = x[kept[-1]], y[kept[-1]]
        areas = [abs((x0 - mean_x) * (y[i] - y0) - (x0 - x[i]) * (mean_y - y0)) for i in range(start, end)]
        kept.append(start + areas.index(max(areas)))
    return [*kept, count - 1]
