"""Which jobs the bell has been rung for."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from jobs.lifecycle import Status
from jobs.queue import QUEUE
from jobs.repository.transition import utcnow
from jobs.tables import Job, PausedQueue

RING_BATCH = 100


def due_for_ringing(session: Session, again_after_s: float, queue: str = QUEUE) -> list[str]:
    """Jobs of a queue that no worker has been told of, the oldest first, then those of which none has for so long.

    At most RING_BATCH. They count as rung for from now on; say `not_rung` of those for which that failed.
    """
    now = utcnow()
    waiting = (
        select(Job.id)
        .where(Job.status == Status.QUEUED, Job.run_after <= now)
        .where(Job.queue == queue, Job.queue.not_in(select(PausedQueue.name)))
        .order_by(Job.rung_at, Job.queued_at)
        .with_for_update(skip_locked=True)
    )
    unheard, heard_long_ago = Job.rung_at.is_(None), Job.rung_at < now - timedelta(seconds=again_after_s)
    ids = list(session.scalars(waiting.where(unheard).limit(RING_BATCH)))  # one after the other, along the index
    ids += session.scalars(waiting.where(heard_long_ago).limit(RING_BATCH - len(ids)))
    if ids:
        session.execute(_where_queued(ids).values(rung_at=now))
    return ids


def queues_that_wait(session: Session) -> set[str]:
    """Those with jobs that no worker has."""
    return set(session.scalars(select(Job.queue).where(Job.status == Status.QUEUED).distinct()))


def not_rung(session: Session, job_ids: Sequence[str]) -> None:
    """The broker could not be reached for these: they are due at the next occasion."""
    session.execute(_where_queued(job_ids).values(rung_at=None))


def nothing_rung(session: Session) -> None:
    """The broker is a new, empty one, or something that held jobs back is gone: all are due at the next occasion."""
    waiting = update(Job).where(Job.status == Status.QUEUED).values(rung_at=None)
    session.execute(waiting.execution_options(synchronize_session=False))


def _where_queued(job_ids: Sequence[str]) -> Any:
    statement = update(Job).where(Job.id.in_(job_ids), Job.status == Status.QUEUED)
    return statement.execution_options(synchronize_session=False)
