"""Keeps the queue honest: frees jobs whose worker is gone, and rings again for those that still wait.

Any number of processes may do this at the same time: every step is conditional on what the row says.
"""

from dataclasses import dataclass, field

import structlog
from sqlalchemy.orm import Session, sessionmaker

from jobs import classes, metrics, repository
from jobs.lifecycle import TERMINAL, Status
from jobs.queue import QUEUE, Bell

log = structlog.get_logger()

RING_AGAIN_S = 60
BACKLOG_RING_AGAIN_S = 3600
"""While messages wait for a worker, a job's own is most likely among them; another would only lengthen the queue."""


@dataclass(frozen=True, slots=True)
class Tick:
    """What was done: expired jobs and what became of them, and the jobs rung for."""

    expired: dict[str, Status] = field(default_factory=dict)
    rung: list[str] = field(default_factory=list)


def tick(sessions: sessionmaker[Session], bell: Bell, ring_again_s: float = RING_AGAIN_S) -> Tick:
    """One round. Jobs that nobody takes are rung for every `ring_again_s`. Raises only what the database raises."""
    with sessions.begin() as session:
        expired = repository.expire_leases(session)
        over = [repository.get_job(session, job_id) for job_id, status in expired.items() if status in TERMINAL]
        ended = [(job.method, job.status, job.status_reason or "") for job in over if job]
    for job_id, status in expired.items():
        metrics.LEASES_EXPIRED.inc()
        log.warning("job.lease_expired", job_id=job_id, status=status)
    for labels in ended:
        metrics.FINISHED.labels(*labels).inc()

    with sessions.begin() as session:
        due = classes.tell_waiting(session) & repository.queues_that_wait(session)
    rung = [job_id for queue in sorted(due) for job_id in _ring_again(sessions, bell, queue, ring_again_s)]
    return Tick(expired, rung)


def _ring_again(sessions: sessionmaker[Session], bell: Bell, queue: str, ring_again_s: float) -> list[str]:
    """For the jobs of a queue that somebody hears. Messages to nobody would only lie with the broker."""
    again_after_s = BACKLOG_RING_AGAIN_S if bell.waiting(queue) else ring_again_s
    with sessions.begin() as session:
        due = repository.due_for_ringing(session, again_after_s, queue)
    return ring_all(sessions, bell, due, queue)


def ring_all(sessions: sessionmaker[Session], bell: Bell, job_ids: list[str], queue: str = QUEUE) -> list[str]:
    """Ring for each job of a queue, up to the first failure; the rest is noted as not rung for."""
    rung: list[str] = []
    for job_id in job_ids:
        if not bell.ring(job_id, queue):
            break
        rung.append(job_id)
    if missed := job_ids[len(rung) :]:
        with sessions.begin() as session:
            repository.not_rung(session, missed)
    return rung
