"""What operators see and steer: workers that can be drained, queues that can be held."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import case, delete, func, select
from sqlalchemy.orm import Session

from jobs.classes import AWAY, taken_by
from jobs.database import insert_into
from jobs.lifecycle import HELD, Status
from jobs.queue import QUEUE
from jobs.repository import nothing_rung, utcnow
from jobs.tables import Job, PausedQueue, WorkerRow

FORGOTTEN = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Queue:
    """What a queue holds, and who takes from it."""

    name: str
    paused_at: datetime | None
    queued: int
    oldest_queued_at: datetime | None
    running: int
    workers: int
    """That take from it: from the common queue all that there are."""


def report_worker(
    session: Session, worker_id: str, queue: str, facts: Mapping[str, Any], job_id: str | None = None
) -> bool:
    """A worker's sign of life, with what it is and the job that it has. Returns whether it is being drained.

    `queue` is that of its class, where it has one: from the common one every worker takes.
    """
    now = utcnow()
    row = insert_into(session, WorkerRow).values(
        id=worker_id, queue=queue, facts=dict(facts), job_id=job_id, started_at=now, seen_at=now
    )
    news = {name: row.excluded[name] for name in ("queue", "facts", "job_id", "seen_at")}
    started = case((WorkerRow.seen_at < now - AWAY, row.excluded.started_at), else_=WorkerRow.started_at)
    row = row.on_conflict_do_update(index_elements=[WorkerRow.id], set_=news | {"started_at": started})
    return bool(session.scalar(row.returning(WorkerRow.draining)))


def list_workers(session: Session) -> list[WorkerRow]:
    """All that have been heard of in the last days, the latest first."""
    return list(session.scalars(select(WorkerRow).order_by(WorkerRow.seen_at.desc(), WorkerRow.id)))


def forget_workers(session: Session) -> None:
    """Remove those that have not been heard of for long."""
    session.execute(delete(WorkerRow).where(WorkerRow.seen_at < utcnow() - FORGOTTEN))


def drain(session: Session, worker_id: str, *, draining: bool) -> WorkerRow | None:
    """Have a worker take no more jobs after the one that it has; or have it take jobs again. None if it is unknown."""
    worker = session.get(WorkerRow, worker_id, with_for_update=True)
    if worker and worker.draining != draining:
        worker.draining = draining
        session.flush()
        if not draining:
            nothing_rung(session)
    return worker


def pause_queue(session: Session, name: str) -> None:
    """Have nothing taken from the queue. What runs goes on. Pausing twice is harmless."""
    row = insert_into(session, PausedQueue).values(name=name, paused_at=utcnow())
    session.execute(row.on_conflict_do_nothing())


def resume_queue(session: Session, name: str) -> None:
    """Have jobs taken again: those that wait are rung for at the dispatcher's next round."""
    session.execute(delete(PausedQueue).where(PausedQueue.name == name))
    nothing_rung(session)


def list_queues(session: Session, alive_s: float) -> list[Queue]:
    """The queues that there are jobs, workers or a pause for. Workers count if seen in the last `alive_s` seconds."""
    paused = {row.name: row.paused_at for row in session.scalars(select(PausedQueue))}
    waiting: dict[str, tuple[int, datetime]] = {}
    running: Counter[str] = Counter()
    unfinished = select(Job.queue, Job.status, func.count(), func.min(Job.queued_at)).group_by(Job.queue, Job.status)
    for name, status, jobs, since in session.execute(unfinished.where(Job.status.in_({Status.QUEUED, *HELD}))):
        if status in HELD:
            running[name] += jobs
        else:
            waiting[name] = (jobs, since)
    alive = select(WorkerRow).where(WorkerRow.seen_at > utcnow() - timedelta(seconds=alive_s))
    here = session.scalars(alive).all()
    workers = Counter(queue for worker in here for queue in taken_by(worker))
    return [
        Queue(name, paused.get(name), *waiting.get(name, (0, None)), running[name], workers[name])
        for name in sorted({QUEUE, *paused, *waiting, *running, *(worker.queue for worker in here)})
    ]
