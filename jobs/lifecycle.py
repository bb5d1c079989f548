"""The states of a job and the moves between them. `TRANSITIONS` is the only authority."""

from enum import StrEnum


class Status(StrEnum):
    """What a job is, from the outside. A closed set; finer progress is the job's `phase`."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class ErrorClass(StrEnum):
    """Why a job failed, or an attempt ended early. The scheduler retries `worker_lost` and `host_shutdown` alone."""

    USER_ERROR = "user_error"
    OUT_OF_MEMORY = "out_of_memory"
    NUMERICAL_DIVERGENCE = "numerical_divergence"
    TIMEOUT = "timeout"
    WORKER_LOST = "worker_lost"
    HOST_SHUTDOWN = "host_shutdown"
    POISON = "poison"
    INTERNAL = "internal"


TRANSITIONS: dict[Status, frozenset[Status]] = {
    Status.QUEUED: frozenset({Status.RUNNING, Status.PAUSED, Status.CANCELLED}),
    Status.RUNNING: frozenset(
        {Status.SUCCEEDED, Status.FAILED, Status.CANCELLING, Status.PAUSING, Status.QUEUED}
    ),
    Status.PAUSING: frozenset({Status.PAUSED, Status.CANCELLING, Status.SUCCEEDED, Status.FAILED}),
    Status.PAUSED: frozenset({Status.QUEUED, Status.CANCELLED}),
    Status.CANCELLING: frozenset({Status.CANCELLED}),
    Status.SUCCEEDED: frozenset(),
    Status.FAILED: frozenset(),
    Status.CANCELLED: frozenset(),
}  # fmt: skip

TERMINAL = frozenset(status for status, following in TRANSITIONS.items() if not following)
HELD = frozenset({Status.RUNNING, Status.PAUSING, Status.CANCELLING})
"""States in which an attempt holds the job by a lease, and may write to it."""

PRIORITIES = {"high": 1, "normal": 0, "low": -1}
"""What may be said of a job's urgency, the most urgent first."""

MAX_LOSSES = 3
"""Lost workers in a row, without a newer checkpoint between them, that make a job poison."""


class IllegalTransition(Exception):
    """A move that the life cycle does not have."""

    def __init__(self, source: Status, target: Status) -> None:
        self.source, self.target, self.allowed = source, target, sorted(TRANSITIONS[source])
        super().__init__(f"a job that is {source} cannot become {target}")


def check(source: Status, target: Status) -> None:
    """Raise IllegalTransition unless the life cycle leads from `source` to `target` in one move."""
    if target not in TRANSITIONS[source]:
        raise IllegalTransition(source, target)
