"""Submit, watch and cancel jobs."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from api.conditional import matches
from api.dependencies import BellDep, JobId, Reading, Sessions, SettingsDep, TheJob, no_such_job
from api.pagination import decode_cursor, encode_cursor
from api.problems import Problem, ProblemDetail
from api.schemas import (
    EventPage,
    EventQuery,
    EventResource,
    JobCreate,
    JobPage,
    JobQuery,
    JobResource,
)
from dream_core.catalog import is_folder
from dream_core.inventory import find
from jobs import repository
from jobs.dispatcher import ring_all
from jobs.lifecycle import TERMINAL, Status
from jobs.settings import Settings
from jobs.spec import JobSpec

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

POLL_S = 2


@router.post("", status_code=202)
def create_job(
    body: JobCreate, response: Response, settings: SettingsDep, sessions: Sessions, bell: BellDep
) -> JobResource:
    """Submit a job. It runs when a worker is free; poll `urls.self`, or follow `urls.events`."""
    recipe = body.spec.resolve()
    _require_dataset(body.spec, settings)
    with sessions.begin() as session:
        job = repository.create_job(session, body.spec, recipe, body.name, body.metadata)
    ring_all(sessions, bell, [job.id])
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    response.headers["Retry-After"] = str(POLL_S)
    return JobResource.of(job)


@router.get("")
def list_jobs(query: Annotated[JobQuery, Query()], reading: Reading) -> JobPage:
    """List jobs, newest first."""
    jobs, more = repository.list_jobs(
        reading,
        query.limit,
        after=decode_cursor(query.cursor) if query.cursor else None,
        statuses=query.status,
        method=query.method,
        dataset=query.dataset,
    )
    next_cursor = encode_cursor(jobs[-1]) if more else None
    return JobPage(data=[JobResource.of(job) for job in jobs], has_more=more, next_cursor=next_cursor)


@router.get("/{job_id}", response_model=JobResource)
def get_job(job: TheJob, request: Request, response: Response) -> JobResource | Response:
    """One job. Send its ETag back in If-None-Match, and an unchanged job answers 304 without a body."""
    etag = f'W/"{job.version}"'
    headers = {"ETag": etag, "Cache-Control": "private, no-cache"}
    if job.status not in TERMINAL:
        headers["Retry-After"] = str(POLL_S)
    if matches(request, etag):
        return Response(status_code=304, headers=headers)
    response.headers.update(headers)
    return JobResource.of(job)


@router.post("/{job_id}/cancel", responses={202: {"model": JobResource, "description": "The worker has been asked"}})
def cancel_job(job_id: JobId, response: Response, sessions: Sessions) -> JobResource:
    """Cancel a job: a waiting one at once, a running one after a checkpoint. Repeating is harmless."""
    with sessions.begin() as session:
        job = repository.request_cancel(session, job_id)
    if job is None:
        raise no_such_job(job_id)
    if job.status is Status.CANCELLING:
        response.status_code = 202
        response.headers["Retry-After"] = str(POLL_S)
    return JobResource.of(job)


@router.get("/{job_id}/events")
def list_job_events(job: TheJob, query: Annotated[EventQuery, Query()], reading: Reading) -> EventPage:
    """What has happened in the job, from the beginning or behind an event that you have seen."""
    events, more = repository.list_events(reading, job.id, query.after, query.limit)
    next_after = events[-1].seq if events else query.after
    return EventPage(data=[EventResource.of(event) for event in events], has_more=more, next_after=next_after)


def _require_dataset(spec: JobSpec, settings: Settings) -> None:
    """Better to be told now than by a failed job in an hour."""
    if settings.allow_download and not is_folder(spec.dataset):
        return
    found = find(spec.dataset, settings.data_dir)
    if not found.available:
        detail = ProblemDetail(pointer="#/spec/dataset", code="DATASET_MISSING", message=found.advice)
        raise Problem("DATASET_MISSING", found.advice, errors=[detail])
