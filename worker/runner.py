"""One attempt at a job in a process of its own: `python -m worker.runner WORKDIR`.

Reads WORKDIR/job.json; appends to WORKDIR/events.jsonl, and says on stderr how it goes; leaves WORKDIR/result.json, or
WORKDIR/error.json. It knows no database and no queue. SIGTERM makes it write a checkpoint and exit; where WORKDIR/stop
says that nobody is going to go on with the job, it also leaves what there is as a partial result. SIGUSR1 prints every
thread's stack.

Exit codes, after sysexits.h: 0 done, 64 the user's mistake, 70 out of memory or diverged, 74 disk trouble,
75 stopped with a checkpoint. Anything else is a fault of ours, with a traceback.
"""

import contextlib
import errno
import faulthandler
import json
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dream_core.errors import Diverged, DreamError
from dream_core.host import keep_freed_memory, peak_memory, use_threads_for
from dream_core.recipes import Recipe
from worker import pipeline
from worker.order import Job
from worker.reporting import Interrupted, Reporter, say
from worker.stopping import Stopping

STOPPED = os.EX_TEMPFAIL
CPU_ALLOCATOR = "can't allocate memory"  # what PyTorch says in a plain RuntimeError
TAKE_MEMORY = (
    "batch_real", "batch_syn_max", "batch_syn", "batch_net", "batch_expert", "squeeze_batch", "student_steps",
    "embedding_chunk", "width",
)  # fmt: skip
"""Fields of recipes that memory grows with."""


def main(workdir: Path) -> int:
    """Run the job in `workdir`; return the exit code."""
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)
    keep_freed_memory()
    job, stopping = Job.read(workdir / "job.json"), Stopping(workdir)
    if job.cache:  # by default what is compiled lies in /tmp, which later jobs may not find
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(job.cache / "inductor"))
    try:
        use_threads_for(job.recipe.image_size)
        stopping.listen(job.grace_s)
        _leave_result(workdir, pipeline.run(job, Reporter(workdir / "events.jsonl"), stopping))
    except Interrupted as interrupted:
        say(f"stopped: {stopping.why}")
        if interrupted.partial:
            with contextlib.suppress(OSError):  # a full disk: the files are there all the same
                _leave_result(workdir, interrupted.partial)
        return STOPPED
    except (DreamError, OSError, MemoryError, RuntimeError) as error:
        return fail(error, job.recipe, workdir)
    return os.EX_OK


def fail(error: DreamError | OSError | MemoryError | RuntimeError, recipe: Recipe, workdir: Path) -> int:
    """Leave `error.json`; return the exit code. A fault of ours is raised again."""
    failure = explain(error, recipe)
    if failure is None:
        raise error
    failure.leave(workdir)
    return failure.exit_code


def _leave_result(workdir: Path, result: dict[str, Any]) -> None:
    (workdir / "result.json").write_text(json.dumps(result), encoding="utf-8")


@dataclass(frozen=True)
class Failure:
    """Why a run ended, as `error.json` tells it."""

    exit_code: int
    kind: str
    code: str
    message: str

    def leave(self, workdir: Path) -> None:
        """Write `error.json`, and the message to stderr."""
        say(self.message)
        try:
            content = json.dumps({"class": self.kind, "code": self.code, "message": self.message})
            (workdir / "error.json").write_text(content, encoding="utf-8")
        except OSError as error:  # the same full disk; the exit code still tells
            say(f"could not write error.json: {error.strerror}")


def explain(error: DreamError | OSError | MemoryError | RuntimeError, recipe: Recipe) -> Failure | None:
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
            return Failure(os.EX_SOFTWARE, "out_of_memory", "OUT_OF_MEMORY", memory_advice(recipe))
    return None


def memory_advice(recipe: Recipe) -> str:
    """How much memory there was use for, and what to lower from which value."""
    peak = f"at its peak the run held {peak_memory() / 2**30:.1f} GiB"
    if torch.cuda.is_available():
        peak += f", and {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB of the GPU's"
    values = recipe.model_dump(include=set(TAKE_MEMORY))
    lower = ", ".join(f"{name} (now {values[name]})" for name in TAKE_MEMORY if values.get(name))
    judged = f"evaluation.batch_size (now {recipe.evaluation.batch_size})"
    return f"not enough memory; {peak}. Lower {lower} or, while it is judged, {judged}; or use a larger device"


if __name__ == "__main__":
    exit_code = main(Path(sys.argv[1]))
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # all is done: a late stop must not look like a loss
    sys.exit(exit_code)
