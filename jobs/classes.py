"""Jobs that want a class of GPU: which workers have it, and what such a job is told while none has.

A class is a queue of its own, `gpu.<class>`. A worker takes from its own class' queue and from the common one, so that
a job without a class goes anywhere, and one with a class nowhere else.
"""

from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from jobs.lifecycle import Status
from jobs.queue import CLASS_PREFIX, QUEUE
from jobs.repository.ringing import RING_BATCH
from jobs.repository.transition import utcnow
from jobs.tables import Job, JobEvent, WorkerRow

AWAY = timedelta(minutes=1)
"""A worker that has not been heard of for this long does not count."""
NO_WORKER = "no_worker"
"""`status_reason` of a queued job that no worker here could take."""


def served_queues(session: Session) -> set[str]:
    """The queues that a worker takes from; the common one counts, whoever is here."""
    here = select(WorkerRow.queue).where(WorkerRow.seen_at > utcnow() - AWAY, ~WorkerRow.draining)
    return {QUEUE, *session.scalars(here)}


def tell_submitted(session: Session, job: Job) -> None:
    """Say of a new job whether there is a worker of its class."""
    _tell(session, job, served_queues(session))


def tell_waiting(session: Session) -> set[str]:
    """Say it of queued jobs where it has changed, a batch at a time. Returns the queues that are served."""
    served = served_queues(session)
    queued = select(Job).where(Job.status == Status.QUEUED).limit(RING_BATCH).with_for_update(skip_locked=True)
    queued = queued.execution_options(populate_existing=True)
    told = Job.status_reason.is_not_distinct_from(NO_WORKER)
    for changed in (queued.where(Job.queue.not_in(served), ~told), queued.where(Job.queue.in_(served), told)):
        for waiting in session.scalars(changed).all():
            _tell(session, waiting, served)
    return served


def _tell(session: Session, job: Job, served: set[str]) -> None:
    job.version += 1
    if job.queue in served:
        job.status_reason = None
    else:
        job.status_reason = NO_WORKER
        job.event_seq += 1
        data = {"code": NO_WORKER.upper(), "message": _message(job.queue, served)}
        seq, now = job.event_seq, utcnow()
        session.add(JobEvent(job_id=job.id, seq=seq, type="warning", attempt=job.attempt, created_at=now, data=data))
    session.flush()


def _message(queue: str, served: set[str]) -> str:
    wanted = queue.removeprefix(CLASS_PREFIX)
    there = ", ".join(sorted(name.removeprefix(CLASS_PREFIX) for name in served - {QUEUE}))
    others = f"; there are workers of {there}" if there else "; no worker here names a class"
    return f"no worker of the GPU class {wanted} is here, and the job waits for one{others}"
