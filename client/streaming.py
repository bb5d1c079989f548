"""A job's events as they happen: server-sent events, gone on with where a connection broke."""

import json
import random
import time
from collections.abc import Iterator, Sequence

import httpx2

from client.errors import ApiError, ClientError, ServiceUnreachable
from client.resources import Event
from client.transport import PATIENCE_S, Transport

MEDIA_TYPE = "text/event-stream"
PING_S = 15.0
"""How often at least the service says something, if only that it lives."""
SILENCE_S = 3 * PING_S
END = "end"
"""The last message of a job that is over."""


def follow(transport: Transport, job_id: str, after: int, types: Sequence[str], until: float) -> Iterator[Event]:
    """Events behind the one numbered `after`, of these types or of all, until the job is over.

    Ends earlier, though up to PING_S late, once `until` on the monotonic clock has come. Raises `ServiceUnreachable`
    for a service that is away for a minute, and `ApiError` where it refuses, as it does too many streams at a time.
    """
    answered = time.monotonic()
    while time.monotonic() < until:
        try:
            for message in _messages(transport, job_id, after, types, until):
                answered = time.monotonic()
                if message.event == END:
                    return
                event = _event(message)
                after = event.seq
                yield event
        except (ServiceUnreachable, ApiError) as error:
            refused = isinstance(error, ApiError) and error.status < 500
            if refused or time.monotonic() - answered > PATIENCE_S:
                raise
        time.sleep(random.uniform(0.5, 1.5))


def _messages(
    transport: Transport, job_id: str, after: int, types: Sequence[str], until: float
) -> Iterator[httpx2.ServerSentEvent]:
    """What one connection brings. It is asked for once: waiting for a free stream is no way to see events."""
    headers = {"Accept": MEDIA_TYPE, "Last-Event-ID": str(after)}
    path, timeout = f"/v1/jobs/{job_id}/events", httpx2.Timeout(30, read=SILENCE_S)
    with transport.stream(path, headers, patience=0, timeout=timeout, params={"types": list(types)}) as response:
        if not response.headers.get("Content-Type", "").startswith(MEDIA_TYPE):
            raise ClientError("this service does not stream events")
        body = _before(until, response.iter_raw())
        chunks = httpx2.Response(200, headers=response.headers, content=body, request=response.request)
        yield from (message for message in httpx2.EventSource(chunks) if message.data)


def _before(moment: float, chunks: Iterator[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        if time.monotonic() >= moment:
            return
        yield chunk


def _event(message: httpx2.ServerSentEvent) -> Event:
    try:
        return Event.from_json(json.loads(message.data))
    except (ValueError, TypeError, KeyError):
        raise ClientError("the service streams something that is no event") from None
