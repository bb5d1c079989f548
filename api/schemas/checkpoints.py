"""Checkpoints as they go out."""

from datetime import datetime

from api.schemas.base import Output


class Checkpoint(Output):
    """A state that a job can go on from."""

    step: int
    total: int | None
    """Steps in all, those of every phase included."""
    phase: str | None
    loss: float | None
    """The matching loss of its step, where there is one."""
    bytes: int
    created_at: datetime


class CheckpointList(Output):
    """The oldest first."""

    data: list[Checkpoint]
