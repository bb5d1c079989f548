"""The runner as a child process: started, asked to stop, killed."""

import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import structlog

from jobs.processes import signal_group, spawn
from worker import stopping
from worker.stopping import Stop

log = structlog.get_logger()

LOG = "runner.log"
TAIL_BYTES = 4000


class Child:
    """A runner in its own process group. If the worker dies, the runner is told to write a checkpoint and end."""

    def __init__(self, command: Sequence[str], workdir: Path):
        self._workdir, self.log_path = workdir, workdir / LOG
        with self.log_path.open("ab") as log:
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
            try:
                stopping.tell(self._workdir, stop)
            except OSError as error:  # it stops all the same, and takes it for a shutdown
                log.warning("runner.not_told_why", stop=stop, error=str(error))
            signal_group(self._process, signal.SIGTERM)

    def kill(self) -> int:
        """Kill it and all that it started, at once. Returns the exit code."""
        signal_group(self._process, signal.SIGKILL)
        return self._process.wait()

    def dump_stacks(self) -> None:
        """Make a runner that hangs write every thread's stack into its log (faulthandler on SIGUSR1)."""
        if self.poll() is None:
            self._process.send_signal(signal.SIGUSR1)

    def log_tail(self) -> str:
        """The end of what it has written to stdout and stderr."""
        try:
            return self.log_path.read_bytes()[-TAIL_BYTES:].decode(errors="replace")
        except OSError:
            return ""
