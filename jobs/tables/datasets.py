"""Datasets that users have uploaded."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from jobs.tables.base import Base


class UploadedDataset(Base):
    """A dataset of a user's own: a zip that arrives in parts, is examined, and then is ready or rejected."""

    __tablename__ = "datasets"
    __table_args__ = (
        Index("uq_datasets_owner_name", "owner", "name", unique=True),
        Index("ix_datasets_status_lease_until", "status", "lease_until"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    owner: Mapped[str] = mapped_column(String(64))
    name: Mapped[str] = mapped_column(String(64))
    status: Mapped[str] = mapped_column(String(16))  # uploading, validating, ready, rejected
    bytes: Mapped[int | None] = mapped_column(BigInteger)
    sha256: Mapped[str | None] = mapped_column(String(64))
    report: Mapped[dict[str, Any] | None]
    fingerprint: Mapped[str | None] = mapped_column(String(64))
    smallest_class: Mapped[int | None]  # training images of the class that has the fewest
    attempt: Mapped[int] = mapped_column(default=0)  # of the validation; also its fencing token
    lease_until: Mapped[datetime | None]
    created_at: Mapped[datetime]
    completed_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
