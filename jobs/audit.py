"""Who did what: written in the transaction that did it, never changed."""

from sqlalchemy.orm import Session

from jobs.repository import utcnow
from jobs.tables import AuditEntry


def record(
    session: Session, owner: str, key_id: str | None, action: str, resource: str | None, request_id: str | None
) -> None:
    """Add an entry: `action` as in `job.submitted`, `resource` the id of what it was done to."""
    session.add(
        AuditEntry(at=utcnow(), owner=owner, key_id=key_id, action=action, resource=resource, request_id=request_id)
    )
