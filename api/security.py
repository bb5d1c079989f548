"""Who is asking, and may they? The one place that decides it.

Every route under /v1 needs a key before anything else, and names the scope that it wants, as `reader: CanRead`.
"""

from typing import Annotated

import structlog
from fastapi import Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer, SecurityScopes

from api.keyring import ADMINISTRATOR, KeyRing, Principal
from api.limiting import RateLimits
from api.problems import Problem

__all__ = ["ADMINISTRATOR", "NEEDS_KEY", "CanRead", "CanUpload", "CanWrite", "IsAdmin", "Principal"]

log = structlog.get_logger()

_bearer = HTTPBearer(auto_error=False, description="A key: `drk_…`. Not asked for on one's own machine.")
Credentials = Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]


async def _principal(request: Request, wanted: SecurityScopes, credentials: Credentials) -> Principal:
    if (principal := getattr(request.state, "principal", None)) is None:  # a route may have several of these
        principal = request.state.principal = await _identify(request, credentials)
    if missing := [scope for scope in wanted.scopes if not principal.may(scope)]:
        raise Problem("FORBIDDEN", f"this key has no scope {missing[0]}")
    return principal


async def _identify(request: Request, credentials: HTTPAuthorizationCredentials | None) -> Principal:
    """Who has sent the request. Raises a Problem for a wrong key, or if there have been too many requests."""
    state = request.app.state
    ring: KeyRing = state.keyring
    limits: RateLimits = state.limits
    if "authorization" not in request.headers:
        if state.settings.require_key:
            raise _unauthenticated("send a key: `Authorization: Bearer drk_…`", "Bearer")
        return ADMINISTRATOR
    token = credentials.credentials if credentials else ""
    if (principal := ring.recall(token)) is None:
        await limits.require_attempt(request)
        if (principal := await ring.look_up(token)) is None:
            await limits.count_wrong_key(request)
            log.warning("key.refused", address=request.client.host if request.client else None)
            raise _unauthenticated("this is no key, or one that is revoked or has expired")
    if principal.key_id:
        await limits.require_request(principal.key_id)
    return principal


def _unauthenticated(detail: str, challenge: str = 'Bearer error="invalid_token"') -> Problem:
    return Problem("UNAUTHENTICATED", detail, headers={"WWW-Authenticate": challenge})


NEEDS_KEY = Security(_principal)
"""For routers: whoever has no key learns nothing else, not even that an id is malformed."""
CanRead = Annotated[Principal, Security(_principal, scopes=["jobs:read"])]
CanWrite = Annotated[Principal, Security(_principal, scopes=["jobs:write"])]
CanUpload = Annotated[Principal, Security(_principal, scopes=["datasets:write"])]
IsAdmin = Annotated[Principal, Security(_principal, scopes=["admin"])]
