"""How much an owner may use. Checked in the transaction that would use it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from jobs import usage
from jobs.database import insert_into
from jobs.lifecycle import HELD, Status
from jobs.repository import utcnow
from jobs.settings import Settings
from jobs.tables import Job, Owner, UploadedDataset

DAY = timedelta(days=1)
WAITING = (Status.QUEUED, Status.PAUSED)


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


@dataclass(frozen=True, slots=True)
class Used:
    """How much of each an owner has."""

    queued: int
    running: int
    run_seconds: float
    storage_bytes: int


def ensure_owner(session: Session, name: str) -> None:
    """Make the owner known, if it is their first time."""
    row = insert_into(session, Owner).values(name=name, created_at=utcnow())
    session.execute(row.on_conflict_do_nothing())


def lock_owner(session: Session, name: str) -> Owner:
    """The owner, for this transaction alone: of two requests at the same time the second sees what the first used."""
    locked = select(Owner).where(Owner.name == name).with_for_update().execution_options(populate_existing=True)
    if owner := session.scalar(locked):
        return owner
    ensure_owner(session, name)
    return session.scalars(locked).one()


def set_limits(session: Session, name: str, own: Mapping[str, int | None]) -> Owner:
    """Give an owner limits of their own; None takes the service's."""
    owner = lock_owner(session, name)
    for field, limit in own.items():
        setattr(owner, field, limit)
    session.flush()
    return owner


def limits_of(session: Session, name: str, settings: Settings) -> Limits:
    """The owner's own limits, and the service's where they have none of their own."""
    owner = session.get(Owner, name)
    names = Limits.__dataclass_fields__
    own = {field: getattr(owner, field) for field in names} if owner else {}
    return Limits(**{field: getattr(settings, field) if own.get(field) is None else own[field] for field in names})


def used_by(session: Session, owner: str) -> Used:
    """What the owner uses at this moment."""
    return Used(
        queued=_jobs(session, owner, WAITING),
        running=_jobs(session, owner, HELD),
        run_seconds=run_seconds(session, owner),
        storage_bytes=stored_bytes(session, owner),
    )


def run_seconds(session: Session, owner: str) -> float:
    """Seconds that the owner's jobs ran in the last 24 hours."""
    return sum(span.seconds for span in usage.spans(session, owner, utcnow() - DAY))


def stored_bytes(session: Session, owner: str) -> int:
    """Bytes of the owner's artifacts and datasets. What is deleted counts no more, though it is removed later."""
    artifacts = select(func.sum(Job.artifact_bytes)).where(
        Job.owner == owner, Job.purged_at.is_(None), Job.deleted_at.is_(None)
    )
    datasets = select(func.sum(UploadedDataset.bytes)).where(
        UploadedDataset.owner == owner, UploadedDataset.status != "rejected"
    )
    return int(session.scalar(artifacts) or 0) + int(session.scalar(datasets) or 0)


def admit_job(session: Session, owner: str, settings: Settings) -> None:
    """Raise QuotaExceeded if the owner may have no further job."""
    lock_owner(session, owner)
    limits = limits_of(session, owner, settings)
    if limits.max_queued is not None and (waiting := _jobs(session, owner, WAITING)) >= limits.max_queued:
        raise QuotaExceeded(f"{waiting} of your jobs wait already, and {limits.max_queued} may")
    if limits.run_seconds_per_day is not None and (ran := run_seconds(session, owner)) >= limits.run_seconds_per_day:
        raise QuotaExceeded(
            f"your jobs ran {ran:.0f} s in the last 24 hours, and {limits.run_seconds_per_day} s is what they may"
        )
    _require_storage(session, owner, 1, limits)


def admit_bytes(session: Session, owner: str, extra: int, settings: Settings) -> None:
    """Raise QuotaExceeded if the owner may not keep so many bytes more."""
    lock_owner(session, owner)
    _require_storage(session, owner, extra, limits_of(session, owner, settings))


def _require_storage(session: Session, owner: str, extra: int, limits: Limits) -> None:
    if limits.storage_bytes is not None and (kept := stored_bytes(session, owner)) + extra > limits.storage_bytes:
        raise QuotaExceeded(
            f"your artifacts and datasets take {kept} of the {limits.storage_bytes} bytes that they may; delete some"
        )


def _jobs(session: Session, owner: str, statuses: frozenset[Status] | tuple[Status, ...]) -> int:
    return session.scalar(select(func.count()).where(Job.owner == owner, Job.status.in_(statuses))) or 0
