"""Keys, and what their owners may use."""

from dataclasses import asdict
from datetime import date, datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints

from api.schemas.base import Input, Moment, Output, PageQuery, Text
from jobs.keys import Scope
from jobs.lifecycle import Status
from jobs.quotas import Limits, Used
from jobs.repository import utcnow
from jobs.tables import ApiKey, Owner

OwnerName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$")]
Count = Annotated[int, Field(ge=0, lt=2**31, strict=True)]
Bytes = Annotated[int, Field(ge=0, lt=2**63, strict=True)]


def _to_come(moment: datetime) -> datetime:
    if moment <= utcnow():
        raise ValueError("must lie in the future")
    return moment


class KeyCreate(Input):
    """A key to be made."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"owner": "anna"},
                {
                    "owner": "anna",
                    "scopes": ["jobs:read"],
                    "name": "for the wall display",
                    "expires_at": "2099-12-31T00:00:00Z",
                },
            ]
        }
    )

    owner: OwnerName
    """Whom it is for: what is done with it belongs to them, and they share it with their other keys."""
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=4)] = Field(
        default=["jobs:read", "jobs:write", "datasets:write"]
    )
    """What it may do: see jobs; submit and steer them, webhooks too; upload datasets; everything, of everyone."""
    name: Annotated[Text, Field(max_length=200)] | None = None
    """For people."""
    expires_at: Annotated[Moment, AfterValidator(_to_come)] | None = None
    """None: it is good until it is revoked."""


class KeyQuery(PageQuery):
    """Which keys to list."""

    owner: Text | None = None


class KeyResource(Output):
    """A key, without what it is used by."""

    id: str
    object: Literal["api_key"]
    owner: str
    name: str | None
    shown: str
    """Its first and last letters, to be told from others by."""
    scopes: list[Scope]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    """To the minute."""

    @classmethod
    def of(cls, key: ApiKey) -> "KeyResource":
        """The public side of a row."""
        names = cls.model_fields.keys() - {"object"}
        return cls.model_validate({name: getattr(key, name) for name in names} | {"object": "api_key"})


class KeyWithToken(KeyResource):
    """A new key."""

    token: str
    """What goes behind `Authorization: Bearer`. Shown this once."""

    @classmethod
    def showing(cls, key: ApiKey, token: str) -> "KeyWithToken":
        """The public side of a row, and its token."""
        return cls(**KeyResource.of(key).model_dump(), token=token)


class KeyPage(Output):
    """Keys from the newest on, revoked ones too."""

    data: list[KeyResource]
    has_more: bool
    next_cursor: str | None


class OwnLimits(Input):
    """An owner's own limits; null, or left out, means the service's."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"max_queued": 50, "max_running": 2, "storage_bytes": 10_000_000_000}, {}]}
    )

    max_queued: Count | None = None
    """Jobs that wait, paused ones too."""
    max_running: Count | None = None
    """Jobs that run at a time; further ones wait."""
    run_seconds_per_day: Count | None = None
    """Seconds that jobs may have run in the last 24 hours before new ones are refused."""
    storage_bytes: Bytes | None = None
    """Bytes of artifacts and datasets before new jobs and uploads are refused."""
    retention_days: Annotated[int, Field(ge=0, le=36_500, strict=True)] | None = None
    """How long artifacts are kept after a job has ended."""


class LimitsInForce(Output):
    """What counts in the end; null means no limit."""

    max_queued: int | None
    max_running: int | None
    run_seconds_per_day: int | None
    storage_bytes: int | None
    retention_days: float | None


class OwnerLimits(Output):
    """What an owner may use."""

    owner: str
    own: OwnLimits
    in_force: LimitsInForce

    @classmethod
    def of(cls, owner: Owner, limits: Limits) -> "OwnerLimits":
        """Of a row, and what follows from it."""
        own = OwnLimits.model_validate({name: getattr(owner, name) for name in OwnLimits.model_fields})
        return cls(owner=owner.name, own=own, in_force=LimitsInForce(**asdict(limits)))


class Allowance(Output):
    """What may be used of something, and what is; `limit` null means any amount."""

    limit: int | None
    used: float


class RequestAllowance(Allowance):
    """Requests with the key that asks, in this process of the service. Answers of 304 do not count."""

    window_s: int


class LimitsAndUse(Output):
    """What the owner of a key may use and does use."""

    owner: str
    queued: Allowance
    running: Allowance
    run_seconds_per_day: Allowance
    storage_bytes: Allowance
    requests: RequestAllowance
    """`limit` is null where no key is asked for."""
    retention_days: float | None

    @classmethod
    def of(cls, owner: str, limits: Limits, used: Used, requests: RequestAllowance) -> "LimitsAndUse":
        """Side by side."""
        return cls(
            owner=owner,
            queued=Allowance(limit=limits.max_queued, used=used.queued),
            running=Allowance(limit=limits.max_running, used=used.running),
            run_seconds_per_day=Allowance(limit=limits.run_seconds_per_day, used=round(used.run_seconds, 3)),
            storage_bytes=Allowance(limit=limits.storage_bytes, used=used.storage_bytes),
            requests=requests,
            retention_days=limits.retention_days,
        )


class DailyUse(Output):
    """Running on one day, by one method."""

    day: date
    """In UTC."""
    method: str
    run_seconds: float


class Usage(Output):
    """What the owner of a key has used."""

    owner: str
    days: list[DailyUse]
    """Of the last 30 days, those on which something ran."""
    run_seconds: float
    """Of these days together."""
    jobs: dict[Status, int]
    """How many there are in each state."""
    storage_bytes: int
