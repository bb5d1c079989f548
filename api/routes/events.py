"""What happens in a job: its events."""

from typing import Annotated

from fastapi import APIRouter, Query

from api.dependencies import Readings, TheJob
from api.schemas.events import EventPage, EventQuery, EventResource
from jobs import repository

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["events"])


@router.get("/events")
def list_job_events(job: TheJob, query: Annotated[EventQuery, Query()], readings: Readings) -> EventPage:
    """What has happened in the job, from the beginning or behind an event that you have seen."""
    with readings.begin() as session:
        events, more = repository.list_events(session, job.id, query.after, query.limit)
    next_after = events[-1].seq if events else query.after
    return EventPage(data=[EventResource.of(event) for event in events], has_more=more, next_after=next_after)
