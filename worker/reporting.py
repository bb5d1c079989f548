"""What a run reports: one JSON object a line, in a file that the supervisor reads along."""

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

METRIC_INTERVAL_S = 0.5


class Interrupted(Exception):
    """The run was asked to stop; what it has done is saved."""


class Reporter:
    """Appends events to `events.jsonl`."""

    def __init__(self, path: Path):
        self.path = path
        self._last_metric = 0.0

    def event(self, kind: str, **data: Any) -> None:
        """Report something that happened."""
        line = {"type": kind, "created_at": datetime.now(UTC).isoformat(timespec="milliseconds"), "data": data}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def metric(self, step: int, total: int, **data: Any) -> None:
        """Report progress, at most twice a second and in any case at the end."""
        now = time.monotonic()
        if step == total or now - self._last_metric >= METRIC_INTERVAL_S:
            self._last_metric = now
            self.event("metric", step=step, total=total, **data)


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
