"""Who did what: written in the transaction that did it, never changed."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from jobs.paging import page
from jobs.repository import utcnow
from jobs.tables import AuditEntry


def record(
    session: Session, owner: str, key_id: str | None, action: str, resource: str | None, request_id: str | None
) -> None:
    """Add an entry: `action` as in `job.submitted`, `resource` the id of what it was done to."""
    session.add(
        AuditEntry(at=utcnow(), owner=owner, key_id=key_id, action=action, resource=resource, request_id=request_id)
    )


def list_entries(
    session: Session, limit: int, *, owner: str | None = None, action: str | None = None, before: int | None = None
) -> tuple[list[AuditEntry], bool]:
    """Entries from the newest on, and whether there are more. `before` is the id of the last one seen."""
    query = select(AuditEntry).order_by(AuditEntry.id.desc())
    if owner is not None:
        query = query.where(AuditEntry.owner == owner)
    if action is not None:
        query = query.where(AuditEntry.action == action)
    if before is not None:
        query = query.where(AuditEntry.id < before)
    return page(session, query, limit)
