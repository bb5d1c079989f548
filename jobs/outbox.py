"""What webhooks are to be told: written with what it tells of, sent until it arrives.

A message is written in the transaction that makes it true, so none is lost and none is a lie. It may arrive more than
once: who sends it takes it for LEASE, and if they die before they have put down what came of it, it is sent again,
under the same id.
"""

from datetime import datetime, timedelta
from enum import StrEnum

import uuid_utils
from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from jobs.lifecycle import Status
from jobs.paging import page_by_age
from jobs.tables import Job, Webhook, WebhookDelivery

LEASE = timedelta(seconds=60)
BACKOFF = (
    timedelta(seconds=5),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=5),
    timedelta(hours=10),
    timedelta(hours=10),
)
"""From one attempt to the next; there is one attempt more than pauses."""
KEPT = timedelta(days=30)

PENDING, DELIVERED, FAILED = "pending", "delivered", "failed"


class EventType(StrEnum):
    """What is told of. May grow."""

    JOB_STARTED = "job.started"
    JOB_PAUSED = "job.paused"
    JOB_SUCCEEDED = "job.succeeded"
    JOB_FAILED = "job.failed"
    JOB_CANCELLED = "job.cancelled"
    DATASET_READY = "dataset.ready"
    DATASET_REJECTED = "dataset.rejected"


_OF_STATUS = {
    Status.RUNNING: EventType.JOB_STARTED,
    Status.PAUSED: EventType.JOB_PAUSED,
    Status.SUCCEEDED: EventType.JOB_SUCCEEDED,
    Status.FAILED: EventType.JOB_FAILED,
    Status.CANCELLED: EventType.JOB_CANCELLED,
}


def enqueue_state(session: Session, job: Job, now: datetime) -> None:
    """Tell the owner's webhooks which status the job has come to, if it is one to tell of."""
    if event := _OF_STATUS.get(job.status):
        enqueue(session, job.owner, event, job.id, now)


def enqueue(session: Session, owner: str, event: EventType, resource_id: str, now: datetime) -> None:
    """Tell the owner's webhooks of an event of the job or dataset with this id."""
    # Kept from being deleted until the commit: a message to one that is gone would be refused, and the job with it.
    listening = select(Webhook).where(Webhook.owner == owner, Webhook.disabled_at.is_(None))
    listening = listening.with_for_update(read=True, key_share=True)
    wanted = [webhook for webhook in session.scalars(listening) if not webhook.events or event in webhook.events]
    message_id = f"evt_{uuid_utils.uuid7().hex}"
    created_at = now.isoformat().replace("+00:00", "Z")
    payload = {"id": message_id, "type": event, "created_at": created_at, "data": {"id": resource_id}}
    session.add_all(_delivery(webhook.id, message_id, event, payload, now) for webhook in wanted)


def claim_due(session: Session, limit: int, now: datetime) -> list[tuple[WebhookDelivery, Webhook]]:
    """Take up to `limit` messages that are due, and where they go. Each owner has one in turn.

    A message whose every attempt has been taken, and the last one not come back, has failed.
    """
    due = (WebhookDelivery.status == PENDING, WebhookDelivery.due_at <= now)
    turn = func.row_number().over(partition_by=Webhook.owner, order_by=WebhookDelivery.due_at)
    waiting = select(WebhookDelivery.id, turn.label("turn")).join(Webhook).where(*due).subquery()
    ids = session.scalars(select(waiting.c.id).order_by(waiting.c.turn).limit(limit)).all()
    taken = (
        select(WebhookDelivery, Webhook)
        .join(Webhook)
        .where(WebhookDelivery.id.in_(ids), *due)
        .with_for_update(skip_locked=True, of=WebhookDelivery)
    )
    claimed: list[tuple[WebhookDelivery, Webhook]] = []
    for delivery, webhook in session.execute(taken):
        if delivery.attempts > len(BACKOFF):
            _finish(delivery, FAILED, now)
        else:
            delivery.attempts += 1
            delivery.due_at = now + LEASE
            claimed.append((delivery, webhook))
    session.flush()
    return claimed


