"""How much an owner may use. Checked in the transaction that would use it."""

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from jobs.lifecycle import Status
from jobs.repository import utcnow
from jobs.settings import Settings
from jobs.tables import Job, Owner

DAY = timedelta(days=1)


class QuotaExceeded(Exception):
    """The owner has as much as they may have."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of each an owner may have; None means no limit."""

    max_queued: int | None
    max_running: int | None
    run_seconds_per_day: int | None
    storage_bytes: int | None
    retention_days: float | None


def limits_of(session: Session, name: str, settings: Settings) -> Limits:
    """The owner's own limits, and the service's where they have none of their own."""
    owner = session.get(Owner, name)
    names = Limits.__dataclass_fields__
    own = {field: getattr(owner, field) for field in names} if owner else {}
    return Limits(**{field: getattr(settings, field) if own.get(field) is None else own[field] for field in names})


def queued_jobs(session: Session, owner: str) -> int:
    """Jobs that wait."""
    waiting = (Status.QUEUED, Status.PAUSED)
    return session.scalar(select(func.count()).where(Job.owner == owner, Job.status.in_(waiting))) or 0


def run_seconds(session: Session, owner: str) -> float:
    """Seconds that jobs ran, of those that were at work or ended in the last 24 hours."""
    recent = Job.claimed_at > utcnow() - DAY
    return session.scalar(select(func.sum(Job.run_seconds)).where(Job.owner == owner, recent)) or 0.0


def admit_job(session: Session, owner: str, settings: Settings) -> None:
    """Raise QuotaExceeded if the owner may have no further job."""
    session.get(Owner, owner, with_for_update=True)  # so that two requests at the same time do not both fit
    limits = limits_of(session, owner, settings)
    if limits.max_queued is not None and (waiting := queued_jobs(session, owner)) >= limits.max_queued:
        raise QuotaExceeded(f"{waiting} of your jobs wait already, and {limits.max_queued} may")
    if limits.run_seconds_per_day is not None and (ran := run_seconds(session, owner)) >= limits.run_seconds_per_day:
        raise QuotaExceeded(
            f"your jobs ran {ran:.0f} s in the last 24 hours, and {limits.run_seconds_per_day} s is what they may"
        )
