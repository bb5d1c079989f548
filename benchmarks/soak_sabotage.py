"""What the soak must notice: things done to one of its jobs behind the service's back."""

from collections.abc import Callable

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from jobs.database import make_engine, make_sessions
from jobs.lifecycle import Status
from jobs.tables import Job, JobEvent
from tests.fixtures.cluster import Cluster


def _lose(cluster: Cluster, session: Session, job: Job) -> None:
    session.execute(delete(Job).where(Job.id == job.id))


def _double(cluster: Cluster, session: Session, job: Job) -> None:
    told = {"from": Status.RUNNING, "to": Status.SUCCEEDED, "reason": None}
    job.event_seq += 1
    session.add(
        JobEvent(
            job_id=job.id, seq=job.event_seq, type="state", attempt=job.attempt, created_at=job.created_at, data=told
        )
    )


def _corrupt(cluster: Cluster, session: Session, job: Job) -> None:
    (manifest,) = cluster.published(job.id)
    pixels = manifest.with_name("synthetic.safetensors")
    content = bytearray(pixels.read_bytes())
    content[-1] ^= 1
    pixels.write_bytes(content)


def _to_one(change: Callable[[Cluster, Session, Job], None]) -> Callable[[Cluster], None]:
    def do(cluster: Cluster) -> None:
        engine = make_engine(cluster.database_url)
        with make_sessions(engine).begin() as session:
            job = session.scalar(select(Job).where(Job.status == Status.SUCCEEDED).limit(1))
            if job is None:
                raise SystemExit("no job has succeeded that could be sabotaged; take more rounds, or another seed")
            change(cluster, session, job)
        engine.dispose()

    return do


SABOTAGE = {"lose": _to_one(_lose), "double": _to_one(_double), "corrupt": _to_one(_corrupt)}
