"""Watches one attempt: keeps the lease, passes events on, and ends the runner when it should end."""

import time
from dataclasses import dataclass
from threading import Event

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from jobs import repository
from jobs.lifecycle import Status
from jobs.settings import Settings
from worker.joblog import JobLog
from worker.launcher import Handle
from worker.relay import Relay
from worker.stopping import Stop

log = structlog.get_logger()

LOOK_S = 0.2
POLL_S = 1.0


ASKED = {Status.CANCELLING: Stop.CANCEL, Status.PAUSING: Stop.PAUSE}
"""What the user wants, by the job's status."""


@dataclass(frozen=True, slots=True)
class Ending:
    """The runner's exit code (negative: killed by that signal), and why it was told to end, if it was."""

    code: int
    stop: Stop | None


class Every:
    """True at most once in so many seconds."""

    def __init__(self, seconds: float):
        self._seconds = seconds
        self._due = time.monotonic() + seconds

    def due(self) -> bool:
        now = time.monotonic()
        if now < self._due:
            return False
        self._due = now + self._seconds
        return True


class Attempt:
    def __init__(
        self,
        job_id: str,
        number: int,
        max_runtime_s: float | None,
        runner: Handle,
        relay: Relay,
        job_log: JobLog,
        sessions: sessionmaker[Session],
        settings: Settings,
        closing: Event,
    ):
        self._job_id, self._number = job_id, number
        self._runner, self._relay, self._job_log = runner, relay, job_log
        self._sessions, self._settings, self._closing = sessions, settings, closing
        self._stop: Stop | None = None
        self._kill_at = float("inf")
        self._ends_at = time.monotonic() + (max_runtime_s or float("inf"))
        self._renewed_at = time.monotonic()

    def watch(self) -> Ending:
        """Until the runner is gone. What it reported is stored by then, if the database can be reached."""
        renewal, poll = Every(self._settings.heartbeat_s), Every(POLL_S)
        while (code := self._runner.poll()) is None:
            if renewal.due():
                self._renew()
            elif poll.due():
                self._ask()
                self._job_log.pump()
            self._look()
            time.sleep(LOOK_S)
        self._runner.kill()  # what the runner started must not outlive it
        if self._stop is not Stop.FENCED:
            self._job_log.pump(whole=True)
        while self._stop is not Stop.FENCED and not self._pump() and self._holds():
            time.sleep(POLL_S)
        return Ending(code, self._stop)

    def _renew(self) -> None:
        try:
            with self._sessions.begin() as session:
                status = repository.renew(session, self._job_id, self._number, self._settings.lease_s)
        except DBAPIError as error:
            log.warning("lease.not_renewed", error=str(error.orig))
            return
        self._renewed_at = time.monotonic()
        self._obey(status)

    def _ask(self) -> None:
        """Between two renewals: is the user waiting for it to stop? And pass on what is new."""
        try:
            with self._sessions() as session:
                status = repository.held_status(session, self._job_id, self._number)
        except DBAPIError as error:
            log.warning("database.unreachable", error=str(error.orig))
            return
        self._obey(status)
        if self._stop is not Stop.FENCED:
            self._pump()

    def _pump(self) -> bool:
        """Pass on what is new. False: the database is away, and it waits in the file."""
        try:
            held = self._relay.pump()
        except DBAPIError as error:
            log.warning("events.not_stored", error=str(error.orig))
            return False
        if not held:
            self._obey(None)
        return True

    def _holds(self) -> bool:
        """Whether the job is certainly still ours: by the lease that we know of."""
        return time.monotonic() < self._renewed_at + self._settings.lease_s

    def _obey(self, status: Status | None) -> None:
        if status is None:
            self._stop = Stop.FENCED
            self._runner.kill()
            log.warning("job.fenced")
        elif status in ASKED:
            self._end(ASKED[status])

    def _look(self) -> None:
        """What needs no database: the clocks, and the worker's own end."""
        now = time.monotonic()
        if self._closing.is_set():
            self._end(Stop.SHUTDOWN)
        if now > self._ends_at:
            self._end(Stop.TIMEOUT)
        if not self._holds():
            self._end(Stop.LEASE_LOST)
        if now > self._relay.heard_at + self._settings.stall_s and self._stop is None:
            self._runner.dump_stacks()
            self._end(Stop.STALLED)
        if now > self._kill_at:
            log.warning("runner.killed", stop=self._stop)
            self._runner.kill()

    def _end(self, stop: Stop) -> None:
        """Ask the runner to write a checkpoint and exit. Once: the first reason counts, but for a user who cancels
        what was about to be gone on with."""
        if self._stop is None:
            self._kill_at = time.monotonic() + self._settings.grace_s
        elif stop is not Stop.CANCEL or self._stop not in (Stop.PAUSE, Stop.SHUTDOWN):
            return
        self._stop = stop
        self._runner.terminate(stop)
        log.info("runner.asked_to_stop", stop=stop)