def record(
    session: Session, claimed: WebhookDelivery, answer: int | None, error: str | None, now: datetime
) -> str | None:
    """Put down what came of an attempt: the status of the answer, and what is wrong with it if anything is.

    Returns what the message is now: delivered, failed, or pending until its next attempt. None if it is no longer this
    attempt's.
    """
    if answer == 410:  # the webhook before its messages, as whoever deletes it takes them
        session.get(Webhook, claimed.webhook_id, with_for_update={"key_share": True})
    delivery = session.scalar(
        select(WebhookDelivery)
        .where(
            WebhookDelivery.id == claimed.id,
            WebhookDelivery.attempts == claimed.attempts,
            WebhookDelivery.status == PENDING,
        )
        .with_for_update()
    )
    if delivery is None:
        return None
    delivery.response_status = answer
    delivery.error = error[:200] if error else None
    if error is None:
        _finish(delivery, DELIVERED, now)
    elif answer == 410:
        _finish(delivery, FAILED, now)
        _disable(session, delivery.webhook_id, "the address answered 410 Gone", now)
    elif delivery.attempts > len(BACKOFF):
        _finish(delivery, FAILED, now)
    else:
        delivery.due_at = now + BACKOFF[delivery.attempts - 1]
    session.flush()
    return delivery.status


def list_deliveries(
    session: Session, webhook_id: str, limit: int, after: tuple[datetime, str] | None = None
) -> tuple[list[WebhookDelivery], bool]:
    """Messages to a webhook from the newest on, and whether there are more. `after` is (created_at, id) of the last."""
    query = select(WebhookDelivery).where(WebhookDelivery.webhook_id == webhook_id)
    return page_by_age(session, query, (WebhookDelivery.created_at, WebhookDelivery.id), limit, after)


def redeliver(session: Session, webhook_id: str, delivery_id: str, now: datetime) -> WebhookDelivery | None:
    """Send a message once more, under its own id: at once if it waits for an attempt, else as a new delivery.

    None if there is no such delivery.
    """
    known = session.get(WebhookDelivery, delivery_id)
    if known is None or known.webhook_id != webhook_id:
        return None
    same = (WebhookDelivery.webhook_id == webhook_id, WebhookDelivery.message_id == known.message_id)
    again = session.scalar(select(WebhookDelivery).where(*same, WebhookDelivery.status == PENDING).with_for_update())
    if again is None:
        again = _delivery(webhook_id, known.message_id, known.type, known.payload, now)
        session.add(again)
    again.due_at = now
    session.flush()
    return again


def forget_old(session: Session, now: datetime) -> None:
    """Remove deliveries that came to their end KEPT ago."""
    session.execute(delete(WebhookDelivery).where(WebhookDelivery.finished_at < now - KEPT))


def _delivery(
    webhook_id: str, message_id: str, event: str, payload: dict[str, object], now: datetime
) -> WebhookDelivery:
    return WebhookDelivery(
        id=f"dlv_{uuid_utils.uuid7().hex}",
        webhook_id=webhook_id,
        message_id=message_id,
        type=event,
        payload=payload,
        status=PENDING,
        attempts=0,
        due_at=now,
        created_at=now,
    )


def _finish(delivery: WebhookDelivery, status: str, now: datetime) -> None:
    delivery.status, delivery.finished_at = status, now


def _disable(session: Session, webhook_id: str, reason: str, now: datetime) -> None:
    """Send nothing there any more, what waits included."""
    session.execute(
        update(Webhook)
        .where(Webhook.id == webhook_id, Webhook.disabled_at.is_(None))
        .values(disabled_at=now, disabled_reason=reason)
    )
    session.execute(
        update(WebhookDelivery)
        .where(WebhookDelivery.webhook_id == webhook_id, WebhookDelivery.status == PENDING)
        .values(status=FAILED, error=reason, finished_at=now)
    )
