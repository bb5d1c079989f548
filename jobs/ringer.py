"""Rings for those who do not want to wait for the broker: it may be slow, or away."""

from queue import SimpleQueue
from threading import Lock, Thread

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from jobs.dispatcher import ring_all
from jobs.queue import QUEUE, Bell

log = structlog.get_logger()

CLOSE_S = 5.0


class Ringer:
    """A thread that rings, from the first job on. What it could not ring for is noted, as `ring_all` does.

    Jobs that it has not come to when its process is killed are rung for by the dispatcher: they count as rung for, but
    no worker takes them.
    """

    def __init__(self, sessions: sessionmaker[Session], bell: Bell) -> None:
        self._sessions, self._bell = sessions, bell
        self._waiting: SimpleQueue[tuple[str, str] | None] = SimpleQueue()
        self._thread: Thread | None = None
        self._starting = Lock()

    def ring(self, job_id: str, queue: str = QUEUE) -> None:
        """Have it rung for soon."""
        self._waiting.put((queue, job_id))
        with self._starting:
            if self._thread is None:
                self._thread = Thread(target=self._run, name="ringer", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Ring for those that wait, and end; a broker that does not answer is not waited for."""
        self._waiting.put(None)
        if self._thread:
            self._thread.join(CLOSE_S)

    def _run(self) -> None:
        closed = False
        while not closed:
            batch = [self._waiting.get()]
            while not self._waiting.empty():  # together: an absent broker is waited for once
                batch.append(self._waiting.get())
            closed = None in batch
            jobs: dict[str, list[str]] = {}
            for queue, job_id in filter(None, batch):
                jobs.setdefault(queue, []).append(job_id)
            for queue, job_ids in jobs.items():
                self._ring_all(job_ids, queue)

    def _ring_all(self, job_ids: list[str], queue: str) -> None:
        try:
            ring_all(self._sessions, self._bell, job_ids, queue)
        except SQLAlchemyError as error:
            log.warning("ringer.not_noted", jobs=len(job_ids), error=str(error))
