"""Who is asking, and may they? The one place that decides it.

Every route names the scope that it wants, as `reader: CanRead`. A route that names none is open to everyone.
"""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Request, Security
from fastapi.security import HTTPBearer, SecurityScopes

from api.problems import Problem
from jobs.tables import LOCAL

SCOPES = {
    "jobs:read": "see jobs and what they made",
    "jobs:write": "submit and steer jobs; webhooks",
    "datasets:write": "upload datasets",
    "admin": "everything, of everyone",
}


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is asking."""

    owner: str
    scopes: frozenset[str]
    key_id: str | None = None

    @property
    def sees(self) -> str | None:
        """Whose things they may see: an owner's name, None for everyone's."""
        return None if "admin" in self.scopes else self.owner

    def may(self, scope: str) -> bool:
        """Whether they have the scope; administrators have all."""
        return scope in self.scopes or "admin" in self.scopes


ADMINISTRATOR = Principal(LOCAL, frozenset(SCOPES))
"""Whoever can reach a service that asks for no key."""

_bearer = HTTPBearer(auto_error=False, description="A key: `drk_…`. Not asked for on one's own machine.")


async def _principal(
    request: Request, wanted: SecurityScopes, credentials: Annotated[object, Security(_bearer)]
) -> Principal:
    principal = ADMINISTRATOR
    if missing := [scope for scope in wanted.scopes if not principal.may(scope)]:
        raise Problem("FORBIDDEN", f"this key has no scope {missing[0]}")
    return principal


CanRead = Annotated[Principal, Security(_principal, scopes=["jobs:read"])]
CanWrite = Annotated[Principal, Security(_principal, scopes=["jobs:write"])]
CanUpload = Annotated[Principal, Security(_principal, scopes=["datasets:write"])]
IsAdmin = Annotated[Principal, Security(_principal, scopes=["admin"])]
