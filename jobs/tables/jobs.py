"""A row per job, and what happened to it as numbered events."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from jobs.lifecycle import MAX_LOSSES, Status
from jobs.tables.base import Base

LOCAL = "local"
"""The owner of what is made where no key is asked for."""


def _only_where(condition: str) -> dict[str, Any]:
    """Options of an index that has few of the rows in it."""
    return {"sqlite_where": text(condition), "postgresql_where": text(condition)}


class Job(Base):
    """A job and where it stands. Written only through `jobs.repository`."""

    __tablename__ = "jobs"
    __table_args__ = (
        Index("ix_jobs_created_at_id", "created_at", "id"),
        Index("ix_jobs_owner_created_at_id", "owner", "created_at", "id"),
        Index("ix_jobs_status_priority_queued_at", "status", "priority", "queued_at"),
        Index("ix_jobs_status_created_at_id", "status", "created_at", "id"),
        Index("ix_jobs_status_rung_at_queued_at", "status", "rung_at", "queued_at"),
        Index("ix_jobs_owner_status_created_at_id", "owner", "status", "created_at", "id"),
        Index("ix_jobs_dataset_ipc_protocol_hash_accuracy", "dataset", "ipc", "protocol_hash", "accuracy"),
        Index("ix_jobs_finished_at", "finished_at"),
        Index("ix_jobs_expires_at", "expires_at", **_only_where("purged_at IS NULL")),
        Index("ix_jobs_parent_job_id", "parent_job_id", **_only_where("parent_job_id IS NOT NULL")),
        Index("ix_jobs_deleted_at", "deleted_at", **_only_where("deleted_at IS NOT NULL")),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    owner: Mapped[str] = mapped_column(String(64), default=LOCAL)
    name: Mapped[str | None] = mapped_column(String(200))
    dataset: Mapped[str] = mapped_column(String(255))
    dataset_id: Mapped[str | None] = mapped_column(String(40))  # of an uploaded one
    method: Mapped[str] = mapped_column(String(64))
    ipc: Mapped[int]
    spec: Mapped[dict[str, Any]]
    resolved_spec: Mapped[dict[str, Any]]
    labels: Mapped[dict[str, Any]] = mapped_column("metadata")  # `metadata` is taken in SQLAlchemy's classes

    status: Mapped[Status]
    status_reason: Mapped[str | None] = mapped_column(String(64))
    phase: Mapped[str | None] = mapped_column(String(64))
    progress: Mapped[dict[str, Any] | None]
    error: Mapped[dict[str, Any] | None]
    result_summary: Mapped[dict[str, Any] | None]
    accuracy: Mapped[float | None]  # of the summary, in percent, to be sorted by
    protocol_hash: Mapped[str | None] = mapped_column(String(64))
    partial: Mapped[bool] = mapped_column(default=False)  # what was made before it was stopped has been kept
    artifact_bytes: Mapped[int | None] = mapped_column(BigInteger)  # of all its files together, until they are purged

    queue: Mapped[str] = mapped_column(String(64))
    priority: Mapped[int] = mapped_column(default=0)  # the higher the sooner
    attempt: Mapped[int] = mapped_column(default=0)  # the fencing token: bumped by every claim
    worker: Mapped[str | None] = mapped_column(String(255))
    lease_until: Mapped[datetime | None]
    run_after: Mapped[datetime]
    rung_at: Mapped[datetime | None]
    losses: Mapped[int] = mapped_column(default=0)
    checkpoint_step: Mapped[int | None]
    loss_step: Mapped[int | None]  # checkpoint_step when a worker was last lost
    run_seconds: Mapped[float] = mapped_column(default=0.0)  # of all attempts that have ended

    created_at: Mapped[datetime]
    queued_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    claimed_at: Mapped[datetime | None]  # by the current or last attempt
    pausing_at: Mapped[datetime | None]
    paused_at: Mapped[datetime | None]
    cancelling_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]  # then its files are removed
    purged_at: Mapped[datetime | None]
    deleted_at: Mapped[datetime | None]

    parent_job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"))
    parent_step: Mapped[int | None]  # of the parent's checkpoint that this job goes on from

    version: Mapped[int] = mapped_column(default=1)  # bumped by every change that a reader of the job can see
    event_seq: Mapped[int] = mapped_column(default=0)  # the number of the last event

    @property
    def has_result(self) -> bool:
        """Whether its last attempt has published something. It may have been removed since: `purged_at`."""
        return self.status is Status.SUCCEEDED or self.partial

    @property
    def retries_left(self) -> int:
        """Workers that may still be lost, without progress, before the job fails."""
        return max(0, MAX_LOSSES - 1 - self.losses)


class JobEvent(Base):
    """Something that happened in a job. `seq` counts from 1 in each job, in the order of commits.

    There are no gaps while the job goes on. Once it is over, metrics and previews are thinned out.
    """

    __tablename__ = "job_events"
    __table_args__ = (Index("ix_job_events_job_id_type_seq", "job_id", "type", "seq"),)

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    type: Mapped[str] = mapped_column(String(32))
    attempt: Mapped[int]
    created_at: Mapped[datetime]
    data: Mapped[dict[str, Any]]
