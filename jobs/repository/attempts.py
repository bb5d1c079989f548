"""What workers do with a job.

A worker holds a job by its `attempt`: claiming bumps it, and everything the attempt writes later is conditional on
it. An attempt that was given up for lost therefore finds no row to write to, and is told so by a None or False.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select, text, update
from sqlalchemy.orm import Session

from jobs.lifecycle import HELD, MAX_LOSSES, PRIORITIES, ErrorClass, Status, check
from jobs.queue import QUEUE
from jobs.repository.transition import holding, let_go, lock_held, move, utcnow
from jobs.tables import Job, JobEvent, Owner, PausedQueue, WorkerRow

CLAIM_LOCK = 0x636C61696D  # any number that nothing else on the server locks


def claim_next(
    session: Session, worker: str, lease_s: float, queues: Sequence[str] = (QUEUE,), max_running: int | None = None
) -> Job | None:
    """Take the best of the jobs that wait in `queues`: the highest priority, then the one that has waited longest.

    Passed over are owners with as many running jobs as they may have (`max_running` where they have no limit of their
    own). None if there is nothing to take, if the queues are paused, or if the worker is being drained.
    """
    if session.get_bind().dialect.name == "postgresql":  # SQLite lets one transaction write at a time anyway
        session.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": CLAIM_LOCK})
    drained = select(WorkerRow.id).where(WorkerRow.id == worker, WorkerRow.draining)
    paused = set(session.scalars(select(PausedQueue.name)))
    if paused.issuperset(queues) or session.scalar(drained):
        return None
    busy = _busy_owners(session, max_running)
    for priority in PRIORITIES.values():  # one level at a time, each along the index
        best = select(Job.id).where(
            Job.status == Status.QUEUED,
            Job.priority == priority,
            Job.queue.in_(set(queues) - paused),
            Job.run_after <= utcnow(),
            Job.owner.not_in(busy),
        )
        job_id = session.scalar(best.order_by(Job.queued_at).limit(1))
        if job_id and (job := claim(session, job_id, worker, lease_s)):
            return job
    return None


def _busy_owners(session: Session, max_running: int | None) -> list[str]:
    running = select(Job.owner, func.count().label("jobs")).where(Job.status.in_(HELD)).group_by(Job.owner).subquery()
    limit = func.coalesce(Owner.max_running, max_running)
    busy = select(running.c.owner).outerjoin(Owner, Owner.name == running.c.owner).where(running.c.jobs >= limit)
    return list(session.scalars(busy))


def claim(session: Session, job_id: str, worker: str, lease_s: float) -> Job | None:
    """Take this queued job for `worker`. None if there is nothing to take: another has it, or it was cancelled.

    The returned job's `attempt` is the token for everything that follows.
    """
    check(Status.QUEUED, Status.RUNNING)
    now = utcnow()
    return move(
        session,
        (Job.id == job_id, Job.status == Status.QUEUED, Job.run_after <= now),
        Status.QUEUED,
        Status.RUNNING,
        now,
        attempt=Job.attempt + 1,
        worker=worker,
        lease_until=now + timedelta(seconds=lease_s),
        claimed_at=now,
        started_at=func.coalesce(Job.started_at, now),
        status_reason=None,
        phase="loading",
        progress=None,
    )


def renew(session: Session, job_id: str, attempt: int, lease_s: float) -> Status | None:
    """Hold the job for another `lease_s` seconds, and learn what is wanted of it. None: fenced out, stop at once."""
    return session.scalar(
        update(Job)
        .where(*holding(job_id, attempt))
        .values(lease_until=utcnow() + timedelta(seconds=lease_s))
        .returning(Job.status)
        .execution_options(synchronize_session=False)
    )


def held_status(session: Session, job_id: str, attempt: int) -> Status | None:
    """What is wanted of the job, without renewing: running, cancelling or pausing. None: fenced out."""
    return session.scalar(select(Job.status).where(*holding(job_id, attempt)))


def append_events(session: Session, job_id: str, attempt: int, events: Sequence[Mapping[str, Any]]) -> bool:
    """Add what the runner reported (`{"type", "created_at", "data"}` each), and bring the job's phase, progress and
    checkpoint up to date with it. False: fenced out.
    """
    seen = _project(events)
    if seen:
        seen["version"] = Job.version + 1
    last = session.scalar(
        update(Job)
        .where(*holding(job_id, attempt))
        .values(event_seq=Job.event_seq + len(events), **seen)
        .returning(Job.event_seq)
        .execution_options(synchronize_session=False)
    )
    if last is None:
        return False
    first = last - len(events) + 1
    session.add_all(
        JobEvent(
            job_id=job_id,
            seq=seq,
            type=event["type"],
            attempt=attempt,
            created_at=datetime.fromisoformat(event["created_at"]),
            data=event["data"],
        )
        for seq, event in enumerate(events, start=first)
    )
    session.flush()
    return True


def settle(
    session: Session,
    job_id: str,
    attempt: int,
    outcome: Status,
    *,
    reason: str | None = None,
    error: Mapping[str, Any] | None = None,
    result_summary: Mapping[str, Any] | None = None,
    partial: bool = False,
    artifact_bytes: int | None = None,
    retention_days: float | None = None,
) -> Status | None:
    """End the attempt with what came of it, and return what the job is now. None: fenced out.

    A job whose cancelling was asked for first is cancelled, whatever the outcome: publish only if this returns
    `succeeded`, or something `partial`, and in the same transaction. `error` is `{"class", "code", "message"}`.
    Files are kept for the owner's days, or `retention_days`.
    """
    job = lock_held(session, job_id, attempt)
    if job is None:
        return None
    if job.status is Status.CANCELLING:
        outcome, reason, error = Status.CANCELLED, "user", None
        result_summary = result_summary if partial else None
    values: dict[str, Any] = {"error": dict(error) if error else None, "partial": partial}
    values["artifact_bytes"] = artifact_bytes
    if result_summary:
        accuracy = result_summary.get("accuracy") or {}
        values |= {"result_summary": dict(result_summary), "accuracy": accuracy.get("mean")}
        values["protocol_hash"] = result_summary.get("protocol_hash")
        values["expires_at"] = _expiry(session, job.owner, retention_days)
    return let_go(session, job, outcome, reason or (error["class"] if error else None), **values)


def _expiry(session: Session, owner: str, retention_days: float | None) -> datetime | None:
    own = session.scalar(select(Owner.retention_days).where(Owner.name == owner))
    days = retention_days if own is None else own
    return None if days is None else utcnow() + timedelta(days=days)


def requeue(
    session: Session, job_id: str, attempt: int, cause: ErrorClass, last_words: Mapping[str, Any] | None = None
) -> Status | None:
    """Give the job back after `worker_lost` or `host_shutdown`, and return what it is now. None: fenced out.

    A lost worker is charged to the job unless it left a newer checkpoint than the one before; a job that loses
    MAX_LOSSES workers in this way has failed, with `last_words` for an error if there are any. A job that was being
    cancelled or paused is now cancelled or paused.
    """
    job = lock_held(session, job_id, attempt)
    if job is None:
        return None
    if job.status is Status.CANCELLING:
        return let_go(session, job, Status.CANCELLED, "user")
    if job.status is Status.PAUSING:
        return let_go(session, job, Status.PAUSED, "user")
    losses = job.losses + 1 if cause is ErrorClass.WORKER_LOST else job.losses
    if cause is ErrorClass.WORKER_LOST and _has_progressed(job):
        losses = 0
    if losses >= MAX_LOSSES:
        message = f"{losses} workers in a row were lost while running this job; the last was {job.worker}"
        error = dict(last_words or {"class": ErrorClass.POISON, "code": "POISON", "message": message})
        return let_go(session, job, Status.FAILED, error["class"], losses=losses, error=error)
    now = utcnow()
    waiting = {"queued_at": now, "run_after": now, "rung_at": None, "losses": losses, "loss_step": job.checkpoint_step}
    return let_go(session, job, Status.QUEUED, cause, worker=None, **waiting)


def expire_leases(session: Session) -> dict[str, Status]:
    """Treat every job whose lease has run out as lost with its worker; what became of each, by id."""
    expired = (
        select(Job)
        .where(Job.status.in_(HELD), Job.lease_until < utcnow())
        .with_for_update(skip_locked=True)
        .execution_options(populate_existing=True)
    )
    outcomes = {
        job.id: requeue(session, job.id, job.attempt, ErrorClass.WORKER_LOST) for job in session.scalars(expired)
    }
    return {job_id: status for job_id, status in outcomes.items() if status}


def _has_progressed(job: Job) -> bool:
    """Whether the job has been checkpointed further than where a worker was last lost."""
    return job.checkpoint_step is not None and (job.loss_step is None or job.checkpoint_step > job.loss_step)


def _project(events: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the events, the last of each kind, say about the job itself."""
    seen: dict[str, Any] = {}
    for event in events:
        match event["type"], event["data"]:
            case "phase", {"phase": phase}:
                seen |= {"phase": phase, "progress": None}
            case "metric", {"step": step, "total": total, **rest}:
                ratio = step / total if total else None
                seen["progress"] = {"step": step, "total": total, "ratio": ratio, "eta_s": rest.get("eta_s")}
            case "checkpoint", {"step": step}:
                seen["checkpoint_step"] = step
    return seen
