"""Keeps a job's lease while something takes its time after the runner has ended."""

from threading import Event
from types import TracebackType

from sqlalchemy.orm import Session, sessionmaker

from jobs import repository
from jobs.settings import Settings
from worker.chores import Chore


class Holding:
    """Within it, the attempt's lease is renewed; `lost` once another has the job."""

    def __init__(self, sessions: sessionmaker[Session], job_id: str, attempt: int, settings: Settings):
        self._sessions, self._job_id, self._attempt, self._settings = sessions, job_id, attempt, settings
        self._over = Event()
        self.lost = False

    def __enter__(self) -> "Holding":
        self._thread = Chore("lease", self._settings.heartbeat_s, self._renew).start(self._over)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _renew(self) -> None:
        with self._sessions.begin() as session:
            status = repository.renew(session, self._job_id, self._attempt, self._settings.lease_s)
        if status is None:
            self.lost = True
            self._over.set()
