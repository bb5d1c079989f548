"""Events as they happen, as server-sent events, for hundreds of clients at a time.

One task asks the database what is new in all jobs that are followed, and hands it to their streams. A stream that is
not up to date, since it begins in the past or its client reads slowly, reads page after page for itself. It holds one
page at most: a slow client costs neither memory nor time of others. Threads are used for the database alone.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import anyio
import structlog
from anyio import CapacityLimiter
from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker
from starlette.types import Receive, Scope, Send

from api.problems import Problem
from api.schemas.events import EventResource, StreamEnd
from jobs.following import News, read_news
from jobs.lifecycle import TERMINAL, Status
from jobs.repository import list_events
from jobs.tables import Job, JobEvent

log = structlog.get_logger()

T = TypeVar("T")

PAGE = 100
THREADS = 4
"""For the reading of all streams together: other requests have theirs to themselves."""
RECONNECT_MS = 1000
RETRY_AFTER_S = 10
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no", "Vary": "Accept"}


@dataclass(frozen=True, slots=True)
class Encoded:
    """An event as it is sent."""

    seq: int
    type: str
    content: bytes

    @classmethod
    def of(cls, event: JobEvent) -> "Encoded":
        """The same event."""
        data = EventResource.of(event).model_dump_json()
        return cls(event.seq, event.type, format_sse_event(data_str=data, event=event.type, id=str(event.seq)))


@dataclass(slots=True)
class Watch:
    """A job that is followed. `newest` are its events behind `since`, up to `reaches`; `seq` is that of the last."""

    job_id: str
    seq: int
    status: Status | None
    since: int
    reaches: int
    newest: Sequence[Encoded] = ()
    streams: int = 0
    news: asyncio.Event = field(default_factory=asyncio.Event)
    """Set, and replaced by another, when there is something new."""

    @property
    def over(self) -> bool:
        """Whether no more events will come."""
        return self.status is None or self.status in TERMINAL

    def learn(self, news: News, events: Sequence[Encoded]) -> None:
        """Take the news in, unless they are old, and tell the streams."""
        if news.seq >= self.seq:
            self.seq, self.status = news.seq, news.status
            self.since, self.reaches, self.newest = news.since, news.reaches, events
            self.ring()

    def ring(self) -> None:
        """Wake the streams that wait."""
        self.news.set()
        self.news = asyncio.Event()


class Streams:
    """All event streams of this process. Used in its event loop only.

    Args:
        readings: transactions that only read.
        per_key: streams that a key may hold open at a time.
        poll_s: seconds between two looks into the database.
        ping_s: seconds without an event after which a comment is sent.
        lasts_s: seconds after which a stream is ended; its client comes back for the rest.
    """

    def __init__(
        self,
        readings: sessionmaker[Session],
        per_key: int,
        poll_s: float = 0.5,
        ping_s: float = 15.0,
        lasts_s: float = 900.0,
    ) -> None:
        self._readings, self._per_key = readings, per_key
        self._poll_s, self._ping_s, self.lasts_s = poll_s, ping_s, lasts_s
        self._watches: dict[str, Watch] = {}
        self._held: Counter[str | None] = Counter()
        self._polling: asyncio.Task[None] | None = None
        self._threads = CapacityLimiter(THREADS)
        self._away = self._closed = False

    def open_streams(self) -> int:
        """How many there are."""
        return sum([*self._held.values()])

    def close(self) -> None:
        """End all streams, and begin no more."""
        self._closed = True
        for watch in self._watches.values():
            watch.ring()

    @contextmanager
    def place(self, key_id: str | None) -> Iterator[None]:
        """Room for a stream. Raises a Problem where the key has as many as it may have."""
        if key_id is not None and self._held[key_id] >= self._per_key:
            raise Problem(
                "RATE_LIMITED",
                f"this key holds {self._per_key} streams open, and may hold no more; close one, or poll",
                headers={"Retry-After": str(RETRY_AFTER_S)},
                retry_after_s=RETRY_AFTER_S,
            )
        self._held[key_id] += 1
        try:
            yield
        finally:
            self._held[key_id] -= 1
            if not self._held[key_id]:
                del self._held[key_id]

    @contextmanager
    def watching(self, job: Job) -> Iterator[Watch]:
        """The job's watch, which all its streams share."""
        seq = job.event_seq
        watch = self._watches.setdefault(job.id, Watch(job.id, seq, job.status, since=seq, reaches=seq))
        watch.streams += 1
        try:
            yield watch
        finally:
            watch.streams -= 1
            if not watch.streams:
                del self._watches[job.id]

    async def follow(self, watch: Watch, after: int, types: Sequence[str]) -> AsyncIterator[bytes]:
        """The events behind `after`, of these types or of all, as they come; at the end one that says so."""
        sent = time.monotonic()
        until = sent + self.lasts_s
        yield format_sse_event(retry=RECONNECT_MS)
        while not self._closed and (now := time.monotonic()) < until:
            news = watch.news
            if after < watch.seq and (found := await self._next(watch, after, types)):
                content, after = found
                if content:
                    yield content
                    sent = time.monotonic()
            elif after >= watch.seq and watch.over:
                yield format_sse_event(data_str=StreamEnd(status=watch.status).model_dump_json(), event="end")
                return
            else:
                self._keep_polling()
                with anyio.move_on_after(min(sent + self._ping_s, until) - now) as idle:
                    await news.wait()
                if idle.cancelled_caught:
                    yield KEEPALIVE_COMMENT
                    sent = time.monotonic()

    async def _next(self, watch: Watch, after: int, types: Sequence[str]) -> tuple[bytes, int] | None:
        """Some events behind `after`, and the place to go on from. None: the database is away."""
        seq, events, place = watch.seq, watch.newest, watch.reaches
        if not watch.since <= after < watch.reaches:
            page = await self._read(lambda session: _page(session, watch.job_id, after, types))
            if page is None:
                return None
            events, more = page
            last = events[-1].seq if events else after
            place = last if more else max(seq, last)
        wanted = [event.content for event in events if event.seq > after and (not types or event.type in types)]
        return b"".join(wanted), place

    def _keep_polling(self) -> None:
        if self._polling is None or self._polling.done():
            self._polling = asyncio.create_task(self._poll())

    async def _poll(self) -> None:
        """Look for news as long as anyone wants them."""
        while self._watches and not self._closed:
            known = {watch.job_id: (watch.seq, watch.status) for watch in self._watches.values() if not watch.over}
            news = await self._read(lambda session, known=known: _encoded(read_news(session, known, PAGE)))
            for item, events in news or ():
                if watch := self._watches.get(item.job_id):
                    watch.learn(item, events)
            await asyncio.sleep(self._poll_s)

    async def _read(self, reading: Callable[[Session], T]) -> T | None:
        """What a transaction of its own reads. None: the database is away."""

        def read() -> T:
            with self._readings.begin() as session:
                return reading(session)

        try:
            found = await anyio.to_thread.run_sync(read, limiter=self._threads)
        except SQLAlchemyError as error:
            if not self._away:
                log.warning("streams.database_away", error=str(error))
            self._away = True
            return None
        if self._away:
            self._away = False
            for watch in self._watches.values():
                watch.ring()
        return found


class EventStream(EventSourceResponse):
    """The answer to a request for a job's events as they happen."""

    def __init__(self, streams: Streams, job: Job, after: int, types: Sequence[str], key_id: str | None) -> None:
        super().__init__((), headers=HEADERS)
        self._streams, self._job, self._after, self._types, self._key_id = streams, job, after, types, key_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until the job is over, the client has gone, or it is time, also for a client that reads nothing."""
        latest = self._streams.lasts_s + RETRY_AFTER_S
        with self._streams.place(self._key_id), self._streams.watching(self._job) as watch, anyio.move_on_after(latest):
            self.body_iterator = self._streams.follow(watch, self._after, self._types)
            await super().__call__(scope, receive, send)


def _page(session: Session, job_id: str, after: int, types: Sequence[str]) -> tuple[list[Encoded], bool]:
    events, more = list_events(session, job_id, after, PAGE, types)
    return [Encoded.of(event) for event in events], more


def _encoded(news: Iterator[News]) -> list[tuple[News, list[Encoded]]]:
    return [(item, [Encoded.of(event) for event in item.events]) for item in news]
