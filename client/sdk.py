"""The Python SDK: `Client().jobs.create(...)`, `.wait(...)`, `.download(...)`."""

from typing import Any, Self
from urllib.parse import quote

from client.datasets import Datasets
from client.jobs import Jobs
from client.keys import Keys
from client.operations import Operations
from client.transport import PATIENCE_S, OnWait, Transport
from client.webhooks import Webhooks


class Client:
    """A dream service at `base_url` (default: the environment's DREAM_URL, else http://127.0.0.1:8000).

    `api_key` (default: the environment's DREAM_API_KEY) is sent with every request, and shown nowhere. `timeout` is in
    seconds, per request. A service that is busy is asked again for `patience` seconds at most, where that can do no
    harm; `on_wait` is told. Close it after use, or use it in a `with`.
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        timeout: float = 30.0,
        patience: float = PATIENCE_S,
        on_wait: OnWait | None = None,
    ):
        self._transport = Transport(base_url, api_key, timeout, patience, on_wait)
        self.base_url = self._transport.base_url
        self.jobs = Jobs(self._transport)
        self.datasets = Datasets(self._transport)
        self.webhooks = Webhooks(self._transport)
        self.keys = Keys(self._transport)
        self.operations = Operations(self._transport)

    def methods(self) -> list[dict[str, Any]]:
        """The methods that the service knows: name, summary, params_schema, presets, ..."""
        return self._transport.json("GET", "/v1/methods")["data"]

    def method(self, name: str) -> dict[str, Any]:
        """One of the methods. Raises `NotFound`, which lists the names, where there is none of that name."""
        return self._transport.json("GET", f"/v1/methods/{quote(name, safe='')}")

    def leaderboard(self, dataset: str | None = None, ipc: int | None = None) -> list[dict[str, Any]]:
        """The best jobs of each kind: dataset, images per class, and how they were judged."""
        query = {name: value for name, value in (("dataset", dataset), ("ipc", ipc)) if value is not None}
        return self._transport.json("GET", "/v1/leaderboard", params=query)["data"]

    def usage(self) -> dict[str, Any]:
        """What the key's owner has used in the last 30 days."""
        return self._transport.json("GET", "/v1/usage")

    def limits(self) -> dict[str, Any]:
        """What the key's owner may use of everything, and does use."""
        return self._transport.json("GET", "/v1/limits")

    def health(self) -> dict[str, Any]:
        """The answer of /readyz. Raises `ApiError` where the service runs but is not ready."""
        return self._transport.json("GET", "/readyz")

    def close(self) -> None:
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
