"""One attempt at a job in a process of its own: `python -m worker.runner WORKDIR`.

Reads WORKDIR/job.json; appends to WORKDIR/events.jsonl; leaves WORKDIR/result.json, or WORKDIR/error.json. It knows no
database and no queue. SIGTERM makes it write a checkpoint and exit; SIGUSR1 prints every thread's stack.

Exit codes, after sysexits.h: 0 done, 64 the user's mistake, 70 out of memory or diverged, 74 disk trouble,
75 stopped with a checkpoint. Anything else is a fault of ours, with a traceback.
"""

import errno
import faulthandler
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from dream_core.errors import Diverged, DreamError
from dream_core.host import keep_freed_memory, use_threads_for
from worker import pipeline
from worker.pipeline import Job
from worker.reporting import Interrupted, Reporter

STOPPED = os.EX_TEMPFAIL
CPU_ALLOCATOR = "can't allocate memory"  # what PyTorch says in a plain RuntimeError
NO_MEMORY = "not enough memory; lower batch_real, batch_syn_max, embedding_chunk or width, or use a larger device"


def main(workdir: Path) -> int:
    """Run the job in `workdir`; return the exit code."""
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)
    keep_freed_memory()
    try:
        job = Job.read(workdir / "job.json")
        use_threads_for(job.recipe.image_size)
        result = pipeline.run(job, Reporter(workdir / "events.jsonl"), stop_on_sigterm(job.grace_s))
        (workdir / "result.json").write_text(json.dumps(result), encoding="utf-8")
    except Interrupted:
        return STOPPED
    except (DreamError, OSError, MemoryError, RuntimeError) as error:
        failure = explain(error)
        if failure is None:
            raise
        failure.leave(workdir)
        return failure.exit_code
    return os.EX_OK


def stop_on_sigterm(grace_s: float | None) -> Callable[[], bool]:
    """Whether SIGTERM has come. `grace_s` after it SIGALRM ends the process, should nobody be left to kill it."""
    stopping = threading.Event()

    def stop(*_: object) -> None:
        stopping.set()
        if grace_s:
            signal.setitimer(signal.ITIMER_REAL, grace_s)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C reaches the parent, which decides
    return stopping.is_set


@dataclass(frozen=True)
class Failure:
    """Why a run ended, as `error.json` tells it."""

    exit_code: int
    kind: str
    code: str
    message: str

    def leave(self, workdir: Path) -> None:
        """Write `error.json`, and the message to stderr."""
        sys.stderr.write(f"{self.message}\n")
        try:
            content = json.dumps({"class": self.kind, "code": self.code, "message": self.message})
            (workdir / "error.json").write_text(content, encoding="utf-8")
        except OSError as error:  # the same full disk; the exit code still tells
            sys.stderr.write(f"could not write error.json: {error}\n")


def explain(error: DreamError | OSError | MemoryError | RuntimeError) -> Failure | None:
    """What an error means; None where it is a fault of ours."""
    match error:
        case Diverged():
            return Failure(os.EX_SOFTWARE, "numerical_divergence", error.code, str(error))
        case DreamError():
            return Failure(os.EX_USAGE, "user_error", error.code, str(error))
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            return Failure(os.EX_IOERR, "internal", "DISK_FULL", "the disk is full; free some space and retry")
        case OSError():
            return Failure(os.EX_IOERR, "internal", "IO_ERROR", f"input or output failed: {error}")
        case _ if isinstance(error, MemoryError | torch.OutOfMemoryError) or CPU_ALLOCATOR in str(error):
            return Failure(os.EX_SOFTWARE, "out_of_memory", "OUT_OF_MEMORY", NO_MEMORY)
    return None


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
