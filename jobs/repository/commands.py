"""What users ask of a job. `owner` None may ask it of everyone's; None is returned where there is no such job.

Each raises IllegalTransition where the life cycle does not lead there from where the job is.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from jobs.lifecycle import HELD, TERMINAL, IllegalTransition, Status
from jobs.repository.transition import let_go, transition, utcnow
from jobs.tables import Job

USER = "user"


class StaleVersion(Exception):
    """The job is no longer in the version that the caller has seen."""


class NotQueued(Exception):
    """What was to be changed counts for queued jobs alone."""


class NotOver(Exception):
    """Only a job that is over can be treated like this."""


def lock_job(session: Session, job_id: str, owner: str | None = None) -> Job | None:
    """The job, kept from others until the transaction ends. Deleted ones are not there."""
    query = select(Job).where(Job.id == job_id, Job.deleted_at.is_(None)).with_for_update()
    job = session.scalar(query.execution_options(populate_existing=True))
    return job if job and owner in (None, job.owner) else None


def request_cancel(session: Session, job_id: str, owner: str | None = None, *, now: bool = False) -> Job | None:
    """Cancel a waiting job at once; ask the worker of a running one to stop and to keep what it has.

    With `now` a running one is cancelled at once, too: its worker finds itself fenced out, and nothing is kept.
    Cancelling twice is harmless.
    """
    job = lock_job(session, job_id, owner)
    if job is None or job.status is Status.CANCELLED or (job.status is Status.CANCELLING and not now):
        return job
    if job.status in HELD:
        if job.status is not Status.CANCELLING:
            job = transition(session, job, Status.CANCELLING, USER, cancelling_at=utcnow())
        if now and job:
            let_go(session, job, Status.CANCELLED, USER)
        return job
    moment = utcnow()
    return transition(session, job, Status.CANCELLED, USER, cancelling_at=moment, finished_at=moment)


def request_pause(session: Session, job_id: str, owner: str | None = None) -> Job | None:
    """Hold a waiting job back; ask the worker of a running one to write a checkpoint and let go of it.

    Pausing twice is harmless.
    """
    job = lock_job(session, job_id, owner)
    if job is None or job.status in (Status.PAUSING, Status.PAUSED):
        return job
    moment = utcnow()
    if job.status is Status.RUNNING:
        return transition(session, job, Status.PAUSING, USER, pausing_at=moment)
    return transition(session, job, Status.PAUSED, USER, pausing_at=moment, paused_at=moment)


def resume(session: Session, job_id: str, owner: str | None = None) -> Job | None:
    """Queue a paused job again. It counts as rung for, as a new one does. Resuming twice is harmless."""
    job = lock_job(session, job_id, owner)
    if job is None or job.status in (Status.QUEUED, Status.RUNNING):
        return job
    if job.status is not Status.PAUSED:
        raise IllegalTransition(job.status, Status.QUEUED)
    moment = utcnow()
    return transition(
        session, job, Status.QUEUED, USER, queued_at=moment, run_after=moment, rung_at=moment, worker=None
    )


def amend(
    session: Session, job_id: str, changes: Mapping[str, Any], owner: str | None = None, version: int | None = None
) -> Job | None:
    """Change `name`, `labels` or `priority` of a job.

    Raises StaleVersion unless the job is in this `version`, if one is given; NotQueued for a priority that comes too
    late.
    """
    job = lock_job(session, job_id, owner)
    if job is None:
        return None
    if version is not None and job.version != version:
        raise StaleVersion(f"{job_id} is in version {job.version} by now, not {version}")
    if "priority" in changes and changes["priority"] != job.priority and job.status is not Status.QUEUED:
        raise NotQueued(f"{job_id} is {job.status}; only a queued job has a priority to change")
    return session.scalar(
        update(Job)
        .where(Job.id == job_id)
        .values(version=Job.version + 1, **changes)
        .returning(Job)
        .execution_options(populate_existing=True, synchronize_session=False)
    )


def delete(session: Session, job_id: str, owner: str | None = None) -> Job | None:
    """Mark a job that is over as deleted: no one finds it any more. Retention removes what it left.

    Raises NotOver.
    """
    job = lock_job(session, job_id, owner)
    if job is None:
        return None
    if job.status not in TERMINAL:
        raise NotOver(f"{job_id} is {job.status}; cancel it before you delete it")
    job.deleted_at = utcnow()
    job.version += 1
    session.flush()
    return job
