"""Addresses that want to be told. `owner` None means everyone's."""

import base64
from collections.abc import Sequence
from datetime import datetime, timedelta

import uuid_utils
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from jobs.outbox import EventType
from jobs.paging import page_by_age
from jobs.quotas import QuotaExceeded, lock_owner
from jobs.repository import utcnow
from jobs.secrets import derive
from jobs.tables import Webhook

MAX_PER_OWNER = 20
OVERLAP = timedelta(hours=24)
"""How long after a rotation the secret before it signs as well."""


def create_webhook(session: Session, owner: str, url: str, events: Sequence[EventType] = ()) -> Webhook:
    """A webhook for these events, or for all. The URL has been checked. Raises QuotaExceeded."""
    lock_owner(session, owner)  # so that two requests at the same time do not both fit
    have = session.scalar(select(func.count()).where(Webhook.owner == owner)) or 0
    if have >= MAX_PER_OWNER:
        raise QuotaExceeded(f"you have {have} webhooks, and {MAX_PER_OWNER} is the most; delete one first")
    webhook = Webhook(
        id=f"whk_{uuid_utils.uuid7().hex}",
        owner=owner,
        url=url,
        events=list(dict.fromkeys(events)),
        generation=1,
        created_at=utcnow(),
    )
    session.add(webhook)
    session.flush()
    return webhook


def get_webhook(session: Session, webhook_id: str, owner: str | None = None) -> Webhook | None:
    """The webhook, or None."""
    webhook = session.get(Webhook, webhook_id)
    return webhook if webhook and owner in (None, webhook.owner) else None


def list_webhooks(
    session: Session, limit: int, owner: str | None = None, after: tuple[datetime, str] | None = None
) -> tuple[list[Webhook], bool]:
    """Webhooks from the newest on, and whether there are more. `after` is (created_at, id) of the last one seen."""
    query = select(Webhook)
    if owner is not None:
        query = query.where(Webhook.owner == owner)
    return page_by_age(session, query, (Webhook.created_at, Webhook.id), limit, after)


def rotate_secret(session: Session, webhook_id: str, owner: str | None = None) -> Webhook | None:
    """Give the webhook a new secret; the one before it signs as well for OVERLAP, and any before that no more."""
    webhook = _lock(session, webhook_id, owner)
    if webhook is None:
        return None
    webhook.generation += 1
    webhook.previous_until = utcnow() + OVERLAP
    session.flush()
    return webhook


def enable_webhook(session: Session, webhook_id: str, owner: str | None = None) -> Webhook | None:
    """Tell a webhook again of what happens from now on. To enable one that is enabled is harmless."""
    webhook = _lock(session, webhook_id, owner)
    if webhook is not None:
        webhook.disabled_at = webhook.disabled_reason = None
        session.flush()
    return webhook


def delete_webhook(session: Session, webhook_id: str, owner: str | None = None) -> bool:
    """Forget the webhook and all that was sent to it. Whether there was one."""
    webhook = _lock(session, webhook_id, owner)
    if webhook is None:
        return False
    session.delete(webhook)
    session.flush()
    return True


def signing_secrets(webhook: Webhook, secret: bytes, now: datetime) -> list[str]:
    """What signs now, the newest first, as Standard Webhooks writes secrets: derived from the server's, not stored."""
    generations = [webhook.generation]
    if webhook.previous_until and now < webhook.previous_until:
        generations.append(webhook.generation - 1)
    keys = (derive(secret, f"webhook:{webhook.id}:{generation}") for generation in generations)
    return ["whsec_" + base64.b64encode(key).decode() for key in keys]


def _lock(session: Session, webhook_id: str, owner: str | None) -> Webhook | None:
    query = select(Webhook).where(Webhook.id == webhook_id).with_for_update()
    webhook = session.scalar(query.execution_options(populate_existing=True))
    return webhook if webhook and owner in (None, webhook.owner) else None
