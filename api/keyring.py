"""Whose is a key? What was looked up a moment ago is believed for some seconds without asking the database again."""

import asyncio
import hmac
import time
from dataclasses import dataclass
from functools import cached_property

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker
from starlette.concurrency import run_in_threadpool

from jobs import keys
from jobs.keys import ADMIN, NOTED_EVERY, SCOPES
from jobs.repository import utcnow
from jobs.settings import Settings
from jobs.tables import LOCAL, ApiKey

log = structlog.get_logger()

BELIEVED_S = 5.0
"""A key that another process has revoked works for this long at most."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is asking."""

    owner: str
    scopes: frozenset[str]
    key_id: str | None = None

    @property
    def sees(self) -> str | None:
        """Whose things they may see: an owner's name, None for everyone's."""
        return None if ADMIN in self.scopes else self.owner

    def may(self, scope: str) -> bool:
        """Whether they have the scope; administrators have all."""
        return scope in self.scopes or ADMIN in self.scopes


ADMINISTRATOR = Principal(LOCAL, frozenset(SCOPES))
"""Whoever can reach a service that asks for no key."""
_FROM_ENVIRONMENT = Principal(ADMIN, frozenset(SCOPES), key_id="DREAM_ADMIN_KEY")


class KeyRing:
    """The keys of a service, in one event loop. `recall` costs next to nothing, `look_up` a look into the database."""

    def __init__(self, settings: Settings, sessions: sessionmaker[Session], readings: sessionmaker[Session]) -> None:
        self._settings, self._sessions, self._readings = settings, sessions, readings
        self._believed: dict[str, tuple[Principal, float]] = {}
        self._notes: set[asyncio.Task[None]] = set()

    def recall(self, token: str) -> Principal | None:
        """Whose key it is, if that is known already."""
        admin = self._settings.admin_key
        if admin and hmac.compare_digest(token.encode(), admin.get_secret_value().encode()):
            return _FROM_ENVIRONMENT
        principal, until = self._believed.get(keys.digest(self._hashing, token), (None, 0.0))
        return principal if until > time.monotonic() else None

    async def look_up(self, token: str) -> Principal | None:
        """Whose key it is; None for one that is unknown, revoked or expired."""
        if not keys.is_well_formed(token):
            return None
        believed = self._believed  # another one after `forget`: what was read before a revocation is not kept then
        digest = keys.digest(self._hashing, token)
        key = await run_in_threadpool(self._find, digest)
        if key is None:
            return None
        self._note(key)
        left = (key.expires_at - utcnow()).total_seconds() if key.expires_at else BELIEVED_S
        principal = Principal(key.owner, frozenset(key.scopes), key.id)
        believed[digest] = principal, time.monotonic() + min(left, BELIEVED_S)
        return principal

    def forget(self) -> None:
        """A key has been revoked: whoever comes next is looked up."""
        self._believed = {}

    async def close(self) -> None:
        """Wait until what was to be noted has been written."""
        await asyncio.gather(*self._notes)

    @cached_property
    def _hashing(self) -> bytes:
        return keys.hashing_key(self._settings)

    def _find(self, digest: str) -> ApiKey | None:
        with self._readings.begin() as session:
            return keys.find_live(session, digest)

    def _note(self, key: ApiKey) -> None:
        """Write down that the key is in use, beside the request that it came with."""
        if key.last_used_at is None or key.last_used_at < utcnow() - NOTED_EVERY:
            task = asyncio.create_task(run_in_threadpool(self._write_note, key.id))
            self._notes.add(task)  # the loop itself would let go of it
            task.add_done_callback(self._notes.discard)

    def _write_note(self, key_id: str) -> None:
        try:
            with self._sessions.begin() as session:
                keys.note_use(session, key_id)
        except SQLAlchemyError as error:
            log.warning("key.use_not_noted", key_id=key_id, error=str(error))
