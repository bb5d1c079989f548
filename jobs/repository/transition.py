"""The one statement by which a job changes its status, and the fence that guards what an attempt writes."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.orm import Session

from jobs import outbox
from jobs.lifecycle import HELD, TERMINAL, Status, check
from jobs.tables import Job, JobEvent


def utcnow() -> datetime:
    """The time of this host. Hosts that share a database must agree to within a fraction of the lease."""
    return datetime.now(UTC)


def holding(job_id: str, attempt: int) -> tuple[ColumnElement[bool], ...]:
    """The fence: the job is still this attempt's."""
    return Job.id == job_id, Job.attempt == attempt, Job.status.in_(HELD)


def lock_held(session: Session, job_id: str, attempt: int) -> Job | None:
    """The job, kept from others until the transaction ends, if the attempt still holds it."""
    query = select(Job).where(*holding(job_id, attempt)).with_for_update()
    return session.scalar(query.execution_options(populate_existing=True))


def let_go(session: Session, job: Job, target: Status, reason: str | None, **values: Any) -> Status | None:
    """End the attempt that holds the job, and count the time it took."""
    now = utcnow()
    took = (now - job.claimed_at).total_seconds() if job.claimed_at else 0.0
    if target in TERMINAL:
        values["finished_at"] = now
    elif target is Status.PAUSED:
        values["paused_at"] = now
    moved = transition(session, job, target, reason, lease_until=None, run_seconds=Job.run_seconds + took, **values)
    return moved.status if moved else None


def transition(session: Session, job: Job, target: Status, reason: str | None, **values: Any) -> Job | None:
    """Move a job that was read in this transaction. None if it is no longer what was read.

    Raises IllegalTransition where the life cycle has no such move.
    """
    check(job.status, target)
    unchanged = (Job.id == job.id, Job.status == job.status, Job.attempt == job.attempt)
    return move(session, unchanged, job.status, target, utcnow(), status_reason=reason, **values)


def move(
    session: Session,
    where: tuple[ColumnElement[bool], ...],
    source: Status,
    target: Status,
    now: datetime,
    **values: Any,
) -> Job | None:
    """Change the status of the row that fits, and write the event and the webhooks' messages that go with it.

    None if no row fits.
    """
    moved = session.scalar(
        update(Job)
        .where(*where)
        .values(status=target, version=Job.version + 1, event_seq=Job.event_seq + 1, **values)
        .returning(Job)
        .execution_options(populate_existing=True, synchronize_session=False)
    )
    if moved is not None:
        session.add(state_event(moved, source, now))
        outbox.enqueue_state(session, moved, now)
        session.flush()
    return moved


def state_event(job: Job, source: Status | None, now: datetime) -> JobEvent:
    """The event that tells of the status which the job now has."""
    data: dict[str, Any] = {"from": source, "to": job.status, "reason": job.status_reason}
    if job.status is Status.RUNNING:
        data["worker"] = job.worker
    return JobEvent(job_id=job.id, seq=job.event_seq, type="state", attempt=job.attempt, created_at=now, data=data)
