"""What operators look at: workers, queues, the audit log."""

from datetime import datetime, timedelta
from typing import Any, Literal

from api.schemas.base import Output, PageQuery, Text
from jobs.operations import Queue
from jobs.repository import utcnow
from jobs.tables import AuditEntry, WorkerRow


class WorkerResource(Output):
    """A worker process."""

    id: str
    object: Literal["worker"]
    queue: str
    alive: bool
    """Whether it has been heard of within the time after which its job would be given to another."""
    draining: bool
    """Takes no job after the one that it has."""
    job_id: str | None
    facts: dict[str, Any]
    """What it says of itself: device, memory, versions."""
    started_at: datetime
    seen_at: datetime

    @classmethod
    def of(cls, worker: WorkerRow, alive_s: float) -> "WorkerResource":
        """The public side of a row."""
        return cls(
            id=worker.id,
            object="worker",
            queue=worker.queue,
            alive=worker.seen_at > utcnow() - timedelta(seconds=alive_s),
            draining=worker.draining,
            job_id=worker.job_id,
            facts=worker.facts,
            started_at=worker.started_at,
            seen_at=worker.seen_at,
        )


class WorkerList(Output):
    """Workers that have been heard of in the last days, the latest first."""

    data: list[WorkerResource]


class QueueResource(Output):
    """A queue of jobs."""

    name: str
    object: Literal["queue"]
    paused_at: datetime | None
    """Since then nothing is taken from it."""
    queued: int
    oldest_queued_at: datetime | None
    running: int
    workers: int
    """That are alive and take from it."""

    @classmethod
    def of(cls, queue: Queue) -> "QueueResource":
        """The public side of it."""
        return cls(
            name=queue.name,
            object="queue",
            paused_at=queue.paused_at,
            queued=queue.queued,
            oldest_queued_at=queue.oldest_queued_at,
            running=queue.running,
            workers=queue.workers,
        )


class QueueList(Output):
    """All queues, by name."""

    data: list[QueueResource]


class AuditQuery(PageQuery):
    """Which entries to list."""

    owner: Text | None = None
    """Who did it."""
    action: Text | None = None
    """As in `job.submitted`."""


class AuditResource(Output):
    """Something that someone did."""

    id: int
    object: Literal["audit.entry"]
    at: datetime
    owner: str
    key_id: str | None
    """None where no key is asked for."""
    action: str
    resource: str | None
    """The id of what it was done to."""
    request_id: str | None
    """As in the log, and in the answer's X-Request-ID."""

    @classmethod
    def of(cls, entry: AuditEntry) -> "AuditResource":
        """The public side of a row."""
        return cls(
            id=entry.id,
            object="audit.entry",
            at=entry.at,
            owner=entry.owner,
            key_id=entry.key_id,
            action=entry.action,
            resource=entry.resource,
            request_id=entry.request_id,
        )


class AuditPage(Output):
    """Entries from the newest on."""

    data: list[AuditResource]
    has_more: bool
    next_cursor: str | None
