"""The fault matrix as rows, and what all of them use.

A row is a function of a cluster. The rows of a lane share one.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.fixtures.cluster import TINY, Cluster, digests_in, draw_pictures
from tests.fixtures.serving import JUDGED, SHORT
from tests.worker import runners

# a second of steps, so that there is time to do something to it
PARAMS = SHORT | {"outer_iterations": 3, "image_size": 8}
EVALUATION = JUDGED | {"baselines": False}
DATASET = f"folder:{TINY}"
STEADY: dict[str, Any] = {"dataset": DATASET, "method": "dream", "ipc": 1, "params": PARAMS, "evaluation": EVALUATION}
ENDLESS: dict[str, Any] = STEADY | {"params": PARAMS | {"outer_iterations": 100_000}}

Check = Callable[[Cluster], None]


@dataclass(frozen=True, slots=True)
class Lane:
    """A cluster, and the rows that are run on it, a few at a time. Its methods are the decorators that enter them."""

    name: str
    workers: int
    at_a_time: int
    database: str = "postgresql"
    changes: dict[str, str] = field(default_factory=dict)
    """To the environment of its parts."""
    rows: dict[str, Check] = field(default_factory=dict)
    nightly_rows: dict[str, Check] = field(default_factory=dict)

    def check(self, row: str) -> Check:
        return (self.rows | self.nightly_rows)[row]

    def row(self, check: Check) -> Check:
        self.rows[check.__name__] = check
        return check

    def nightly_row(self, check: Check) -> Check:
        self.nightly_rows[check.__name__] = check
        return check


def is_undisturbed(cluster: Cluster, job_id: str) -> None:
    """Assert that STEADY has been published once, with the bytes of a run to which nothing happened."""
    assert cluster.digests(job_id) == undisturbed()
    ends = [event for event in cluster.events(job_id) if event["data"].get("to") == "succeeded"]
    assert len(ends) == 1
    attempts = [event["attempt"] for event in cluster.events(job_id)]
    assert attempts == sorted(attempts), "an attempt wrote after its successor"


def resumed(cluster: Cluster, job_id: str) -> bool:
    """Whether an attempt went on from a checkpoint."""
    return any("resumed at step" in event["data"].get("message", "") for event in cluster.events(job_id))


@cache
def undisturbed() -> dict[str, str]:
    """The digests of STEADY, run without any service."""
    with TemporaryDirectory() as directory:
        draw_pictures(Path(directory) / "data_dir" / TINY)
        work = runners.job(Path(directory), DATASET, params=PARAMS, evaluation=EVALUATION)
        assert work.run() == 0
        return digests_in(work.output)
