"""Stop, hold, go on, do again."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy.orm import Session

from api.auditing import note
from api.dependencies import JobId, Readings, RingerDep, Sessions, SettingsDep, TheJob, find_job
from api.problems import Problem, not_found
from api.schemas.checkpoints import Checkpoint, CheckpointList
from api.schemas.jobs import JobResource, JobRetry
from api.security import CanWrite
from api.submitting import POLL_S, IdempotencyKey, Submitting, require_dataset, uploaded_dataset
from dream_core import recipes
from jobs import repository
from jobs.checkpoints import CheckpointFacts, list_checkpoints
from jobs.lifecycle import PRIORITIES, TERMINAL, Status
from jobs.spec import JobSpec
from jobs.tables import Job

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["jobs"])

_ASKED: dict[int | str, dict[str, Any]] = {202: {"model": JobResource, "description": "The worker has been asked"}}


@router.post("/cancel", responses=_ASKED)
def cancel_job(
    job_id: JobId,
    writer: CanWrite,
    sessions: Sessions,
    request: Request,
    response: Response,
    mode: Annotated[Literal["graceful", "now"], Query(description="`now` waits for no worker and keeps nothing")] = (
        "graceful"
    ),
) -> JobResource:
    """Cancel a job: a waiting one at once, a running one after a checkpoint, and what it has made is kept.

    Repeating is harmless.
    """
    with sessions.begin() as session:
        job = repository.request_cancel(session, job_id, writer.sees, now=mode == "now")
        job = _done(session, job, job_id, "job.cancelled", request)
    return _answer(job, response, pending=Status.CANCELLING)


@router.post("/pause", responses=_ASKED)
def pause_job(job_id: JobId, writer: CanWrite, sessions: Sessions, request: Request, response: Response) -> JobResource:
    """Pause a job: a waiting one at once, a running one after a checkpoint. Its worker is free for others then."""
    with sessions.begin() as session:
        job = repository.request_pause(session, job_id, writer.sees)
        job = _done(session, job, job_id, "job.paused", request)
    return _answer(job, response, pending=Status.PAUSING)


@router.post("/resume", status_code=202)
def resume_job(
    job_id: JobId, writer: CanWrite, sessions: Sessions, ringer: RingerDep, request: Request, response: Response
) -> JobResource:
    """Queue a paused job again. It goes on from its checkpoint, and ends with the same bytes."""
    with sessions.begin() as session:
        job = repository.resume(session, job_id, writer.sees)
        job = _done(session, job, job_id, "job.resumed", request)
    if job.status is Status.QUEUED:
        ringer.ring(job.id, job.queue)
    response.headers["Retry-After"] = str(POLL_S)
    return JobResource.of(job)


@router.post("/retry", status_code=202, response_model=JobResource)
def retry_job(
    job_id: JobId,
    body: JobRetry,
    submission: Submitting,
    readings: Readings,
    idempotency_key: IdempotencyKey = None,
) -> JSONResponse:
    """A new job that does what this one did, or goes on from where it was, or beyond its end."""
    principal, settings = submission.principal, submission.settings
    with readings.begin() as session:
        parent = find_job(session, job_id, principal)
    if parent.status not in TERMINAL:
        raise Problem("JOB_NOT_OVER", f"{job_id} is {parent.status}; only a job that is over can be done again")
    spec, checkpoint = JobSpec.model_validate(parent.spec), None
    if body.from_checkpoint is not None or body.more_iterations is not None:
        checkpoint = _checkpoint(list_checkpoints(settings.checkpoints / job_id), body.from_checkpoint)
    if body.more_iterations:
        spec = _lengthened(spec, parent, body.more_iterations)
    recipe = spec.resolve()
    require_dataset(spec, settings)

    def create(session: Session) -> Job:
        return repository.create_job(
            session,
            spec,
            recipe,
            body.name or parent.name,
            parent.labels,
            owner=parent.owner,
            priority=PRIORITIES[body.priority],
            dataset_id=uploaded_dataset(session, recipe, parent.owner),
            parent=parent,
            parent_step=checkpoint.step if checkpoint else None,
        )

    request = {"job": job_id} | body.model_dump(mode="json")
    return submission.submit("retry_job", idempotency_key, request, create)


@router.get("/checkpoints")
def list_job_checkpoints(job: TheJob, settings: SettingsDep) -> CheckpointList:
    """The states that the job, or a `retry` of it, can go on from. They are kept for some days after its end."""
    found = list_checkpoints(settings.checkpoints / job.id)
    return CheckpointList(data=[Checkpoint.model_validate(facts, from_attributes=True) for facts in found])


def _checkpoint(found: list[CheckpointFacts], wanted: int | str | None) -> CheckpointFacts:
    if isinstance(wanted, int):
        found = [facts for facts in found if facts.step == wanted]
    if not found:
        which = f"at step {wanted}" if isinstance(wanted, int) else "left"
        raise Problem("NO_CHECKPOINT", f"there is no checkpoint {which} to go on from; leave out from_checkpoint")
    return found[-1]


def _lengthened(spec: JobSpec, parent: Job, more: int) -> JobSpec:
    """The same, with as many iterations more."""
    recipe = recipes.read_recipe(parent.resolved_spec)
    longer = recipes.lengthened(recipe, more)
    changed = {name: value for name, value in longer if value != getattr(recipe, name)}
    return spec.model_copy(update={"params": spec.params | changed})


def _done(session: Session, job: Job | None, job_id: str, action: str, request: Request) -> Job:
    """Put down what was done to the job. Raises a Problem where there is none."""
    if job is None:
        raise not_found("job", job_id)
    note(session, request, action, job_id)
    return job


def _answer(job: Job, response: Response, pending: Status) -> JobResource:
    if job.status is pending:
        response.status_code = 202
        response.headers["Retry-After"] = str(POLL_S)
    return JobResource.of(job)
