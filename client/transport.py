"""HTTP to the service: the one place that adds the key, sends again what may help, and makes failures `ClientError`."""

import itertools
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import httpx2

from client.errors import ApiError, ClientError, ServiceUnreachable, from_problem

DEFAULT_URL = "http://127.0.0.1:8000"
LOOPBACK = {"127.0.0.1", "localhost", "::1", "[::1]"}
IDEMPOTENCY_KEY = "Idempotency-Key"
READING = {"GET", "HEAD"}
REPEATABLE = READING | {"PUT"}
"""What may be sent twice by its nature; a POST may if it carries an Idempotency-Key."""
PATIENCE_S = 60.0
LONGEST_PAUSE_S = 8.0
LARGEST_PAGE = 100
WRONG_ADDRESS = "try again; if it stays so, tell whoever runs the service: DREAM_S3_PUBLIC_ENDPOINT_URL may be wrong"

OnWait = Callable[[float, ClientError], None]
"""Called with the seconds until a request is sent again, and with what became of it."""


class Transport:
    """Requests to `base_url`, with a key that no repr shows.

    A service that is busy (429 or 503, with Retry-After) or breaks off is asked again, for `patience` seconds at most.
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        timeout: float = 30.0,
        patience: float = PATIENCE_S,
        on_wait: OnWait | None = None,
    ):
        self.base_url = (base_url or os.environ.get("DREAM_URL") or DEFAULT_URL).rstrip("/")
        self.patience = patience
        self.on_wait = on_wait
        try:
            url = httpx2.URL(self.base_url)
        except httpx2.InvalidURL as error:
            raise ClientError(
                f"{self.base_url!r} is not an address: {error}", advice=f"use one like {DEFAULT_URL}"
            ) from None
        if url.userinfo:
            raise ClientError(
                "the address holds a password", advice="leave it out; DREAM_API_KEY is the place for a key"
            )
        if url.scheme not in {"http", "https"} or not url.host:
            raise ClientError(f"{self.base_url!r} is not an address", advice=f"use one like {DEFAULT_URL}")
        self._http = httpx2.Client(
            base_url=self.base_url,
            timeout=timeout,
            headers=_headers((os.environ.get("DREAM_API_KEY") if api_key is None else api_key) or ""),
            trust_env=url.host not in LOOPBACK,  # a proxy cannot reach this machine's own service
        )
        self._keyless = httpx2.Client(timeout=timeout, headers=_headers(""), trust_env=url.host not in LOOPBACK)

    def close(self) -> None:
        self._http.close()
        self._keyless.close()

    def json(self, method: str, path: str, **arguments: Any) -> Any:
        """The decoded body of a successful answer."""
        return self.decode(self.request(method, path, **arguments))

    def pages(
        self, path: str, limit: int | None = None, query: Mapping[str, Any] = {}, entries: str = "data"
    ) -> Iterator[dict[str, Any]]:
        """The `entries` of a list, `limit` at most, page by page. What is None in the query is left out."""
        remaining, cursor = limit, None
        while remaining is None or remaining > 0:
            given = {"limit": min(remaining or LARGEST_PAGE, LARGEST_PAGE), "cursor": cursor, **query}
            page = self.json("GET", path, params={name: value for name, value in given.items() if value is not None})
            yield from page[entries]
            remaining = None if remaining is None else remaining - len(page[entries])
            cursor = page.get("next_cursor")
            if not cursor:
                return

    def decode(self, response: httpx2.Response) -> Any:
        try:
            return response.json()
        except ValueError:
            message = f"{self.base_url} answered with something that is not JSON"
            raise ClientError(message, advice="is this the address of a dream service?") from None

    def request(self, method: str, path: str, **arguments: Any) -> httpx2.Response:
        return self._send(self._http.build_request(method, path, **arguments), self.patience)

    @contextmanager
    def stream(
        self, path: str, headers: dict[str, str], patience: float | None = None, **arguments: Any
    ) -> Iterator[httpx2.Response]:
        """A GET whose body is read piece by piece. Bytes come as they are stored: no content coding.

        Where the service says that they are elsewhere, they are fetched there, without the key.
        """
        headers = {"Accept-Encoding": "identity", **headers}
        request = self._http.build_request("GET", path, headers=headers, **arguments)
        response = self._send(request, self.patience if patience is None else patience, stream=True)
        if response.status_code == httpx2.codes.TEMPORARY_REDIRECT:
            response.close()
            response = self._fetch_elsewhere(response.headers.get("Location", ""), headers)
        try:
            with self._reaching(str(response.url.copy_with(query=None))):
                yield response
        finally:
            response.close()

    def _fetch_elsewhere(self, address: str, headers: dict[str, str]) -> httpx2.Response:
        """A file by the link that the service gave. If-Range would name the service's version, which means nothing
        there; a link is to one version alone.
        """
        given = {name: value for name, value in headers.items() if name.lower() != "if-range"}
        try:
            url = httpx2.URL(address)
        except httpx2.InvalidURL:
            url = httpx2.URL()
        if url.scheme not in {"http", "https"} or not url.host:
            raise ClientError(f"{self.base_url} sends us to {address!r}, which is no address", advice=WRONG_ADDRESS)
        where = str(url.copy_with(query=None))  # what comes behind is as good as a key
        with self._reaching(where):
            response = self._keyless.send(self._keyless.build_request("GET", url, headers=given), stream=True)
            if response.is_error:
                status = response.status_code
                response.close()
                if status == httpx2.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                    raise from_problem(status, {}, None)
                raise ServiceUnreachable(f"{where} answered {status}", advice=WRONG_ADDRESS, sent=True)
        return response

    def _send(self, request: httpx2.Request, patience: float, stream: bool = False) -> httpx2.Response:
        """The answer to a request that may be sent more than once."""
        give_up_at = time.monotonic() + patience
        repeatable = request.method in REPEATABLE or IDEMPOTENCY_KEY in request.headers
        lost = False  # the service may have acted on a request whose answer is lost: only another answer tells
        for number in itertools.count():
            try:
                with self._reaching():
                    response = self._http.send(request, stream=stream)
                    _check(response)
                return response
            except (ApiError, ServiceUnreachable) as error:
                lost = (isinstance(error, ServiceUnreachable) and error.sent) or (
                    lost and request.method not in READING
                )
                refused = isinstance(error, ApiError) and error.status == httpx2.codes.TOO_MANY_REQUESTS
                pause = _pause(error, number, lost) if repeatable or refused else None
                if pause is None or time.monotonic() + pause > give_up_at:
                    if lost and request.method == "POST":
                        error.advice = "it may have been done all the same: look (`dream ls`) before you try again"
                    raise
                if self.on_wait:
                    self.on_wait(pause, error)
            time.sleep(pause)
        raise AssertionError("the loop ends by itself")

    @contextmanager
    def _reaching(self, where: str | None = None) -> Iterator[None]:
        where = where or self.base_url
        try:
            yield
        except httpx2.TimeoutException as error:
            raise ServiceUnreachable(
                f"{where} did not answer in time",
                advice="try again, or look at the service's log",
                sent=not isinstance(error, httpx2.ConnectTimeout),
            ) from None
        except httpx2.ConnectError as error:
            raise ServiceUnreachable(
                f"{'no dream service' if where == self.base_url else 'nothing'} answers at {where} ({error})",
                advice="start one with `dream serve`, or name its address with --url or DREAM_URL"
                if where == self.base_url
                else WRONG_ADDRESS,
            ) from None
        except httpx2.TransportError as error:
            raise ServiceUnreachable(
                f"the connection to {where} broke off ({error})",
                advice="try again; `dream doctor` shows how the service is",
                sent=True,
            ) from None


def _headers(key: str) -> dict[str, str]:
    headers = {"User-Agent": f"dream-distillation/{version('dream-distillation')}", "Accept": "application/json"}
    if not key:
        return headers
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ClientError("the API key has letters that no key has", advice="look at DREAM_API_KEY: is it all of it?")
    return headers | {"Authorization": f"Bearer {key}"}


def _check(response: httpx2.Response) -> None:
    if not response.is_error:
        return
    response.read()
    try:
        problem = response.json()
    except ValueError:
        problem = {}
    problem = problem if isinstance(problem, dict) else {}
    raise from_problem(response.status_code, problem, response.headers.get("Retry-After"))


def _pause(error: ApiError | ServiceUnreachable, number: int, lost: bool) -> float | None:
    """Seconds until it is worth another try, a little random so that many clients do not come in step; None: never."""
    if isinstance(error, ApiError):
        if error.status not in {429, 503} or error.retry_after_s is None:
            return None
        return error.retry_after_s * random.uniform(1, 1.1) + random.uniform(0, 0.1)
    return min(0.5 * 2**number, LONGEST_PAUSE_S) * random.uniform(0.7, 1.3) if lost else None
