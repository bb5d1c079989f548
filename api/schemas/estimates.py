"""Estimates as they go out."""

from typing import Any

from api.schemas.base import Output


class Seconds(Output):
    """A span of time, by what past jobs took."""

    low: float
    likely: float
    high: float
    basis: str
    """Which past jobs it is taken from: the nearer they are to this one, the narrower the span."""
    runs: int
    """How many of them."""


class QueuePlace(Output):
    """Where the job would stand if it were submitted now."""

    position: int
    """Jobs that are taken before it."""


class Estimate(Output):
    """What a job would take. Nothing has been submitted."""

    resolved_spec: dict[str, Any]
    """The complete recipe."""
    steps: int
    seconds: Seconds | None
    """Of the work itself, without waiting; none where nothing like it has succeeded yet."""
    memory_bytes: int | None
    disk_bytes: int | None
    """While it runs, and afterwards until its checkpoints are removed."""
    queue: QueuePlace
    fits: bool | None
    """Whether a worker that is here has the memory; none where that is not known."""
    note: str
