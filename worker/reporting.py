"""What a run reports: one JSON object a line, in a file that the supervisor reads along; and sentences on stderr."""

import contextlib
import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from worker.cadence import Cadence
from worker.narration import sentence

METRIC_INTERVAL_S = 0.5
METRICS_GROWTH = 1 / 2000
"""Metrics come ever more rarely: a job of hours has a few thousand."""
LINE_INTERVAL_S = 10.0


class Interrupted(Exception):
    """The run was asked to stop; what it has done is saved. `partial` sums up the result that it leaves, if any."""

    def __init__(self, partial: dict[str, Any] | None = None):
        super().__init__()
        self.partial = partial


class Reporter:
    """Appends events to `events.jsonl`, and tells a person of them."""

    def __init__(self, path: Path):
        self.path = path
        self._metrics = Cadence(METRIC_INTERVAL_S, METRICS_GROWTH, at_once=True)
        self._lines = Cadence(LINE_INTERVAL_S, at_once=True)

    def event(self, kind: str, **data: Any) -> None:
        """Report something that happened."""
        line = {"type": kind, "created_at": datetime.now(UTC).isoformat(timespec="milliseconds"), "data": data}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if kind != "metric":
            self._tell(kind, data)

    def warning(self, code: str, message: str) -> None:
        """Report something that costs the job less than its result."""
        self.event("warning", code=code, message=message)

    def metric(self, step: int, total: int, **data: Any) -> bool:
        """Report progress, at most twice a second and in any case at the end. Returns whether it was time for it."""
        last = step == total
        if last or self._lines.due():
            with self._lines.turn():
                self._tell("metric", {"step": step, "total": total, **data})
        if not last and not self._metrics.due():
            return False
        with self._metrics.turn():
            self.event("metric", step=step, total=total, **data)
        return True

    def _tell(self, kind: str, data: dict[str, Any]) -> None:
        if told := sentence(kind, data):
            say(told)


def say(told: str) -> None:
    """Tell a person, who reads along or later. Where that cannot be written the run goes on."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {told}\n")


class Eta:
    """Seconds that remain, by the mean pace of this process so far."""

    def __init__(self, done: int, total: int):
        self.start, self.first, self.total = time.monotonic(), done, total

    def at(self, done: int) -> float | None:
        """The estimate once `done` of the total are done."""
        if done <= self.first:
            return None
        pace = (time.monotonic() - self.start) / (done - self.first)
        return round(pace * (self.total - done), 1)
