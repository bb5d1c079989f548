"""All SQL on jobs. Every function takes the session first; whoever opened the session commits.

A worker holds a job by its `attempt`: claiming bumps it, and everything the attempt writes later is conditional on
it. An attempt that was given up for lost therefore finds no row to write to, and is told so by a None or False.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import uuid_utils
from sqlalchemy import ColumnElement, func, select, tuple_, update
from sqlalchemy.orm import Session

from dream_core.recipes import Recipe
from jobs.lifecycle import HELD, MAX_LOSSES, ErrorClass, Status, check
from jobs.spec import JobSpec
from jobs.tables import Job, JobEvent

RING_BATCH = 100


def utcnow() -> datetime:
    """The time of this host. Hosts that share a database must agree to within a fraction of the lease."""
    return datetime.now(UTC)


def create_job(
    session: Session,
    spec: JobSpec,
    recipe: Recipe,
    name: str | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Job:
    """A new queued job. It counts as rung for: the caller rings after the commit, or says `not_rung`."""
    now = utcnow()
    job = Job(
        id=f"job_{uuid_utils.uuid7().hex}",
        name=name,
        dataset=spec.dataset,
        method=spec.method,
        spec=spec.model_dump(mode="json"),
        resolved_spec=recipe.model_dump(mode="json"),
        labels=dict(metadata or {}),
        status=Status.QUEUED,
        created_at=now,
        queued_at=now,
        run_after=now,
        rung_at=now,
        attempt=0,
        losses=0,
        version=1,
        event_seq=1,
    )
    session.add(job)
    session.flush()
    session.add(_state_event(job, None, now))
    session.flush()
    return job


def get_job(session: Session, job_id: str) -> Job | None:
    """The job, or None."""
    return session.get(Job, job_id)


def list_jobs(
    session: Session,
    limit: int,
    *,
    after: tuple[datetime, str] | None = None,
    statuses: Sequence[Status] = (),
    method: str | None = None,
    dataset: str | None = None,
) -> tuple[list[Job], bool]:
    """Jobs from the newest on, and whether there are more. `after` is (created_at, id) of the last one seen."""
    query = select(Job).order_by(Job.created_at.desc(), Job.id.desc()).limit(limit + 1)
    if after:
        query = query.where(tuple_(Job.created_at, Job.id) < tuple_(*after, types=(Job.created_at.type, Job.id.type)))
    if statuses:
        query = query.where(Job.status.in_(statuses))
    if method:
        query = query.where(Job.method == method)
    if dataset:
        query = query.where(Job.dataset == dataset)
    found = list(session.scalars(query))
    return found[:limit], len(found) > limit


def list_events(session: Session, job_id: str, after: int, limit: int) -> tuple[list[JobEvent], bool]:
    """Events numbered above `after`, in order, and whether there are more."""
    query = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.seq > after).order_by(JobEvent.seq)
    found = list(session.scalars(query.limit(limit + 1)))
    return found[:limit], len(found) > limit


def request_cancel(session: Session, job_id: str) -> Job | None:
    """Cancel a waiting job at once; ask the worker of a running one to stop. None if there is no such job.

    Raises IllegalTransition if the job has already succeeded or failed. Cancelling twice is harmless.
    """
    job = session.scalar(select(Job).where(Job.id == job_id).with_for_update())
    if job is None or job.status in (Status.CANCELLING, Status.CANCELLED):
        return job
    now = utcnow()
    if job.status in HELD:
        return _transition(session, job, Status.CANCELLING, "user", cancelling_at=now)
    return _transition(session, job, Status.CANCELLED, "user", cancelling_at=now, finished_at=now)


def claim(session: Session, job_id: str, worker: str, lease_s: float) -> Job | None:
    """Take a queued job for `worker`. None if there is nothing to take: another has it, or it was cancelled.

    The returned job's `attempt` is the token for everything that follows.
    """
    check(Status.QUEUED, Status.RUNNING)
    now = utcnow()
    return _update_state(
        session,
        (Job.id == job_id, Job.status == Status.QUEUED, Job.run_after <= now),
        Status.QUEUED,
        Status.RUNNING,
        now,
        attempt=Job.attempt + 1,
        worker=worker,
        lease_until=now + timedelta(seconds=lease_s),
        started_at=func.coalesce(Job.started_at, now),
        status_reason=None,
        phase="loading",
    )


def renew(session: Session, job_id: str, attempt: int, lease_s: float) -> Status | None:
    """Hold the job for another `lease_s` seconds, and learn what is wanted of it. None: fenced out, stop at once."""
    return session.scalar(
        update(Job)
        .where(*_holding(job_id, attempt))
        .values(lease_until=utcnow() + timedelta(seconds=lease_s))
        .returning(Job.status)
        .execution_options(synchronize_session=False)
    )


def held_status(session: Session, job_id: str, attempt: int) -> Status | None:
    """What is wanted of the job, without renewing: running, cancelling or pausing. None: fenced out."""
    return session.scalar(select(Job.status).where(*_holding(job_id, attempt)))


def append_events(session: Session, job_id: str, attempt: int, events: Sequence[Mapping[str, Any]]) -> bool:
    """Add what the runner reported (`{"type", "created_at", "data"}` each), and bring the job's phase, progress and
    checkpoint up to date with it. False: fenced out.
    """
    seen = _project(events)
    if seen:
        seen["version"] = Job.version + 1
    last = session.scalar(
        update(Job)
        .where(*_holding(job_id, attempt))
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
) -> Status | None:
    """End the attempt with what came of it, and return what the job is now. None: fenced out.

    A job whose cancelling was asked for first is cancelled, whatever the outcome: publish only if this returns
    `succeeded`, and in the same transaction. `error` is `{"class", "code", "message"}`.
    """
    job = _lock_held(session, job_id, attempt)
    if job is None:
        return None
    if job.status is Status.CANCELLING:
        outcome, reason, error, result_summary = Status.CANCELLED, "user", None, None
    values: dict[str, Any] = {"error": dict(error) if error else None}
    if outcome is not Status.PAUSED:
        values["finished_at"] = utcnow()
    if result_summary:
        values["result_summary"] = dict(result_summary)
    return _let_go(session, job, outcome, reason or (error["class"] if error else None), **values)


def requeue(session: Session, job_id: str, attempt: int, cause: ErrorClass) -> Status | None:
    """Give the job back after `worker_lost` or `host_shutdown`, and return what it is now. None: fenced out.

    A lost worker is charged to the job unless it left a newer checkpoint than the one before; a job that loses
    MAX_LOSSES workers in this way has failed. A job that was being cancelled or paused is now cancelled or paused.
    """
    job = _lock_held(session, job_id, attempt)
    if job is None:
        return None
    now = utcnow()
    if job.status is Status.CANCELLING:
        return _let_go(session, job, Status.CANCELLED, "user", finished_at=now)
    if job.status is Status.PAUSING:
        return _let_go(session, job, Status.PAUSED, "user")
    losses = job.losses + 1 if cause is ErrorClass.WORKER_LOST else job.losses
    if cause is ErrorClass.WORKER_LOST and _has_progressed(job):
        losses = 0
    if losses >= MAX_LOSSES:
        message = f"{losses} workers in a row were lost while running this job; the last was {job.worker}"
        error = {"class": ErrorClass.POISON, "code": "POISON", "message": message}
        return _let_go(session, job, Status.FAILED, ErrorClass.POISON, losses=losses, error=error, finished_at=now)
    waiting = {"queued_at": now, "run_after": now, "rung_at": None, "losses": losses, "loss_step": job.checkpoint_step}
    return _let_go(session, job, Status.QUEUED, cause, worker=None, **waiting)


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


def due_for_ringing(session: Session, again_after_s: float) -> list[str]:
    """Queued jobs that no worker has been told of, or not for `again_after_s`, oldest first, at most RING_BATCH.

    They count as rung for from now on; say `not_rung` of those for which that failed.
    """
    now = utcnow()
    unheard = Job.rung_at.is_(None) | (Job.rung_at < now - timedelta(seconds=again_after_s))
    due = (
        select(Job.id)
        .where(Job.status == Status.QUEUED, Job.run_after <= now, unheard)
        .order_by(Job.queued_at)
        .limit(RING_BATCH)
        .with_for_update(skip_locked=True)
    )
    ids = list(session.scalars(due))
    if ids:
        session.execute(_where_queued(ids).values(rung_at=now))
    return ids


def not_rung(session: Session, job_ids: Sequence[str]) -> None:
    """The broker could not be reached for these: they are due at the next occasion."""
    session.execute(_where_queued(job_ids).values(rung_at=None))


def nothing_rung(session: Session) -> None:
    """The broker is a new, empty one: every queued job is due at the next occasion."""
    waiting = update(Job).where(Job.status == Status.QUEUED).values(rung_at=None)
    session.execute(waiting.execution_options(synchronize_session=False))


def _where_queued(job_ids: Sequence[str]) -> Any:
    statement = update(Job).where(Job.id.in_(job_ids), Job.status == Status.QUEUED)
    return statement.execution_options(synchronize_session=False)


def _holding(job_id: str, attempt: int) -> tuple[ColumnElement[bool], ...]:
    """The fence: the job is still this attempt's."""
    return Job.id == job_id, Job.attempt == attempt, Job.status.in_(HELD)


