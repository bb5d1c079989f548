"""`Client.webhooks`: addresses that the service tells of what happens, by signed messages."""

from collections.abc import Iterator, Sequence
from typing import Any

from client.transport import Transport


class Webhooks:
    """Webhooks: yours, or everyone's for an administrator. They are dictionaries, as the service answers them."""

    def __init__(self, transport: Transport):
        self._transport = transport

    def create(self, url: str, events: Sequence[str] = ()) -> dict[str, Any]:
        """Have `url` told of `events`, as `job.succeeded`; none means all.

        Keep the answer's `secret`, by which messages are verified (Standard Webhooks): it is not shown again. Raises
        `ValidationFailed` for an address that the service would not reach.
        """
        return self._transport.json("POST", "/v1/webhooks", json={"url": url, "events": list(events)})

    def get(self, webhook_id: str) -> dict[str, Any]:
        return self._transport.json("GET", f"/v1/webhooks/{webhook_id}")

    def list(self, limit: int | None = None) -> Iterator[dict[str, Any]]:
        """Webhooks, newest first."""
        return self._transport.pages("/v1/webhooks", limit)

    def delete(self, webhook_id: str) -> None:
        self._transport.request("DELETE", f"/v1/webhooks/{webhook_id}")

    def rotate(self, webhook_id: str) -> dict[str, Any]:
        """Take a new secret, which the answer shows this once. The old one signs as well for another day."""
        return self._transport.json("POST", f"/v1/webhooks/{webhook_id}/rotate")

    def enable(self, webhook_id: str) -> dict[str, Any]:
        """Have an address told again that was disabled, because it had answered 410."""
        return self._transport.json("POST", f"/v1/webhooks/{webhook_id}/enable")

    def deliveries(self, webhook_id: str, limit: int | None = None) -> Iterator[dict[str, Any]]:
        """What was sent to a webhook or waits to be, newest first."""
        return self._transport.pages(f"/v1/webhooks/{webhook_id}/deliveries", limit)

    def redeliver(self, webhook_id: str, delivery_id: str) -> dict[str, Any]:
        """Send a message again, under the same id. Raises `WebhookDisabled`."""
        return self._transport.json("POST", f"/v1/webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver")
