"""Addresses that want to be told."""

import re
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from sqlalchemy.orm import Session

from api.auditing import note
from api.dependencies import Readings, Sessions, SettingsDep
from api.pagination import decode_cursor, next_cursor
from api.problems import Problem, invalid, not_found
from api.schemas.base import PageQuery
from api.schemas.webhooks import (
    DeliveryPage,
    DeliveryResource,
    WebhookCreate,
    WebhookPage,
    WebhookResource,
    WebhookWithSecret,
)
from api.security import CanWrite, Principal
from jobs import outbox, webhooks
from jobs.egress import NotAllowed, check_url
from jobs.repository import utcnow
from jobs.secrets import server_secret
from jobs.settings import Settings
from jobs.tables import Webhook

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"])

_WEBHOOK_ID = re.compile(r"whk_[0-9a-f]{32}")
_DELIVERY_ID = re.compile(r"dlv_[0-9a-f]{32}")


async def _webhook_id(webhook_id: Annotated[str, Path(description="`whk_` and 32 hexadecimal digits")]) -> str:
    if not _WEBHOOK_ID.fullmatch(webhook_id):
        raise not_found("webhook", webhook_id)
    return webhook_id


async def _delivery_id(delivery_id: Annotated[str, Path(description="`dlv_` and 32 hexadecimal digits")]) -> str:
    if not _DELIVERY_ID.fullmatch(delivery_id):
        raise not_found("delivery", delivery_id)
    return delivery_id


WebhookId = Annotated[str, Depends(_webhook_id)]
DeliveryId = Annotated[str, Depends(_delivery_id)]


@router.post("", status_code=201)
def create_webhook(
    body: WebhookCreate,
    writer: CanWrite,
    sessions: Sessions,
    settings: SettingsDep,
    request: Request,
    response: Response,
) -> WebhookWithSecret:
    """Have an address told of what happens to your jobs and datasets, by signed messages (Standard Webhooks).

    Keep the `secret`: it is not shown again. A message is sent until the address answers 2xx, for more than a day; it
    may arrive more than once, and not in order.
    """
    try:
        check_url(body.url, allow_private=settings.webhook_allow_private)
    except NotAllowed as fault:
        raise invalid("#/url", "URL_NOT_ALLOWED", str(fault), f"url: {fault}") from None
    with sessions.begin() as session:
        webhook = webhooks.create_webhook(session, writer.owner, body.url, body.events)
        note(session, request, "webhook.created", webhook.id)
    response.headers["Location"] = f"/v1/webhooks/{webhook.id}"
    return _showing_secret(webhook, settings, response)


@router.get("")
def list_webhooks(query: Annotated[PageQuery, Query()], writer: CanWrite, readings: Readings) -> WebhookPage:
    """List webhooks, newest first."""
    with readings.begin() as session:
        found, more = webhooks.list_webhooks(session, query.limit, writer.sees, decode_cursor(query.cursor))
    return WebhookPage(
        data=[WebhookResource.of(one) for one in found], has_more=more, next_cursor=next_cursor(found, more)
    )


@router.get("/{webhook_id}")
def get_webhook(webhook_id: WebhookId, writer: CanWrite, readings: Readings) -> WebhookResource:
    """One webhook."""
    with readings.begin() as session:
        return WebhookResource.of(_find(session, webhook_id, writer))


@router.delete("/{webhook_id}", status_code=204)
def delete_webhook(webhook_id: WebhookId, writer: CanWrite, sessions: Sessions, request: Request) -> None:
    """Delete a webhook. What has not been sent is not sent any more."""
    with sessions.begin() as session:
        if not webhooks.delete_webhook(session, webhook_id, writer.sees):
            raise not_found("webhook", webhook_id)
        note(session, request, "webhook.deleted", webhook_id)


@router.post("/{webhook_id}/rotate")
def rotate_webhook_secret(
    webhook_id: WebhookId,
    writer: CanWrite,
    sessions: Sessions,
    settings: SettingsDep,
    request: Request,
    response: Response,
) -> WebhookWithSecret:
    """Take a new secret. For 24 hours messages are signed with the one before as well, which leaves time to change it.

    A second rotation within that time ends the first secret at once.
    """
    with sessions.begin() as session:
        webhook = webhooks.rotate_secret(session, webhook_id, writer.sees)
        if webhook is None:
            raise not_found("webhook", webhook_id)
        note(session, request, "webhook.rotated", webhook_id)
    return _showing_secret(webhook, settings, response)


@router.post("/{webhook_id}/enable")
def enable_webhook(webhook_id: WebhookId, writer: CanWrite, sessions: Sessions, request: Request) -> WebhookResource:
    """Send to a webhook again that was disabled, because its address had answered 410. Repeating is harmless.

    It is told of what happens from now on; what it missed is sent if asked for (`redeliver`).
    """
    with sessions.begin() as session:
        webhook = webhooks.enable_webhook(session, webhook_id, writer.sees)
        if webhook is None:
            raise not_found("webhook", webhook_id)
        note(session, request, "webhook.enabled", webhook_id)
        return WebhookResource.of(webhook)


@router.get("/{webhook_id}/deliveries")
def list_webhook_deliveries(
    webhook_id: WebhookId, query: Annotated[PageQuery, Query()], writer: CanWrite, readings: Readings
) -> DeliveryPage:
    """What was sent to a webhook, or waits to be, newest first. Kept for 30 days."""
    with readings.begin() as session:
        _find(session, webhook_id, writer)
        found, more = outbox.list_deliveries(session, webhook_id, query.limit, decode_cursor(query.cursor))
    return DeliveryPage(
        data=[DeliveryResource.of(one) for one in found], has_more=more, next_cursor=next_cursor(found, more)
    )


@router.post("/{webhook_id}/deliveries/{delivery_id}/redeliver", status_code=202)
def redeliver(
    webhook_id: WebhookId, delivery_id: DeliveryId, writer: CanWrite, sessions: Sessions, request: Request
) -> DeliveryResource:
    """Send a message again, under the same id. One that waits for its next attempt is sent at once."""
    with sessions.begin() as session:
        webhook = _find(session, webhook_id, writer)
        if webhook.disabled_at is not None:
            raise Problem("WEBHOOK_DISABLED", f"{webhook.disabled_reason}; enable the webhook first")
        delivery = outbox.redeliver(session, webhook_id, delivery_id, utcnow())
        if delivery is None:
            raise not_found("delivery", delivery_id)
        note(session, request, "webhook.redelivered", delivery_id)
    return DeliveryResource.of(delivery)


def _find(session: Session, webhook_id: str, principal: Principal) -> Webhook:
    webhook = webhooks.get_webhook(session, webhook_id, principal.sees)
    if webhook is None:
        raise not_found("webhook", webhook_id)
    return webhook


def _showing_secret(webhook: Webhook, settings: Settings, response: Response) -> WebhookWithSecret:
    response.headers["Cache-Control"] = "no-store"
    return WebhookWithSecret.showing(webhook, webhooks.signing_secrets(webhook, server_secret(settings), utcnow())[0])
