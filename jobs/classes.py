"""Jobs that want a class of GPU or several devices: which workers have them, and what is said while none has.

A class is a queue of its own, `gpu.<class>`. A worker takes from its own class' queue and from the common one, so that
a job without a class goes anywhere, and one with a class nowhere else. Likewise jobs for four devices wait in
`default:x4` or `gpu.<class>:x4`, from which workers with four devices or more take.
"""

from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from jobs.lifecycle import Status
from jobs.queue import QUEUE, queues_of, wanted_of
from jobs.repository.ringing import RING_BATCH
from jobs.repository.transition import utcnow
from jobs.tables import Job, JobEvent, WorkerRow

AWAY = timedelta(minutes=1)
"""A worker that has not been heard of for this long does not count."""
NO_WORKER = "no_worker"
"""`status_reason` of a queued job that no worker here could take."""


def served_queues(session: Session) -> set[str]:
    """The queues that a worker takes from; the common one counts, whoever is here."""
    here = select(WorkerRow).where(WorkerRow.seen_at > utcnow() - AWAY, ~WorkerRow.draining)
    return {QUEUE}.union(*map(taken_by, session.scalars(here)))


def taken_by(worker: WorkerRow) -> tuple[str, ...]:
    """The queues that a worker takes from; one of an earlier version does not say how many devices it has."""
    return queues_of(worker.queue, worker.facts.get("devices", 1))


def tell_submitted(session: Session, job: Job) -> None:
    """Say of a new job whether there is a worker for it."""
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
    wanted, gpus = wanted_of(queue)
    there = {name for name, _ in map(wanted_of, served) if name}
    if wanted is None or wanted in there:
        others = "; GET /v1/workers says how many each has"
    else:
        others = f"; there are workers of {', '.join(sorted(there))}" if there else "; no worker here names a class"
    of_class = f" of the GPU class {wanted}" if wanted else ""
    with_devices = f" with {gpus} devices" if gpus > 1 else ""
    return f"no worker{of_class}{with_devices} is here, and the job waits for one{others}"
