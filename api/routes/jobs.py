"""Submit, look at, change and delete jobs."""

import re
from typing import Annotated

from fastapi import APIRouter, Body, Header, Query, Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy.orm import Session

from api.auditing import note
from api.conditional import matches
from api.dependencies import JobId, Readings, Sessions, find_job
from api.pagination import decode_cursor, next_cursor
from api.problems import Problem, not_found
from api.ready import answer
from api.schemas.jobs import METADATA_PARAMETER, JobAmend, JobCreate, JobPage, JobQuery, JobResource, metadata_filter
from api.security import CanRead, CanWrite
from api.submitting import POLL_S, IdempotencyKey, Submitting, require_dataset, uploaded_dataset
from jobs import repository
from jobs.lifecycle import PRIORITIES, TERMINAL
from jobs.repository import Standing
from jobs.tables import Job

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

_ETAG = re.compile(r'(?:W/)?"(\d{1,9})"')


@router.post("", status_code=202, response_model=JobResource)
def create_job(body: JobCreate, submission: Submitting, idempotency_key: IdempotencyKey = None) -> JSONResponse:
    """Submit a job. It runs when a worker is free; poll `urls.self`, or follow `urls.events`."""
    recipe = body.spec.resolve()
    require_dataset(body.spec, submission.settings)

    def create(session: Session) -> Job:
        return repository.create_job(
            session,
            body.spec,
            recipe,
            body.name,
            body.metadata,
            owner=submission.principal.owner,
            priority=PRIORITIES[body.priority],
            dataset_id=uploaded_dataset(session, recipe, submission.principal.owner),
        )

    return submission.submit("create_job", idempotency_key, body.model_dump(mode="json"), create)


@router.get("", response_model=JobPage, openapi_extra={"parameters": [METADATA_PARAMETER]})
def list_jobs(query: Annotated[JobQuery, Query()], request: Request, reader: CanRead, readings: Readings) -> Response:
    """List jobs, newest first."""
    metadata = metadata_filter(request.query_params.multi_items())
    filters = repository.Filters(
        query.status, query.method, query.dataset, query.created_after, query.created_before, metadata
    )
    with readings.begin() as session:
        jobs, more = repository.list_jobs(
            session,
            query.limit,
            filters,
            owner=reader.sees,
            after=decode_cursor(query.cursor),
            ascending=query.order == "asc",
        )
    return answer(
        JobPage(data=[JobResource.of(job) for job in jobs], has_more=more, next_cursor=next_cursor(jobs, more))
    )


@router.get(
    "/{job_id}", response_model=JobResource, responses={304: {"description": "The job is as the client knows it"}}
)
def get_job(job_id: JobId, reader: CanRead, readings: Readings, request: Request) -> Response:
    """One job. Send its ETag back in If-None-Match, and an unchanged job answers 304 without a body."""
    with readings.begin() as session:
        known = repository.get_standing(session, job_id, reader.sees) if "if-none-match" in request.headers else None
        if known and matches(request, _etag(known)):
            return Response(status_code=304, headers=_polling(known))
        job = find_job(session, job_id, reader)
    return answer(JobResource.of(job), headers=_polling(job))


@router.patch("/{job_id}")
def amend_job(
    job_id: JobId,
    body: Annotated[JobAmend, Body()],
    writer: CanWrite,
    sessions: Sessions,
    request: Request,
    response: Response,
    if_match: Annotated[str | None, Header(description="The job's ETag: change it only if it is still this")] = None,
) -> JobResource:
    """Change a job's name, metadata or, while it is queued, its priority."""
    given = body.model_dump(exclude_unset=True)
    changes = {"labels" if name == "metadata" else name: value for name, value in given.items()}
    if "priority" in changes:
        changes["priority"] = PRIORITIES[changes["priority"]]
    with sessions.begin() as session:
        job = repository.amend(session, job_id, changes, writer.sees, _version(if_match))
        if job is None:
            raise not_found("job", job_id)
        note(session, request, "job.amended", job_id)
    response.headers["ETag"] = _etag(job)
    return JobResource.of(job)


@router.delete("/{job_id}", status_code=204)
def delete_job(job_id: JobId, writer: CanWrite, sessions: Sessions, request: Request) -> None:
    """Delete a job that is over. It is gone at once; its files are removed within a day."""
    with sessions.begin() as session:
        if repository.delete(session, job_id, writer.sees) is None:
            raise not_found("job", job_id)
        note(session, request, "job.deleted", job_id)


def _etag(job: Job | Standing) -> str:
    """The entity tag of a job."""
    return f'W/"{job.version}"'


def _polling(job: Job | Standing) -> dict[str, str]:
    headers = {"ETag": _etag(job), "Cache-Control": "private, no-cache"}
    return headers if job.status in TERMINAL else headers | {"Retry-After": str(POLL_S)}


def _version(if_match: str | None) -> int | None:
    """The version that If-Match asks for. A tag that is none of ours fits no version."""
    if if_match is None or if_match.strip() == "*":
        return None
    found = _ETAG.fullmatch(if_match.strip())
    if found is None:
        raise Problem("PRECONDITION_FAILED", "If-Match names no version of this job; send the ETag that it came with")
    return int(found[1])
