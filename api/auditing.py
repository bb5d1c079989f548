"""Puts down who did what, for the one who sent a request."""

from fastapi import Request
from sqlalchemy.orm import Session

from api.keyring import Principal
from api.problems import request_id
from jobs import audit


def note(session: Session, request: Request, action: str, resource: str) -> None:
    """Add an entry to the transaction that does it. The route has asked for a scope, so that it is known who asks."""
    principal: Principal = request.state.principal
    audit.record(session, principal.owner, principal.key_id, action, resource, request_id(request))
