"""Why a runner is told to end before it is done, and how it learns of it: a word in a file, then SIGTERM."""

import signal
import threading
from enum import StrEnum
from pathlib import Path

import structlog

from jobs.files import atomic_write

log = structlog.get_logger()

FILE = "stop"


class Stop(StrEnum):
    """The reasons. Whatever it is, the runner writes a checkpoint and exits."""

    CANCEL = "cancel"
    """The user wants no more of it: what there is becomes a partial result."""
    PAUSE = "pause"
    """The user wants to go on later."""
    SHUTDOWN = "shutdown"
    TIMEOUT = "timeout"
    """The time that the user gave it is over: what there is becomes a partial result."""
    STALLED = "stalled"
    LEASE_LOST = "lease_lost"
    """The database was away for so long that another worker may have the job."""
    FENCED = "fenced"
    """Another worker has the job, or nobody wants it any more. The runner is not told, but killed."""


def tell(workdir: Path, stop: Stop) -> None:
    """Leave the reason where the runner looks for it. One that finds none takes it for a shutdown, and stops, too."""
    try:
        atomic_write(workdir / FILE, stop)
    except OSError as error:
        log.warning("runner.not_told_why", stop=stop, error=str(error))


class Stopping:
    """The runner's side: whether it has been asked to stop, and why."""

    def __init__(self, workdir: Path) -> None:
        self._path, self._asked = workdir / FILE, threading.Event()

    def listen(self, grace_s: float | None) -> None:
        """From now on SIGTERM asks to stop. `grace_s` after it SIGALRM ends the process, should nobody be left to."""

        def ask(*_: object) -> None:
            self._asked.set()
            if grace_s:
                signal.setitimer(signal.ITIMER_REAL, grace_s)

        signal.signal(signal.SIGTERM, ask)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C reaches the parent, which decides

    def __call__(self) -> bool:
        return self._asked.is_set()

    @property
    def why(self) -> Stop:
        """The reason; a shutdown where nobody gave one, as when the worker was killed."""
        try:
            return Stop(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return Stop.SHUTDOWN

    @property
    def for_good(self) -> bool:
        """Whether nobody is going to go on with the job, so that what there is should be kept as it is."""
        return self.why in (Stop.CANCEL, Stop.TIMEOUT)
