"""Looking at jobs. `owner` None means everyone's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import bindparam, func, or_, select
from sqlalchemy.orm import Session

from jobs.lifecycle import Status
from jobs.paging import page, page_by_age
from jobs.tables import Job, JobEvent


@dataclass(frozen=True, slots=True)
class Filters:
    """Which jobs are wanted: those that fit all that is given."""

    statuses: Sequence[Status] = ()
    method: str | None = None
    dataset: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


# What is asked hundreds of times a second is put together once: that takes longer than the database's answer.
_BY_ID = select(Job).where(Job.id == bindparam("job_id"))
_STANDING = select(Job.owner, Job.status, Job.version, Job.deleted_at).where(Job.id == bindparam("job_id"))


@dataclass(frozen=True, slots=True)
class Standing:
    """What tells whether a job is still as someone saw it."""

    status: Status
    version: int


def get_job(session: Session, job_id: str, owner: str | None = None) -> Job | None:
    """The job, or None. One that has been deleted is there until it is purged."""
    job = session.scalar(_BY_ID, {"job_id": job_id})
    return job if job and owner in (None, job.owner) else None


def get_standing(session: Session, job_id: str, owner: str | None = None) -> Standing | None:
    """How the job stands: much less than the job, and much faster. None if there is none, or it has been deleted."""
    row = session.execute(_STANDING, {"job_id": job_id}).one_or_none()
    if row is None or row.deleted_at is not None or owner not in (None, row.owner):
        return None
    return Standing(row.status, row.version)


def list_jobs(
    session: Session,
    limit: int,
    filters: Filters | None = None,
    *,
    owner: str | None = None,
    after: tuple[datetime, str] | None = None,
    ascending: bool = False,
) -> tuple[list[Job], bool]:
    """Jobs from the newest on (or the oldest), and whether there are more. `after` is (created_at, id) of the last
    one seen.
    """
    filters = filters or Filters()
    query = select(Job).where(Job.deleted_at.is_(None))
    if owner is not None:
        query = query.where(Job.owner == owner)
    if filters.statuses:
        query = query.where(Job.status.in_(filters.statuses))
    if filters.method:
        query = query.where(Job.method == filters.method)
    if filters.dataset:
        query = query.where(Job.dataset == filters.dataset)
    if filters.created_after:
        query = query.where(Job.created_at > filters.created_after)
    if filters.created_before:
        query = query.where(Job.created_at < filters.created_before)
    for key, value in filters.metadata.items():
        query = query.where(Job.labels[key].as_string() == value)
    return page_by_age(session, query, (Job.created_at, Job.id), limit, after, ascending)


def list_events(
    session: Session, job_id: str, after: int, limit: int, types: Sequence[str] = ()
) -> tuple[list[JobEvent], bool]:
    """Events numbered above `after`, in order, and whether there are more."""
    query = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.seq > after).order_by(JobEvent.seq)
    if types:
        query = query.where(JobEvent.type.in_(types))
    return page(session, query, limit)


def ahead_of(session: Session, priority: int, queued_at: datetime) -> int:
    """How many queued jobs come before one of this priority that was queued at this time."""
    sooner = or_(Job.priority > priority, (Job.priority == priority) & (Job.queued_at < queued_at))
    return session.scalar(select(func.count()).where(Job.status == Status.QUEUED, sooner)) or 0
