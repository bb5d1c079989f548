"""HTTP to the service: one place that turns every failure into a `ClientError`."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import httpx2

from client.errors import ClientError, ServiceUnreachable, from_problem

DEFAULT_URL = "http://127.0.0.1:8000"
LOOPBACK = {"127.0.0.1", "localhost", "::1", "[::1]"}


class Transport:
    def __init__(self, base_url: str | None = None, timeout: float = 30.0):
        self.base_url = (base_url or os.environ.get("DREAM_URL") or DEFAULT_URL).rstrip("/")
        try:
            url = httpx2.URL(self.base_url)
        except httpx2.InvalidURL as error:
            raise ClientError(
                f"{self.base_url!r} is not an address: {error}", advice=f"use one like {DEFAULT_URL}"
            ) from None
        if url.scheme not in {"http", "https"} or not url.host:
            raise ClientError(f"{self.base_url!r} is not an address", advice=f"use one like {DEFAULT_URL}")
        self._http = httpx2.Client(
            base_url=self.base_url,
            timeout=timeout,
            headers={"User-Agent": f"dream-distillation/{version('dream-distillation')}", "Accept": "application/json"},
            trust_env=url.host not in LOOPBACK,  # a proxy cannot reach this machine's own service
        )

    def close(self) -> None:
        self._http.close()

    def json(self, method: str, path: str, **arguments: Any) -> Any:
        """The decoded body of a successful answer."""
        return self.decode(self.request(method, path, **arguments))

    def decode(self, response: httpx2.Response) -> Any:
        try:
            return response.json()
        except ValueError:
            message = f"{self.base_url} answered with something that is not JSON"
            raise ClientError(message, advice="is this the address of a dream service?") from None

    def request(self, method: str, path: str, **arguments: Any) -> httpx2.Response:
        with self._reaching():
            response = self._http.request(method, path, **arguments)
        self._check(response)
        return response

    @contextmanager
    def stream(self, path: str, headers: dict[str, str]) -> Iterator[httpx2.Response]:
        """A GET whose body is read piece by piece. Bytes come as they are stored: no content coding."""
        with (
            self._reaching(),
            self._http.stream("GET", path, headers={"Accept-Encoding": "identity", **headers}) as response,
        ):
            if response.is_error:
                response.read()
            self._check(response)
            yield response

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except httpx2.TimeoutException:
            raise ServiceUnreachable(
                f"{self.base_url} did not answer in time", advice="try again, or look at the service's log"
            ) from None
        except httpx2.TransportError as error:
            raise ServiceUnreachable(
                f"no dream service answers at {self.base_url} ({error})",
                advice="start one with `dream serve`, or name its address with --url or DREAM_URL",
            ) from None

    def _check(self, response: httpx2.Response) -> None:
        if not response.is_error:
            return
        try:
            problem = response.json()
        except ValueError:
            problem = {}
        raise from_problem(response.status_code, problem if isinstance(problem, dict) else {})
