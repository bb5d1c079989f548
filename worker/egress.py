"""An HTTP POST to an address that a user has chosen, which can neither lead us astray nor hold us up.

The name is looked up once; every address it has must be public; and the connection goes to one of those very
addresses, so that a second answer of the name server never matters. TLS and the Host header keep the name. Nothing is
followed, and of the answer nothing but the status is read.
"""

import socket
import ssl
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cache
from threading import Thread
from typing import Any

import httpcore2
import httpx2

from jobs.egress import NotAllowed, check_url, is_public

LIMIT_S = 15.0

Resolve = Callable[[str, int], Sequence[str]]
"""The IP addresses of a host; may raise OSError."""


class Unreachable(Exception):
    """No answer has come. The message is for the owner of the address, and tells nothing of our network."""


def resolve_host(host: str, port: int) -> Sequence[str]:
    """What the system says."""
    found = socket.getaddrinfo(host.encode("ascii"), port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


def post(
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    *,
    allow_private: bool = False,
    limit_s: float = LIMIT_S,
    resolve: Resolve = resolve_host,
    tls: ssl.SSLContext | None = None,
) -> int:
    """Send `body`, and return the status of the answer, whichever it is; after `limit_s` in all at the latest.

    Raises NotAllowed if the address is not one to send to, and Unreachable if no answer came.
    """
    checked = check_url(url, allow_private=allow_private)
    deadline = _Deadline.after(limit_s)
    try:
        addresses = _resolve(checked, resolve, deadline)
        if not allow_private and not all(is_public(address) for address in addresses):
            raise NotAllowed("the host has an address that is not of the public internet")
        return _exchange(checked, body, headers, _Pinned(addresses, deadline), tls)
    except (httpcore2.TimeoutException, TimeoutError):
        raise Unreachable(f"no answer within {limit_s:g} seconds") from None
    except httpcore2.ConnectError as error:
        raise Unreachable(_connect_fault(error.args[0])) from None
    except (httpcore2.NetworkError, httpcore2.ProtocolError):
        raise Unreachable("the connection broke, or what came was not HTTP") from None


def _exchange(
    url: httpx2.URL, body: bytes, headers: Mapping[str, str], network: "_Pinned", tls: ssl.SSLContext | None
) -> int:
    target = httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
    sent = [("Host", url.netloc.decode("ascii")), ("Connection", "close"), *headers.items()]
    with (
        httpcore2.ConnectionPool(ssl_context=tls or _system_tls(), network_backend=network) as pool,
        pool.stream("POST", target, headers=sent, content=body) as response,
    ):
        return response.status


def _resolve(url: httpx2.URL, resolve: Resolve, deadline: "_Deadline") -> Sequence[str]:
    """In a thread of its own: looking up a name knows no time limit."""
    answer: Future[Sequence[str]] = Future()
    port = url.port or (443 if url.scheme == "https" else 80)

    def run() -> None:
        try:
            answer.set_result(resolve(url.raw_host.decode("ascii"), port))
        except OSError as error:
            answer.set_exception(error)

    Thread(target=run, name="resolve", daemon=True).start()
    try:
        addresses = answer.result(deadline.left())
    except TimeoutError:
        raise
    except OSError:
        raise Unreachable("the host name is not known") from None
    if not addresses:
        raise Unreachable("the host name has no address")
    return addresses


def _connect_fault(cause: OSError) -> str:
    match cause:
        case ssl.SSLCertVerificationError():
            return f"the certificate was not accepted: {cause.verify_message}"
        case ssl.SSLError():
            return "TLS could not be agreed on"
        case _:
            return "the connection was refused or could not be made"


@cache
def _system_tls() -> ssl.SSLContext:
    """The certificates that this machine trusts, read once."""
    return httpcore2.default_ssl_context()


@dataclass(frozen=True, slots=True)
class _Deadline:
    """A moment by which all is over: a server that sends a byte now and then would keep any other limit away."""

    at: float

    @classmethod
    def after(cls, seconds: float) -> "_Deadline":
        return cls(time.monotonic() + seconds)

    def left(self) -> float:
        """Seconds, more than none; raises TimeoutError otherwise."""
        left = self.at - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


class _Pinned(httpcore2.NetworkBackend):
    """Connects to the given addresses, whatever the name; to the next one where the one before does not answer."""

    def __init__(self, addresses: Sequence[str], deadline: _Deadline) -> None:
        self._addresses, self._deadline = addresses, deadline
        self._network = httpcore2.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        """The first connection that can be made; each attempt has its share of the time left."""
        *others, last = self._addresses
        for tried, address in enumerate(others):
            share = self._deadline.left() / (len(self._addresses) - tried)
            try:
                return self._connect(address, port, share, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
                continue
        return self._connect(last, port, self._deadline.left(), socket_options)

    def _connect(
        self, address: str, port: int, timeout: float, options: Iterable[httpcore2.SOCKET_OPTION] | None
    ) -> httpcore2.NetworkStream:
        stream = self._network.connect_tcp(address, port, timeout, socket_options=options)
        return _Bounded(stream, self._deadline)


class _Bounded(httpcore2.NetworkStream):
    """A stream on which nothing waits beyond the deadline."""

    def __init__(self, stream: httpcore2.NetworkStream, deadline: _Deadline) -> None:
        self._stream, self._deadline = stream, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._deadline.left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._deadline.left())

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        return _Bounded(self._stream.start_tls(ssl_context, server_hostname, self._deadline.left()), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
