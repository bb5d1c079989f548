"""The runner as a child process of the worker: started, asked to stop, killed."""

import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy.orm import Session, sessionmaker

from jobs.processes import signal_group, spawn
from worker import stopping
from worker.launcher import LOG, RUNNER
from worker.stopping import Stop


class Child:
    """A runner in its own process group. If the worker dies, the runner is told to write a checkpoint and end."""

    def __init__(self, command: Sequence[str], workdir: Path):
        self._workdir = workdir
        with (workdir / LOG).open("ab") as log:
            self._process = spawn(
                [*command, str(workdir)], on_parent_death=signal.SIGTERM, stdout=log, stderr=subprocess.STDOUT
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    def terminate(self, stop: Stop) -> None:
        """Ask it to write a checkpoint and exit, and tell it why."""
        if self.poll() is None:
            stopping.tell(self._workdir, stop)
            signal_group(self._process, signal.SIGTERM)

    def kill(self) -> None:
        """Kill it and all that it started, at once."""
        signal_group(self._process, signal.SIGKILL)
        self._process.wait()

    def dump_stacks(self) -> None:
        """Make a runner that hangs write every thread's stack into its log (faulthandler on SIGUSR1)."""
        if self.poll() is None:
            self._process.send_signal(signal.SIGUSR1)


class ProcessLauncher:
    """Starts runners here. Call it from a thread that lasts as long as the runner should."""

    def __init__(self, command: Sequence[str] = (sys.executable, *RUNNER)):
        self._command = command

    def start(self, job_id: str, attempt: int, workdir: Path) -> Child:
        """Start one. Raises OSError."""
        return Child(self._command, workdir)

    def stop_orphans(self, sessions: sessionmaker[Session]) -> None:
        """There are none: the kernel tells a child that its worker died."""
