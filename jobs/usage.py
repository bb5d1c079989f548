"""How long an owner's jobs have run: from the moments at which workers took them up and let go of them."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import groupby

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from jobs.lifecycle import HELD, Status
from jobs.repository import utcnow
from jobs.tables import Job, JobEvent


@dataclass(frozen=True, slots=True)
class Span:
    """A worker was at work on a job."""

    method: str
    begin: datetime
    end: datetime

    @property
    def seconds(self) -> float:
        """How long."""
        return (self.end - self.begin).total_seconds()


def spans(session: Session, owner: str, since: datetime) -> list[Span]:
    """What of the owner's jobs' running falls behind `since`; those that run do so until now."""
    state = JobEvent.data["to"].as_string()
    moves = (
        select(Job.id, Job.method, JobEvent.created_at, state)
        .join(JobEvent, JobEvent.job_id == Job.id)
        .where(JobEvent.type == "state", Job.owner == owner, Job.claimed_at.is_not(None))
        .where(or_(Job.finished_at.is_(None), Job.finished_at > since))
        .order_by(Job.id, JobEvent.seq)
    )
    found = []
    for (_, method), job in groupby(session.execute(moves), key=lambda move: move[:2]):
        at_work = _at_work((at, status) for *_, at, status in job)
        found += [Span(method, max(begin, since), end) for begin, end in at_work if end > since]
    return found


def _at_work(moves: Iterable[tuple[datetime, str]]) -> Iterator[tuple[datetime, datetime]]:
    """From when to when an attempt held the job."""
    begun: datetime | None = None
    for at, status in moves:
        if status in HELD:
            begun = begun or at
        elif begun:
            yield begun, at
            begun = None
    if begun:
        yield begun, utcnow()


def by_day(found: Iterable[Span]) -> dict[tuple[date, str], float]:
    """Seconds of each day (UTC) and method."""
    seconds: dict[tuple[date, str], float] = defaultdict(float)
    for span in found:
        begin = span.begin
        while begin < span.end:
            midnight = datetime.combine(begin.date() + timedelta(days=1), time(), UTC)
            end = min(span.end, midnight)
            seconds[begin.date(), span.method] += (end - begin).total_seconds()
            begin = end
    return dict(sorted(seconds.items()))


def jobs_by_status(session: Session, owner: str) -> dict[Status, int]:
    """How many of the owner's jobs are in each state."""
    query = select(Job.status, func.count()).where(Job.owner == owner, Job.deleted_at.is_(None)).group_by(Job.status)
    return dict(session.execute(query).all())
