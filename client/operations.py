"""`Client.operations`: workers, queues and who did what, for the service's administrators."""

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from client.transport import Transport


class Operations:
    """Raises `Forbidden` for everyone but administrators."""

    def __init__(self, transport: Transport):
        self._transport = transport

    def workers(self) -> list[dict[str, Any]]:
        """The workers that have been heard of in the last days: what they are, and what they do."""
        return self._transport.json("GET", "/v1/workers")["data"]

    def drain(self, worker_id: str) -> dict[str, Any]:
        """Have a worker finish the job that it has, and take no other."""
        return self._transport.json("POST", f"/v1/workers/{quote(worker_id)}/drain")

    def undrain(self, worker_id: str) -> dict[str, Any]:
        """Have a worker take jobs again."""
        return self._transport.json("POST", f"/v1/workers/{quote(worker_id)}/undrain")

    def queues(self) -> list[dict[str, Any]]:
        """The queues: how many jobs wait, and who takes them."""
        return self._transport.json("GET", "/v1/queues")["data"]

    def pause_queue(self, name: str) -> dict[str, Any]:
        """Have no job taken from a queue. What runs goes on."""
        return self._transport.json("POST", f"/v1/queues/{quote(name, safe='')}/pause")

    def resume_queue(self, name: str) -> dict[str, Any]:
        """Have jobs taken from a queue again."""
        return self._transport.json("POST", f"/v1/queues/{quote(name, safe='')}/resume")

    def limits(self, owner: str) -> dict[str, Any]:
        """What an owner may use: limits of their `own`, and those `in_force`. Raises `NotFound`."""
        return self._transport.json("GET", f"/v1/owners/{quote(owner, safe='')}/limits")

    def set_limits(self, owner: str, own: Mapping[str, int | None]) -> dict[str, Any]:
        """Give an owner limits of their own, all at once: what is left out becomes the service's again."""
        return self._transport.json("PUT", f"/v1/owners/{quote(owner, safe='')}/limits", json=dict(own))

    def audit(
        self, limit: int | None = None, owner: str | None = None, action: str | None = None
    ) -> Iterator[dict[str, Any]]:
        """Who did what, newest first."""
        return self._transport.pages("/v1/audit", limit, {"owner": owner, "action": action})
