"""Events as they go out."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from api.schemas.base import MAX_PAGE, Input, Limit, Output
from jobs.tables import JobEvent


class EventQuery(Input):
    """Which events to list."""

    after: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Events with a greater `seq`."""
    limit: Limit = MAX_PAGE


class EventResource(Output):
    """Something that happened in a job. `seq` counts from 1 without gaps."""

    object: Literal["distillation.job.event"]
    seq: int
    type: str
    """state, phase, metric, checkpoint, evaluation, warning, log. May grow."""
    attempt: int
    created_at: datetime
    data: dict[str, Any]

    @classmethod
    def of(cls, event: JobEvent) -> "EventResource":
        """The public side of a row."""
        return cls(
            object="distillation.job.event",
            seq=event.seq,
            type=event.type,
            attempt=event.attempt,
            created_at=event.created_at,
            data=event.data,
        )


class EventPage(Output):
    """Events in order. Ask again with `after=next_after`, also when there are no more yet."""

    data: list[EventResource]
    has_more: bool
    next_after: int
