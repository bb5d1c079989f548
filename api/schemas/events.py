"""What happened in a job, what was measured and what was drawn, as it goes out."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from api.schemas.base import MAX_PAGE, Input, Limit, Output
from jobs.lifecycle import Status
from jobs.tables import JobEvent

EventType = Literal["state", "phase", "metric", "preview", "checkpoint", "evaluation", "log", "warning"]


def _split(given: Any) -> Any:
    """`a,b` and `b` again, as parameters of an address, in a list."""
    if not isinstance(given, list):
        return given
    return [name.strip() for text in given for name in (text.split(",") if isinstance(text, str) else [text])]


CommaSeparated = BeforeValidator(_split)


class EventQuery(Input):
    """Which events to list."""

    after: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Events with a greater `seq`."""
    limit: Limit = MAX_PAGE
    types: Annotated[list[EventType], CommaSeparated] = Field(default_factory=list)
    """Only these, as in `state,metric`; none means all."""


class EventResource(Output):
    """Something that happened in a job. `seq` counts from 1; once the job is over, there may be gaps."""

    object: Literal["distillation.job.event"]
    seq: int
    type: str
    """state, phase, metric, preview, checkpoint, evaluation, log, warning. May grow."""
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


class StreamEnd(Output):
    """The last that a stream sends, as `event: end`: there will be no more."""

    status: Status | None
    """What has become of the job; none if it has been removed altogether."""


class MetricQuery(Input):
    """Which series are wanted, and how fine."""

    keys: Annotated[list[str], CommaSeparated, Field(max_length=50)] = Field(default_factory=list)
    """Only these, as in `loss,step_seconds`; none means all."""
    max_points: Annotated[int, Field(ge=2, le=10_000)] = 1000
    """Of each series; where there are more, those are kept that show its shape (LTTB)."""


class MetricSeries(Output):
    """What was measured under a name in a phase of the job, in the order of steps."""

    key: str
    """loss, step_seconds; accuracy.synthetic and the like, in percent, a point for each network. May grow."""
    phase: str
    points: list[tuple[int, float]]
    """Step and value."""
    times: list[datetime]
    """When each of them was measured."""
    total: int
    """Points that there are in all."""


class Metrics(Output):
    """The series of a job."""

    data: list[MetricSeries]
    keys: list[str]
    """All that can be asked for."""


class Preview(Output):
    """A picture of the synthetic set as it was after a step."""

    step: int
    url: str
    bytes: int
    created_at: datetime


class PreviewList(Output):
    """The earliest first."""

    data: list[Preview]
