"""The tables: a row per job, and what happened to it as numbered events."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, DateTime, Dialect, Enum, ForeignKey, Index, MetaData, String, TypeDecorator
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from jobs.lifecycle import MAX_LOSSES, Status


class Moment(TypeDecorator[datetime]):
    """An aware datetime, always in UTC. SQLite keeps no time zone, so it is put back on the way out."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuses naive datetimes, which mean something else on every host."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a datetime without time zone")
        return value.astimezone(UTC)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Aware again."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """Names constraints, so that migrations can name them too."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012
        datetime: Moment(),
        dict[str, Any]: JSON(none_as_null=True),
        Status: Enum(
            Status, native_enum=False, length=16, values_callable=lambda statuses: [s.value for s in statuses]
        ),
    }


class Job(Base):
    """A job and where it stands. Written only through `jobs.repository`."""

    __tablename__ = "jobs"
    __table_args__ = (
        Index("ix_jobs_created_at_id", "created_at", "id"),
        Index("ix_jobs_status_run_after", "status", "run_after"),
        Index("ix_jobs_status_lease_until", "status", "lease_until"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    name: Mapped[str | None] = mapped_column(String(200))
    dataset: Mapped[str] = mapped_column(String(255))
    method: Mapped[str] = mapped_column(String(64))
    spec: Mapped[dict[str, Any]]
    resolved_spec: Mapped[dict[str, Any]]
    labels: Mapped[dict[str, Any]] = mapped_column("metadata")  # `metadata` is taken in SQLAlchemy's classes

    status: Mapped[Status]
    status_reason: Mapped[str | None] = mapped_column(String(64))
    phase: Mapped[str | None] = mapped_column(String(64))
    progress: Mapped[dict[str, Any] | None]
    error: Mapped[dict[str, Any] | None]
    result_summary: Mapped[dict[str, Any] | None]

    attempt: Mapped[int] = mapped_column(default=0)  # the fencing token: bumped by every claim
    worker: Mapped[str | None] = mapped_column(String(255))
    lease_until: Mapped[datetime | None]
    run_after: Mapped[datetime]
    rung_at: Mapped[datetime | None]
    losses: Mapped[int] = mapped_column(default=0)
    checkpoint_step: Mapped[int | None]
    loss_step: Mapped[int | None]  # checkpoint_step when a worker was last lost

    created_at: Mapped[datetime]
    queued_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    cancelling_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    parent_job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"))

    version: Mapped[int] = mapped_column(default=1)  # bumped by every change that a reader of the job can see
    event_seq: Mapped[int] = mapped_column(default=0)  # the number of the last event

    @property
    def retries_left(self) -> int:
        """Workers that may still be lost, without progress, before the job fails."""
        return max(0, MAX_LOSSES - 1 - self.losses)


class JobEvent(Base):
    """Something that happened in a job. `seq` counts from 1 in each job, in the order of commits, without gaps."""

    __tablename__ = "job_events"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    type: Mapped[str] = mapped_column(String(32))
    attempt: Mapped[int]
    created_at: Mapped[datetime]
    data: Mapped[dict[str, Any]]
