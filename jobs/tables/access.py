"""Who may do what, how much of it, and what was done: owners, keys, the audit log, requests that may be repeated."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from jobs.tables.base import Base

Counter = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts by itself in a column of this type alone


class Owner(Base):
    """Whom jobs belong to, and how much they may use; None means the service's default."""

    __tablename__ = "owners"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    max_queued: Mapped[int | None]
    max_running: Mapped[int | None]
    run_seconds_per_day: Mapped[int | None]
    storage_bytes: Mapped[int | None] = mapped_column(BigInteger)
    retention_days: Mapped[int | None]
    created_at: Mapped[datetime]


class ApiKey(Base):
    """A key, of which only a keyed hash is kept."""

    __tablename__ = "api_keys"
    __table_args__ = (Index("ix_api_keys_created_at_id", "created_at", "id"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    owner: Mapped[str] = mapped_column(ForeignKey("owners.name"), index=True)
    name: Mapped[str | None] = mapped_column(String(200))
    digest: Mapped[str] = mapped_column(String(64), unique=True)  # HMAC-SHA256 under the server's secret
    shown: Mapped[str] = mapped_column(String(16))  # the first and last letters, to be told apart by
    scopes: Mapped[list[str]]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]


class AuditEntry(Base):
    """Something that someone did. Rows are only ever added."""

    __tablename__ = "audit_log"

    id: Mapped[int] = mapped_column(Counter, primary_key=True, autoincrement=True)
    at: Mapped[datetime] = mapped_column(index=True)
    owner: Mapped[str] = mapped_column(String(64))
    key_id: Mapped[str | None] = mapped_column(String(40))
    action: Mapped[str] = mapped_column(String(64))
    resource: Mapped[str | None] = mapped_column(String(255))
    request_id: Mapped[str | None] = mapped_column(String(64))


class IdempotencyRecord(Base):
    """The answer to a request that carried an Idempotency-Key, written in the transaction that did what was asked."""

    __tablename__ = "idempotency_records"

    owner: Mapped[str] = mapped_column(String(64), primary_key=True)
    route: Mapped[str] = mapped_column(String(128), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    status: Mapped[int]
    headers: Mapped[dict[str, Any]]
    body: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(index=True)
