"""Waiting for a job's end: told of every event while the service streams them, else asking now and then."""

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from client.errors import ApiError, ClientError, ServiceUnreachable, WaitTimeout
from client.resources import Event, Job
from client.streaming import PING_S
from client.transport import PATIENCE_S

POLL_S = 1.0
REST_S = 60.0
"""How long to poll after a stream that failed, before the next is tried."""

OnEvent = Callable[[Event], None]


class Source(Protocol):
    """Where a job's state and events come from: `Client.jobs`."""

    def get(self, job_id: str, known: Job | None = None) -> Job: ...
    def events(self, job_id: str, after: int = 0) -> Iterator[Event]: ...
    def stream(
        self, job_id: str, after: int = 0, types: Sequence[str] = (), until: float = math.inf
    ) -> Iterator[Event]: ...


def wait(source: Source, job_id: str, timeout: float | None, on_event: OnEvent | None) -> Job:
    """The job once it is over.

    Raises `WaitTimeout` after `timeout` seconds. A service that is away for less than a minute is waited for.
    """
    answered = time.monotonic()
    deadline = math.inf if timeout is None else answered + timeout
    streaming_from, after, job = 0.0, 0, None

    def tell(events: Iterator[Event]) -> None:
        nonlocal after, answered
        for event in events:
            after, answered = event.seq, time.monotonic()
            if on_event:
                on_event(event)

    while True:
        try:
            job = source.get(job_id, known=job)
            if on_event:
                tell(source.events(job_id, after))
            if job.finished:
                return job
            answered = time.monotonic()
        except (ServiceUnreachable, ApiError) as error:
            if not _passes(error) or time.monotonic() - answered > PATIENCE_S:
                raise
        now = time.monotonic()
        if now >= deadline:
            raise WaitTimeout(f"{job_id} is not finished after {timeout:g} s", advice="it goes on; wait again")
        if job and streaming_from <= now < deadline - PING_S:
            try:
                tell(source.stream(job_id, after, () if on_event else ("state",), until=deadline - PING_S))
                continue
            except ClientError:
                streaming_from = time.monotonic() + REST_S
        # jitter, so that many waiting clients do not ask in step
        time.sleep(max(0, min(POLL_S * random.uniform(0.8, 1.2), deadline - time.monotonic())))


def _passes(error: ServiceUnreachable | ApiError) -> bool:
    """Whether waiting may help."""
    return isinstance(error, ServiceUnreachable) or error.status >= 500 or error.status == 429
