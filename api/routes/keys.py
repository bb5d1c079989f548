"""Keys, and what their owners may use."""

import re
from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from api.auditing import note
from api.dependencies import Readings, Sessions, SettingsDep
from api.limiting import RateLimits
from api.pagination import decode_cursor, next_cursor
from api.problems import not_found
from api.schemas.access import (
    DailyUse,
    KeyCreate,
    KeyPage,
    KeyQuery,
    KeyResource,
    KeyWithToken,
    LimitsAndUse,
    OwnerLimits,
    OwnerName,
    OwnLimits,
    RequestAllowance,
    Usage,
)
from api.security import CanRead, IsAdmin
from jobs import keys, quotas, repository, usage
from jobs.repository import utcnow
from jobs.tables import Owner

router = APIRouter(prefix="/v1", tags=["keys"])

USAGE_PERIOD = timedelta(days=30)
_KEY_ID = re.compile(r"key_[0-9a-f]{32}")


async def _key_id(key_id: Annotated[str, Path(description="`key_` and 32 hexadecimal digits")]) -> str:
    if not _KEY_ID.fullmatch(key_id):
        raise not_found("key", key_id)
    return key_id


async def _requests(request: Request, reader: CanRead) -> RequestAllowance:
    limits: RateLimits = request.app.state.limits
    limit, window_s = limits.requests.amount, limits.requests.get_expiry()
    if reader.key_id is None:
        return RequestAllowance(limit=None, used=0, window_s=window_s)
    return RequestAllowance(limit=limit, used=limit - await limits.left(reader.key_id), window_s=window_s)


@router.post("/keys", status_code=201)
def create_key(
    body: KeyCreate, _: IsAdmin, sessions: Sessions, settings: SettingsDep, request: Request, response: Response
) -> KeyWithToken:
    """Make a key for someone. Hand on its `token`: it is not shown again, and only a keyed hash of it is kept."""
    hashing = keys.hashing_key(settings)
    with sessions.begin() as session:
        key, token = keys.create_key(session, hashing, body.owner, body.scopes, body.name, body.expires_at)
        note(session, request, "key.created", key.id)
    response.headers["Cache-Control"] = "no-store"
    return KeyWithToken.showing(key, token)


@router.get("/keys")
def list_keys(query: Annotated[KeyQuery, Query()], _: IsAdmin, readings: Readings) -> KeyPage:
    """List keys, newest first, those that are revoked too."""
    with readings.begin() as session:
        found, more = keys.list_keys(session, query.limit, query.owner, decode_cursor(query.cursor))
    return KeyPage(data=[KeyResource.of(key) for key in found], has_more=more, next_cursor=next_cursor(found, more))


@router.delete("/keys/{key_id}", status_code=204)
def revoke_key(key_id: Annotated[str, Depends(_key_id)], _: IsAdmin, sessions: Sessions, request: Request) -> None:
    """End a key for good: at once here, within five seconds in other processes. Repeating is harmless."""
    with sessions.begin() as session:
        if keys.revoke_key(session, key_id) is None:
            raise not_found("key", key_id)
        note(session, request, "key.revoked", key_id)
    request.app.state.keyring.forget()


@router.get("/owners/{owner}/limits")
def get_owner_limits(owner: OwnerName, _: IsAdmin, readings: Readings, settings: SettingsDep) -> OwnerLimits:
    """What an owner may use."""
    with readings.begin() as session:
        known = session.get(Owner, owner)
        if known is None:
            raise not_found("owner", owner)
        return OwnerLimits.of(known, quotas.limits_of(session, owner, settings))


@router.put("/owners/{owner}/limits")
def set_owner_limits(
    owner: OwnerName, body: OwnLimits, _: IsAdmin, sessions: Sessions, settings: SettingsDep, request: Request
) -> OwnerLimits:
    """Set what an owner may use, all of it at once: what is left out becomes the service's again."""
    with sessions.begin() as session:
        known = quotas.set_limits(session, owner, body.model_dump())
        repository.nothing_rung(session)  # jobs may be waiting for just that
        note(session, request, "owner.limited", owner)
        return OwnerLimits.of(known, quotas.limits_of(session, owner, settings))


@router.get("/limits")
def get_limits(
    reader: CanRead,
    requests: Annotated[RequestAllowance, Depends(_requests)],
    readings: Readings,
    settings: SettingsDep,
) -> LimitsAndUse:
    """What you may use, and what you do use."""
    with readings.begin() as session:
        limits = quotas.limits_of(session, reader.owner, settings)
        return LimitsAndUse.of(reader.owner, limits, quotas.used_by(session, reader.owner), requests)


@router.get("/usage")
def get_usage(reader: CanRead, readings: Readings) -> Usage:
    """What you have used: running by day and method for 30 days, jobs by state, bytes that are kept."""
    with readings.begin() as session:
        seconds = usage.by_day(usage.spans(session, reader.owner, utcnow() - USAGE_PERIOD))
        return Usage(
            owner=reader.owner,
            days=[DailyUse(day=day, method=method, run_seconds=s) for (day, method), s in seconds.items()],
            run_seconds=sum(seconds.values()),
            jobs=usage.jobs_by_status(session, reader.owner),
            storage_bytes=quotas.stored_bytes(session, reader.owner),
        )
