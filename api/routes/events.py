"""What happens in a job: events, one by one or as they happen, and measurements."""

import csv
import io
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import Response

from api.conditional import matches, preferred
from api.dependencies import Readings, TheJob
from api.openapi import PROBLEM_RESPONSES
from api.problems import Problem, invalid
from api.ready import answer
from api.schemas.events import (
    EventPage,
    EventQuery,
    EventResource,
    MetricQuery,
    Metrics,
    MetricSeries,
)
from api.security import CanRead
from api.streams import EventStream
from jobs import repository
from jobs.series import USUAL, Series, read_series

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["events"])

HEADERS = {"Cache-Control": "private, no-cache", "Vary": "Accept"}
JSON, STREAM, CSV = "application/json", "text/event-stream", "text/csv"

_UNCHANGED: dict[str, Any] = {"description": "There is nothing new"}
_STREAM_EXAMPLE = 'event: state\ndata: {"seq": 1, "type": "state", …}\nid: 1\n\n: ping\n\nevent: end\ndata: {…}\n\n'
_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A page of events; or, where Accept prefers text/event-stream, a stream of them: `data` is an "
        "event as in the page, `id` its seq, `event` its type; a comment every 15 s where nothing happens; `event: "
        "end` once there will be no more. Streams end after 15 minutes: come back with Last-Event-ID.",
        "content": {STREAM: {"schema": {"type": "string"}, "example": _STREAM_EXAMPLE}},
    },
    304: _UNCHANGED,
    429: PROBLEM_RESPONSES["default"] | {"description": "The key holds as many streams open as it may"},
}
_METRICS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The series; where Accept prefers text/csv, a line for each point",
        "content": {CSV: {"schema": {"type": "string"}, "example": "key,phase,step,value,time\n"}},
    },
    304: _UNCHANGED,
}
AfterHeader = Annotated[
    int | None, Header(alias="Last-Event-ID", ge=0, lt=2**31, description="For streams: goes before `after`")
]


@router.get("/events", response_model=EventPage, responses=_EVENTS)
def list_job_events(
    job: TheJob,
    query: Annotated[EventQuery, Query()],
    reader: CanRead,
    readings: Readings,
    request: Request,
    last_event_id: AfterHeader = None,
) -> Response:
    """What has happened in the job, from the beginning or behind an event that you have seen; or as it happens.

    Poll with If-None-Match and the ETag, or stream: `Accept: text/event-stream`.
    """
    if preferred(request, JSON, STREAM) == STREAM:
        after = query.after if last_event_id is None else last_event_id
        return EventStream(request.app.state.streams, job, after, query.types, reader.key_id)
    headers = HEADERS | {"ETag": f'W/"{job.event_seq}"'}
    if matches(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    with readings.begin() as session:
        events, more = repository.list_events(session, job.id, query.after, query.limit, query.types)
    last = events[-1].seq if events else query.after
    next_after = last if more else max(last, job.event_seq)
    page = EventPage(data=[EventResource.of(event) for event in events], has_more=more, next_after=next_after)
    return answer(page, headers=headers)


@router.get("/metrics", response_model=Metrics, responses=_METRICS)
def get_job_metrics(
    job: TheJob, query: Annotated[MetricQuery, Query()], readings: Readings, request: Request
) -> Response:
    """What the job has measured, by key and phase, each series thinned out to `max_points` that keep its shape."""
    kind = preferred(request, JSON, CSV)
    headers = HEADERS | {"ETag": f'W/"{job.event_seq}"' if kind == JSON else f'W/"{job.event_seq}-csv"'}
    if matches(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    with readings.begin() as session:
        found = read_series(session, job.id)
    known = sorted({*USUAL, *(key for key, _ in found)})
    if strange := [key for key in query.keys if key not in known]:
        raise _no_such_keys(strange, known)
    wanted = {place: series for place, series in found.items() if not query.keys or place[0] in query.keys}
    data = [_public(key, phase, series, query.max_points) for (key, phase), series in wanted.items()]
    if kind == CSV:
        return Response(_as_csv(data), headers=headers, media_type=CSV)
    return answer(Metrics(data=data, keys=known), headers=headers)


def _public(key: str, phase: str, series: Series, most: int) -> MetricSeries:
    thin = series.thinned(most)
    return MetricSeries(
        key=key,
        phase=phase,
        points=list(zip(thin.steps, thin.values, strict=True)),
        times=[datetime.fromtimestamp(seconds, UTC) for seconds in thin.times],
        total=len(series),
    )


def _as_csv(data: list[MetricSeries]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("key", "phase", "step", "value", "time"))
    for series in data:
        for (step, value), time in zip(series.points, series.times, strict=True):
            writer.writerow((series.key, series.phase, step, value, time.isoformat()))
    return text.getvalue()


def _no_such_keys(strange: list[str], known: list[str]) -> Problem:
    message = f"{', '.join(strange)}: measured under no such name; known: {', '.join(known)}"
    return invalid("?keys", "UNKNOWN_KEY", message, known=known)