def _lock_held(session: Session, job_id: str, attempt: int) -> Job | None:
    query = select(Job).where(*_holding(job_id, attempt)).with_for_update()
    return session.scalar(query.execution_options(populate_existing=True))


def _let_go(session: Session, job: Job, target: Status, reason: str | None, **values: Any) -> Status | None:
    moved = _transition(session, job, target, reason, lease_until=None, **values)
    return moved.status if moved else None


def _transition(session: Session, job: Job, target: Status, reason: str | None, **values: Any) -> Job | None:
    """Move a job that was read in this transaction. None if it is no longer what was read."""
    check(job.status, target)
    unchanged = (Job.id == job.id, Job.status == job.status, Job.attempt == job.attempt)
    return _update_state(session, unchanged, job.status, target, utcnow(), status_reason=reason, **values)


def _update_state(
    session: Session,
    where: tuple[ColumnElement[bool], ...],
    source: Status,
    target: Status,
    now: datetime,
    **values: Any,
) -> Job | None:
    """The one statement by which a job changes its status, and the event that goes with it."""
    moved = session.scalar(
        update(Job)
        .where(*where)
        .values(status=target, version=Job.version + 1, event_seq=Job.event_seq + 1, **values)
        .returning(Job)
        .execution_options(populate_existing=True, synchronize_session=False)
    )
    if moved is not None:
        session.add(_state_event(moved, source, now))
        session.flush()
    return moved


def _state_event(job: Job, source: Status | None, now: datetime) -> JobEvent:
    data = {"from": source, "to": job.status, "reason": job.status_reason}
    if job.status is Status.RUNNING:
        data["worker"] = job.worker
    return JobEvent(job_id=job.id, seq=job.event_seq, type="state", attempt=job.attempt, created_at=now, data=data)


def _has_progressed(job: Job) -> bool:
    """Whether the job has been checkpointed further than where a worker was last lost."""
    return job.checkpoint_step is not None and (job.loss_step is None or job.checkpoint_step > job.loss_step)


def _project(events: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the events, the last of each kind, say about the job itself."""
    seen: dict[str, Any] = {}
    for event in events:
        match event["type"], event["data"]:
            case "phase", {"phase": phase}:
                seen["phase"] = phase
            case "metric", {"step": step, "total": total, **rest}:
                ratio = step / total if total else None
                seen["progress"] = {"step": step, "total": total, "ratio": ratio, "eta_s": rest.get("eta_s")}
            case "checkpoint", {"step": step}:
                seen["checkpoint_step"] = step
    return seen
