"""What workers do to a database whose jobs are watched: every running job reports a step a second."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from threading import Event, Thread
from typing import Any

from sqlalchemy.orm import Session, sessionmaker

from jobs import repository

PERIOD_S = 1.0


@contextmanager
def reporting_workers(sessions: sessionmaker[Session], jobs: Sequence[str]) -> Iterator[None]:
    """Workers for these jobs, until the block ends. Each event says when it happened, as `sent_at`."""
    done = Event()
    thread = Thread(target=_report, args=(sessions, jobs, done))
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _report(sessions: sessionmaker[Session], jobs: Sequence[str], done: Event) -> None:
    due, step = time.monotonic(), 0
    while True:
        step += 1
        for job in jobs:
            if done.wait(max(0.0, due - time.monotonic())):
                return
            due += PERIOD_S / len(jobs)
            with sessions.begin() as session:
                assert repository.append_events(session, job, 1, [_metric(step)])


def _metric(step: int) -> dict[str, Any]:
    data = {"step": step, "total": 100_000, "loss": 1.0 / step, "eta_s": 60.0, "sent_at": time.time()}
    return {"type": "metric", "created_at": datetime.now(UTC).isoformat(), "data": data}
