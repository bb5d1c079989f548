"""Webhooks and what is sent to them."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from api.schemas.base import Input, Output, Text
from jobs.outbox import PENDING, EventType
from jobs.tables import Webhook, WebhookDelivery


class WebhookCreate(Input):
    """An address to be told."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"url": "https://hooks.example.org/dream", "events": ["job.succeeded"]}]}
    )

    url: Annotated[Text, Field(max_length=2048, examples=["https://hooks.example.org/dream"])]
    """https, port 443 or 8443, a host of the public internet."""
    events: Annotated[list[EventType], Field(max_length=50)] = Field(default_factory=list)
    """What to be told of; none means everything, what may be added later included."""


class WebhookResource(Output):
    """An address that wants to be told."""

    id: str
    object: Literal["webhook"]
    owner: str
    url: str
    events: list[str]
    created_at: datetime
    previous_secret_until: datetime | None
    """After a rotation: until then every message carries a signature with the secret before, too."""
    disabled_at: datetime | None
    disabled_reason: str | None
    """An address that answers 410 Gone is told nothing any more. Delete the webhook, and create another."""

    @classmethod
    def of(cls, webhook: Webhook) -> "WebhookResource":
        """The public side of a row."""
        return cls(
            id=webhook.id,
            object="webhook",
            owner=webhook.owner,
            url=webhook.url,
            events=webhook.events,
            created_at=webhook.created_at,
            previous_secret_until=webhook.previous_until,
            disabled_at=webhook.disabled_at,
            disabled_reason=webhook.disabled_reason,
        )


class WebhookWithSecret(WebhookResource):
    """A webhook with what its messages are signed with."""

    secret: str
    """`whsec_…`, for any library of Standard Webhooks. Shown this once."""

    @classmethod
    def showing(cls, webhook: Webhook, secret: str) -> "WebhookWithSecret":
        """The public side of a row, and its newest secret."""
        return cls(**WebhookResource.of(webhook).model_dump(), secret=secret)


class WebhookPage(Output):
    """Webhooks from the newest on."""

    data: list[WebhookResource]
    has_more: bool
    next_cursor: str | None


class Subject(Output):
    """What an event is of."""

    id: str


class WebhookEvent(Output):
    """The body of a message. Ask for the job or the dataset to learn more."""

    id: str
    """Also in the header `webhook-id`. A message may arrive more than once, always under the same id."""
    type: str
    """job.started (whenever a worker takes it up), job.paused, job.succeeded, job.failed, job.cancelled, dataset.ready,
    dataset.rejected. May grow."""
    created_at: datetime
    data: Subject


class DeliveryResource(Output):
    """A message to a webhook."""

    id: str
    object: Literal["webhook.delivery"]
    event: WebhookEvent
    status: Literal["pending", "delivered", "failed"]
    attempts: int
    next_attempt_at: datetime | None
    """Of a pending one."""
    response_status: int | None
    """Of the last answer. 2xx means delivered."""
    error: str | None
    """What was wrong with the last attempt."""
    created_at: datetime
    finished_at: datetime | None

    @classmethod
    def of(cls, delivery: WebhookDelivery) -> "DeliveryResource":
        """The public side of a row."""
        return cls.model_validate(
            {
                "id": delivery.id,
                "object": "webhook.delivery",
                "event": delivery.payload,
                "status": delivery.status,
                "attempts": delivery.attempts,
                "next_attempt_at": delivery.due_at if delivery.status == PENDING else None,
                "response_status": delivery.response_status,
                "error": delivery.error,
                "created_at": delivery.created_at,
                "finished_at": delivery.finished_at,
            }
        )


class DeliveryPage(Output):
    """Messages to a webhook from the newest on."""

    data: list[DeliveryResource]
    has_more: bool
    next_cursor: str | None
