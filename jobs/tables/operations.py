"""What operators see and steer: workers and queues."""

from datetime import datetime
from typing import Any

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from jobs.tables.base import Base


class WorkerRow(Base):
    """A worker process that has been heard of. It writes its own row; `draining` is the operator's."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(String(255), primary_key=True)
    queue: Mapped[str] = mapped_column(String(64))
    facts: Mapped[dict[str, Any]]  # device, memory, version
    job_id: Mapped[str | None] = mapped_column(String(40))
    draining: Mapped[bool] = mapped_column(default=False)
    started_at: Mapped[datetime]
    seen_at: Mapped[datetime]


class PausedQueue(Base):
    """A queue from which nothing is taken until its row is gone."""

    __tablename__ = "paused_queues"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    paused_at: Mapped[datetime]
