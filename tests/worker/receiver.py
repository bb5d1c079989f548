"""A receiver of webhooks: a real HTTP or HTTPS server on the loopback that answers as it is told."""

import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

Answer = int | Callable[["Handler"], None]


@dataclass(frozen=True)
class Received:
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    port: int
    answers: list[Answer] = field(default_factory=list)
    """What to answer, one after the other: a status, or a function that writes. Then 204 for ever."""
    received: list[Received] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)
    """What clients called the server in their TLS handshake."""
    closing: Event = field(default_factory=Event)

    def url(self, path: str = "/hook", scheme: str = "http", host: str = "127.0.0.1") -> str:
        return f"{scheme}://{host}:{self.port}{path}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    receiver: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.receiver.received.append(Received(self.path, headers, body))
        answer = self.receiver.answers.pop(0) if self.receiver.answers else 204
        if isinstance(answer, int):
            self.answer(answer)
        else:
            self.close_connection = True
            with suppress(OSError):  # the sender has hung up
                answer(self)

    def answer(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": "0"}).items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A client that does not trust our certificate is no error here."""


@contextmanager
def receiving(*answers: Answer, tls: ssl.SSLContext | None = None, address: str = "127.0.0.1") -> Iterator[Receiver]:
    server = _Server((address, 0), Handler)
    receiver = Receiver(server.server_port, list(answers))
    server.RequestHandlerClass = type("Handler", (Handler,), {"receiver": receiver})
    if tls:
        tls.sni_callback = lambda _socket, name, _context: receiver.names.append(name)
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield receiver
    finally:
        receiver.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


def redirect(handler: Handler) -> None:
    handler.answer(307, Location="/elsewhere")


def hang(handler: Handler) -> None:
    handler.receiver.closing.wait(30)


def drip(handler: Handler) -> None:
    """The beginning of an answer, and then a header that never ends."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while not handler.receiver.closing.wait(0.05):
        handler.wfile.write(b".")


def endless_header(handler: Handler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    while not handler.receiver.closing.is_set():
        handler.wfile.write(b"X-More: " + b"." * 4096 + b"\r\n")


def endless_body(handler: Handler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    while not handler.receiver.closing.is_set():
        handler.wfile.write(b"." * 65536)
        time.sleep(0.001)


def gibberish(handler: Handler) -> None:
    handler.wfile.write(b"SSH-2.0-OpenSSH_9.9\r\n\r\n")
