"""Where runners are started: what a worker asks of the engine, whichever it is.

An engine has to run one command, `python -m worker.runner WORKDIR`, with its output in WORKDIR/runner.log. Claim,
lease, fence, events, checkpoints and results are the database's and the file system's, and the same everywhere.
"""

from pathlib import Path
from typing import Protocol

from sqlalchemy.orm import Session, sessionmaker

from jobs.advice import Advised
from jobs.settings import Settings
from worker.stopping import Stop

RUNNER = ("-m", "worker.runner")
LOG = "runner.log"
TAIL_BYTES = 4000


class LauncherMissing(Advised):
    """The engine's client is not installed."""


class Handle(Protocol):
    """A runner that has been started."""

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs, or waits to."""
        ...

    def terminate(self, stop: Stop) -> None:
        """Ask it to write a checkpoint and exit, and tell it why. May be called again, with another reason."""
        ...

    def kill(self) -> None:
        """End it and all that it started, as fast as the engine can. `poll` gives an exit code from then on."""
        ...

    def dump_stacks(self) -> None:
        """Make one that hangs write every thread's stack into its log, where the engine can."""
        ...


class Launcher(Protocol):
    """An engine."""

    def start(self, job_id: str, attempt: int, workdir: Path) -> Handle:
        """Start the runner of an attempt, whose order lies in `workdir`. Raises OSError where the disk fails."""
        ...

    def stop_orphans(self, sessions: sessionmaker[Session]) -> None:
        """Stop the runners whose attempt holds its job no more: their worker died, or nobody wants them."""
        ...


def log_tail(workdir: Path) -> str:
    """The end of what a runner has written to stdout and stderr."""
    try:
        return (workdir / LOG).read_bytes()[-TAIL_BYTES:].decode(errors="replace")
    except OSError:
        return ""


def make_launcher(settings: Settings) -> Launcher:
    """The one that the settings name. Raises LauncherMissing where it is not installed."""
    if settings.launcher == "ray":
        try:
            from worker.ray_launcher import RayLauncher
        except ImportError as error:
            advice = "install it with `pip install 'dream-distillation[ray]'`"
            raise LauncherMissing(f"DREAM_LAUNCHER is ray, which is not here ({error})", advice) from None
        return RayLauncher(settings)
    from worker.process import ProcessLauncher

    return ProcessLauncher()
