"""What is new in jobs that someone follows."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from jobs.lifecycle import Status
from jobs.repository import list_events
from jobs.tables import Job, JobEvent


@dataclass(frozen=True, slots=True)
class News:
    """What has become of a job. `status` is None once the job itself is gone.

    `events` are those behind `since`, the last one known, up to `reaches`: not all of them, if there are many.
    """

    job_id: str
    seq: int
    status: Status | None
    since: int
    reaches: int
    events: list[JobEvent]


def read_news(session: Session, known: Mapping[str, tuple[int, Status | None]], limit: int) -> Iterator[News]:
    """News of the jobs in which there are any, given the last event and the status that are `known` of each.

    One query tells which those are, and one more for each of them brings `limit` events at most.
    """
    rows = session.execute(select(Job.id, Job.event_seq, Job.status).where(Job.id.in_(known)))
    found = {job_id: (seq, status) for job_id, seq, status in rows}
    for job_id, (last, status) in known.items():
        seq, now = found.get(job_id, (last, None))
        if (seq, now) != (last, status):
            events, more = list_events(session, job_id, last, limit)
            newest = max(seq, events[-1].seq) if events else seq
            yield News(job_id, newest, now, last, events[-1].seq if more else newest, events)
