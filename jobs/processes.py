"""Child processes that do not outlive their parent, however it dies."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
Process = subprocess.Popen[Any]
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def spawn(command: Sequence[str], on_parent_death: signal.Signals, **options: Any) -> Process:
    """Start a command in a session of its own: a Ctrl-C in the terminal reaches its parent alone.

    On Linux the kernel sends it `on_parent_death` when the calling *thread* ends, so call this from one that
    lasts as long as the child should. Elsewhere a child of a killed parent lives on.
    """
    parent = os.getpid()

    def tie() -> None:
        if _libc is not None:
            _libc.prctl(PR_SET_PDEATHSIG, int(on_parent_death), 0, 0, 0)
            if os.getppid() != parent:  # the parent died before the kernel was told
                os._exit(1)

    # Between fork and exec only prctl is called, which takes no lock that another thread might hold.
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=tie, **options)  # noqa: PLW1509


def signal_group(process: Process, number: signal.Signals) -> None:
    """Send a signal to a spawned process and all that it started, if any of them still is."""
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return
    except PermissionError:  # macOS says this of a group of zombies
        return
