"""How many requests a key may send, and how many wrong keys an address. Counted by each process for itself."""

import ipaddress
import math
import time

from fastapi import Request
from limits import RateLimitItem, parse
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import FixedWindowRateLimiter
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import Problem
from jobs.settings import Settings


class RateLimits:
    """What has been sent in the present window of time."""

    def __init__(self, settings: Settings) -> None:
        self._requests, self._wrong_keys = parse(settings.rate_limit), parse(settings.failed_key_limit)
        # a fixed window, because there Retry-After can say exactly when requests are taken again
        self._counters = FixedWindowRateLimiter(MemoryStorage())

    @property
    def requests(self) -> RateLimitItem:
        """How many a key may send."""
        return self._requests

    async def left(self, key_id: str) -> int:
        """How many requests the key may still send in this window."""
        return (await self._counters.get_window_stats(self._requests, key_id)).remaining

    async def require_request(self, key_id: str) -> None:
        """Raise a Problem if the key has sent as many requests as it may."""
        await self._require(self._requests, key_id, "requests with this key")

    async def count_request(self, key_id: str) -> None:
        """The key has sent one."""
        await self._counters.hit(self._requests, key_id)

    async def require_attempt(self, request: Request) -> None:
        """Raise a Problem if the address has sent as many wrong keys as it may."""
        await self._require(self._wrong_keys, _address(request), "wrong keys from your address")

    async def count_wrong_key(self, request: Request) -> None:
        """The address has sent one."""
        await self._counters.hit(self._wrong_keys, _address(request))

    async def _require(self, limit: RateLimitItem, who: str, what: str) -> None:
        if await self._counters.test(limit, who):
            return
        reset = (await self._counters.get_window_stats(limit, who)).reset_time
        wait = max(1, math.ceil(reset - time.time()))
        message = f"too many {what}: {limit}; go on in {wait} s"
        raise Problem("RATE_LIMITED", message, headers={"Retry-After": str(wait)}, retry_after_s=wait)


def _address(request: Request) -> str:
    """Where the request comes from. Whoever has one IPv6 address has all that share its first half."""
    host = request.client.host if request.client else ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    return str(ipaddress.ip_network((address, 64), strict=False)) if address.version == 6 else host


class CountRequests:
    """Counts a key's requests once they are answered: a poll that finds nothing new is free."""

    def __init__(self, app: ASGIApp, limits: RateLimits) -> None:
        self._app, self._limits = app, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""

        async def send_counted(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] != 304:
                principal = scope.get("state", {}).get("principal")  # left there by api.security
                if principal and principal.key_id:
                    await self._limits.count_request(principal.key_id)
            await send(message)

        await self._app(scope, receive, send_counted)
