"""Sends what waits in the outbox, signed after Standard Webhooks (standardwebhooks.com)."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import structlog
from sqlalchemy.orm import Session, sessionmaker
from standardwebhooks import Webhook as Signer

from jobs import metrics, outbox
from jobs.egress import NotAllowed
from jobs.repository import utcnow
from jobs.secrets import server_secret
from jobs.settings import Settings
from jobs.tables import Webhook, WebhookDelivery
from jobs.webhooks import signing_secrets
from worker.egress import Unreachable, post

log = structlog.get_logger()

BATCH = 8
"""Messages under way at a time: one slow address does not hold up the others."""
OVERTAKEN = "overtaken"
"""An attempt that is no longer the message's: it took longer than its lease, or the webhook has been deleted."""

Send = Callable[..., int]


def deliver_due(sessions: sessionmaker[Session], settings: Settings, send: Send = post) -> int:
    """One round: send up to BATCH messages that are due, and return how many. Raises only what the database raises.

    Any number of processes may do this at the same time.
    """
    with sessions.begin() as session:
        claimed = outbox.claim_due(session, BATCH, utcnow())
    if not claimed:
        return 0
    secret = server_secret(settings)

    def deliver(delivery: WebhookDelivery, webhook: Webhook) -> None:
        body = json.dumps(delivery.payload, separators=(",", ":")).encode()
        headers = sign(webhook, secret, delivery.message_id, body, utcnow())
        answer, error = None, None
        try:
            answer = send(webhook.url, body, headers, allow_private=settings.webhook_allow_private)
            if not 200 <= answer < 300:
                error = f"the answer was {answer}" + (": nothing is followed" if 300 <= answer < 400 else "")
        except (NotAllowed, Unreachable) as fault:
            error = str(fault)
        with sessions.begin() as session:
            outcome = outbox.record(session, delivery, answer, error, utcnow()) or OVERTAKEN
        metrics.WEBHOOKS.labels(outcome).inc()
        log.info("webhook.sent", webhook_id=webhook.id, delivery_id=delivery.id, outcome=outcome, error=error)

    with ThreadPoolExecutor(len(claimed), "webhook") as pool:
        for sent in [pool.submit(deliver, *one) for one in claimed]:
            sent.result()
    return len(claimed)


def sign(webhook: Webhook, secret: bytes, message_id: str, body: bytes, now: datetime) -> dict[str, str]:
    """The headers of a message; while a rotation is young there are two signatures, and either will do."""
    keys = signing_secrets(webhook, secret, now)
    return {
        "Content-Type": "application/json",
        "User-Agent": "dream-distillation",
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(Signer(key).sign(message_id, now, body.decode()) for key in keys),
    }
