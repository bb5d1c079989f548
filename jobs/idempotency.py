"""Requests that may be sent again: the answer is kept in the transaction that did what was asked.

So there is never a record of a request that did nothing, nor a job without its record; the primary key makes the
second of two at the same time fail, and find the first one's answer when it tries again.
"""

import hashlib
import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from sqlalchemy import delete
from sqlalchemy.orm import Session

from jobs.repository import utcnow
from jobs.tables import IdempotencyRecord

KEPT = timedelta(hours=24)


class KeyReused(Exception):
    """The key was used for another request."""


def fingerprint(request: Mapping[str, Any]) -> str:
    """SHA-256 of a request's canonical JSON."""
    return hashlib.sha256(json.dumps(request, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def recall(session: Session, owner: str, route: str, key: str, request: Mapping[str, Any]) -> IdempotencyRecord | None:
    """The answer that this request had before. Raises KeyReused if the key came with another request."""
    record = session.get(IdempotencyRecord, (owner, route, key))
    if record is None:
        return None
    if record.created_at < utcnow() - KEPT:
        session.delete(record)
        session.flush()
        return None
    if record.fingerprint != fingerprint(request):
        raise KeyReused("this Idempotency-Key came with another request before; take a new one")
    return record


def remember(
    session: Session,
    owner: str,
    route: str,
    key: str,
    request: Mapping[str, Any],
    *,
    status: int,
    headers: Mapping[str, str],
    body: Mapping[str, Any],
) -> None:
    """Keep the answer. Raises IntegrityError if another transaction has just done so."""
    session.add(
        IdempotencyRecord(
            owner=owner,
            route=route,
            key=key,
            fingerprint=fingerprint(request),
            status=status,
            headers=dict(headers),
            body=dict(body),
            created_at=utcnow(),
        )
    )
    session.flush()


def forget_expired(session: Session) -> None:
    """Remove answers that are no longer kept."""
    session.execute(delete(IdempotencyRecord).where(IdempotencyRecord.created_at < utcnow() - KEPT))
