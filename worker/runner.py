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
from pathlib import Path

import torch

from dream_core.errors import Diverged, DreamError
from dream_core.host import keep_freed_memory, use_threads_for
from worker import pipeline
from worker.pipeline import Job
from worker.reporting import Interrupted, Reporter

DONE, USER_ERROR, FAILED, IO_ERROR, STOPPED = os.EX_OK, os.EX_USAGE, os.EX_SOFTWARE, os.EX_IOERR, os.EX_TEMPFAIL


def main(workdir: Path) -> int:
    """Run the job in `workdir`; return the exit code."""
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C reaches the parent, which decides
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)
    keep_freed_memory()
    try:
        job = Job.read(workdir / "job.json")
        use_threads_for(job.recipe.image_size)
        result = pipeline.run(job, Reporter(workdir / "events.jsonl"), stopping.is_set)
        (workdir / "result.json").write_text(json.dumps(result), encoding="utf-8")
    except Interrupted:
        return STOPPED
    except Diverged as error:
        return _fail(workdir, FAILED, "numerical_divergence", error.code, str(error))
    except DreamError as error:
        return _fail(workdir, USER_ERROR, "user_error", error.code, str(error))
    except (MemoryError, torch.OutOfMemoryError):
        advice = "not enough memory; lower batch_real, batch_syn_max, embedding_chunk or width, or use a larger device"
        return _fail(workdir, FAILED, "out_of_memory", "OUT_OF_MEMORY", advice)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        message = "the disk is full; free some space and retry" if full else f"input or output failed: {error}"
        return _fail(workdir, IO_ERROR, "internal", "DISK_FULL" if full else "IO_ERROR", message)
    return DONE


def _fail(workdir: Path, code: int, kind: str, name: str, message: str) -> int:
    sys.stderr.write(f"{message}\n")
    try:
        content = json.dumps({"class": kind, "code": name, "message": message})
        (workdir / "error.json").write_text(content, encoding="utf-8")
    except OSError as error:  # the same full disk; the exit code still tells
        sys.stderr.write(f"could not write error.json: {error}\n")
    return code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
