"""Keys: made, told from mistyped ones, kept as keyed hashes, found again and revoked."""

import hashlib
import hmac
import re
import secrets
import shlex
import string
import zlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal, get_args

import uuid_utils
from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from jobs.advice import Advised
from jobs.database import make_engine, make_sessions
from jobs.network import is_loopback
from jobs.paging import page_by_age
from jobs.quotas import ensure_owner
from jobs.repository import utcnow
from jobs.secrets import derive, server_secret
from jobs.settings import Settings
from jobs.tables import ApiKey

Scope = Literal["jobs:read", "jobs:write", "datasets:write", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
"""See jobs and what they made; submit and steer jobs, webhooks; upload datasets; everything, of everyone."""

PREFIX = "drk_"
RANDOM_LETTERS, CHECK_LETTERS = 37, 6
_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_TOKEN = re.compile(rf"{PREFIX}([0-9A-Za-z]{{{RANDOM_LETTERS}}})([0-9A-Za-z]{{{CHECK_LETTERS}}})")
NOTED_EVERY = timedelta(minutes=1)
ADMIN = "admin"
"""The owner of what is done with DREAM_ADMIN_KEY; and the scope that has all others in it."""


class NoAdministrator(Advised):
    """Keys are asked for, and nobody has one that could make others."""


def new_token() -> str:
    """A fresh key: 220 random bits, and a checksum by which scanners for leaked secrets know it from other text."""
    random = "".join(secrets.choice(_ALPHABET) for _ in range(RANDOM_LETTERS))
    return f"{PREFIX}{random}{_checksum(random)}"


def is_well_formed(token: str) -> bool:
    """Whether it could be a key at all. What is mistyped or made up needs no look into the database."""
    found = _TOKEN.fullmatch(token)
    return found is not None and found[2] == _checksum(found[1])


def _checksum(random: str) -> str:
    """Their CRC-32 as letters."""
    number, letters = zlib.crc32(random.encode()), ""
    for _ in range(CHECK_LETTERS):
        number, digit = divmod(number, len(_ALPHABET))
        letters = _ALPHABET[digit] + letters
    return letters


def hashing_key(settings: Settings) -> bytes:
    """What this service's keys are hashed under."""
    return derive(server_secret(settings), "keys")


def digest(hashing: bytes, token: str) -> str:
    """HMAC-SHA256 of a key: all that is kept of it."""
    return hmac.new(hashing, token.encode(), hashlib.sha256).hexdigest()


def create_key(
    session: Session,
    hashing: bytes,
    owner: str,
    scopes: Sequence[Scope],
    name: str | None = None,
    expires_at: datetime | None = None,
) -> tuple[ApiKey, str]:
    """A key and the token that it is used by, which cannot be had a second time."""
    ensure_owner(session, owner)
    token = new_token()
    key = ApiKey(
        id=f"key_{uuid_utils.uuid7().hex}",
        owner=owner,
        name=name,
        digest=digest(hashing, token),
        shown=f"{token[: len(PREFIX) + 2]}…{token[-4:]}",
        scopes=[scope for scope in SCOPES if scope in scopes],
        created_at=utcnow(),
        expires_at=expires_at,
    )
    session.add(key)
    session.flush()
    return key, token


def find_live(session: Session, digest: str) -> ApiKey | None:
    """The key of this digest, unless it is revoked or has expired."""
    key = session.scalar(select(ApiKey).where(ApiKey.digest == digest, *_live()))
    return key if key and hmac.compare_digest(key.digest, digest) else None


def list_keys(
    session: Session, limit: int, owner: str | None = None, after: tuple[datetime, str] | None = None
) -> tuple[list[ApiKey], bool]:
    """Keys from the newest on, revoked ones too, and whether there are more. `after` is (created_at, id) of the last
    one seen; `owner` None means everyone's.
    """
    query = select(ApiKey)
    if owner is not None:
        query = query.where(ApiKey.owner == owner)
    return page_by_age(session, query, (ApiKey.created_at, ApiKey.id), limit, after)


def revoke_key(session: Session, key_id: str) -> ApiKey | None:
    """End a key for good. None if there is none of this id. Revoking twice is harmless."""
    key = session.get(ApiKey, key_id, with_for_update=True)
    if key and key.revoked_at is None:
        key.revoked_at = utcnow()
        session.flush()
    return key


def note_use(session: Session, key_id: str) -> None:
    """Remember that the key is in use; to the minute, so that it costs next to nothing."""
    now = utcnow()
    stale = or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < now - NOTED_EVERY)
    session.execute(
        update(ApiKey)
        .where(ApiKey.id == key_id, stale)
        .values(last_used_at=now)
        .execution_options(synchronize_session=False)
    )


def has_administrator(session: Session) -> bool:
    """Whether there is a key that can make others."""
    return any(ADMIN in scopes for scopes in session.scalars(select(ApiKey.scopes).where(*_live())))


def check_administrator(settings: Settings, host: str) -> None:
    """To be called before a service starts to listen on `host`, with its database up to date.

    Raises NoAdministrator where keys are asked for and there is none to begin with, or DREAM_ADMIN_KEY is not one.
    """
    if settings.admin_key:
        if not is_well_formed(settings.admin_key.get_secret_value()):
            raise NoAdministrator("DREAM_ADMIN_KEY is not a key", "`dream keys generate` makes one")
        return
    if not settings.require_key:
        return
    engine = make_engine(settings.database_url)
    with make_sessions(engine, read_only=True).begin() as session:
        found = has_administrator(session)
    engine.dispose()
    if not found:
        why, way_out = "", ""
        if not is_loopback(host):
            why = f"{host} can be reached from other machines: "
            way_out = "; or, on a network that you trust, add --insecure-no-auth"
        command = f"dream admin-key --home {shlex.quote(str(settings.home))}"
        raise NoAdministrator(
            f"{why}every request must carry a key, and no administrator has one yet",
            f"make one with `{command}`, or set DREAM_ADMIN_KEY to one of `dream keys generate`{way_out}",
        )


def _live() -> tuple:
    return ApiKey.revoked_at.is_(None), or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > utcnow())
