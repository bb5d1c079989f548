"""What surrounds every request: an id and a log line, and a guard against web pages of other origins."""

import re
import time
from collections.abc import Iterable

import structlog
import uuid_utils
from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import KINDS, Problem, problem_response
from jobs.metrics import HTTP_SECONDS
from jobs.parts import PART_BYTES

log = structlog.get_logger()

MAX_BODY_BYTES = 1 << 20
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
HEALTH = ("/livez", "/readyz")
_WRITING_METHODS = ("POST", "PUT", "PATCH", "DELETE")
_UPLOAD = re.compile(r"/v1/datasets/[^/]+/parts/[^/]+")
_REQUEST_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
}


class RequestContext:
    """Gives the request an id (its own, if it brings a harmless one), and logs it when it is done."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else f"req_{uuid_utils.uuid7().hex}"
        scope.setdefault("state", {})["request_id"] = request_id
        started, status = time.monotonic(), 500

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                for name, value in _SECURITY_HEADERS.items():
                    headers.setdefault(name, value)  # the page has a policy of its own
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, send_with_headers)
            finally:
                seconds = round(time.monotonic() - started, 4)
                route = getattr(scope.get("route"), "path", "none")
                HTTP_SECONDS.labels(route, scope["method"], status).observe(seconds)
                if scope["path"] not in HEALTH:
                    path = scope["path"]
                    log.info("http.request", method=scope["method"], path=path, status=status, seconds=seconds)


def _body_of(scope: Scope) -> tuple[str, int]:
    """The media type that a body must have, and how many bytes at most. Parts of uploads are the only large ones."""
    if _UPLOAD.fullmatch(scope["path"]):
        return "application/octet-stream", PART_BYTES
    return "application/json", MAX_BODY_BYTES


def _too_large(most: int) -> Problem:
    return Problem("PAYLOAD_TOO_LARGE", f"the body of this request may have {most:,} bytes at most")


def _limited(receive: Receive, most: int) -> Receive:
    """Counts what arrives: a body that comes in chunks does not say how long it is."""
    received = 0

    async def receive_limited() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > most:
            raise _too_large(most)
        return message

    return receive_limited


class Guard:
    """Refuses what a browser sends for someone else's web page.

    A page can make a browser send requests to a service on the user's own machine. A foreign name that has been
    pointed here shows in Host; a foreign page shows in Origin; and what a page may send without asking first is never
    application/json.
    """

    def __init__(self, app: ASGIApp, allowed_hosts: Iterable[str]) -> None:
        self._app = app
        self._hosts = frozenset(host.lower() for host in (*LOOPBACK, *allowed_hosts))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif problem := self._objection(scope):
            await problem_response(Request(scope), problem)(scope, receive, send)
        else:
            await self._app(scope, _limited(receive, _body_of(scope)[1]), send)

    def _objection(self, scope: Scope) -> Problem | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if scope["path"] not in HEALTH and not self._is_ours(host):
            return Problem("HOST_NOT_ALLOWED", f"{host!r} is not a name of this service; see DREAM_ALLOWED_HOSTS")
        if scope["method"] not in _WRITING_METHODS:
            return None
        origin, site = headers.get("origin"), headers.get("sec-fetch-site", "none")
        if site not in ("none", "same-origin") or (origin is not None and origin.partition("://")[2] != host):
            return Problem("FORBIDDEN", KINDS["FORBIDDEN"].meaning)
        media_type, most = _body_of(scope)
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > most:
            return _too_large(most)
        has_body = length != "0" or "transfer-encoding" in headers
        if has_body and headers.get("content-type", "").partition(";")[0].strip().lower() != media_type:
            return Problem("UNSUPPORTED_MEDIA", f"send the body as {media_type}")
        return None

    def _is_ours(self, host: str) -> bool:
        name = re.sub(r":\d*$", "", host.lower())
        return "*" in self._hosts or name in self._hosts
