"""What the driver tells the users, and what they tell the driver: two JSON files."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple


class Sample(NamedTuple):
    """A request, or an event that arrived: when (seconds since the epoch), and what it took in milliseconds."""

    name: str
    at: float
    took_ms: float
    succeeded: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """Who does what to whose jobs."""

    users: dict[str, int]
    """How many of each class of the locust file."""
    period_s: float
    """From one request of a user to their next; 0: as soon as there is an answer."""
    jobs: dict[str, list[str]]
    """Of every owner."""
    keys: dict[str, str]
    """Of every owner."""
    running: dict[str, list[str]]
    """Jobs of every owner to be watched."""
    deep: str
    """A moment behind which three quarters of the jobs were submitted."""
    samples: str
    """Where to put what was seen."""

    @classmethod
    def read(cls, path: Path) -> "Plan":
        return cls(**json.loads(path.read_text(encoding="utf-8")))

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    def write_samples(self, samples: Sequence[Sample]) -> None:
        Path(self.samples).write_text(json.dumps(samples), encoding="utf-8")

    def read_samples(self) -> list[Sample]:
        return [Sample(*values) for values in json.loads(Path(self.samples).read_text(encoding="utf-8"))]
