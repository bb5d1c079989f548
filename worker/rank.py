"""A further rank of a job that several devices share: `python -m worker.rank WORKDIR MEETING RANK`.

Does the steps of the distillation with rank 0, the runner, and ends. It reports and saves nothing; what goes wrong is
left in WORKDIR/error.json, and the runner ends with the same exit code.
"""

import faulthandler
import os
import signal
import sys
import time
from pathlib import Path

from dream_core.datasets import load_dataset
from dream_core.distillation import Distillation, choose_devices
from dream_core.errors import Diverged, DreamError
from dream_core.host import keep_freed_memory, use_threads_for
from dream_core.ranks import RankLost, joined
from worker.checkpoint import CheckpointStore
from worker.order import Job
from worker.runner import fail
from worker.sharing import SETTLE_S, fair_threads


def main(workdir: Path, meeting: Path, rank: int) -> int:
    """Take part until the distillation is done; return the exit code."""
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    keep_freed_memory()
    job = Job.read(workdir / "job.json")
    try:
        use_threads_for(job.recipe.image_size)
        distil(job, meeting, rank)
    except Diverged:
        return os.EX_OK  # rank 0 has seen the same loss
    except RankLost:
        time.sleep(2 * SETTLE_S)  # rank 0 finds out which, and ends this process
        return os.EX_TEMPFAIL
    except (DreamError, OSError, MemoryError, RuntimeError) as error:
        return fail(error, job.recipe, workdir)
    return os.EX_OK


def distil(job: Job, meeting: Path, rank: int) -> None:
    """All steps that remain, from the checkpoint that rank 0 takes as well."""
    devices = choose_devices(job.device, job.gpus)
    dataset = load_dataset(job.recipe.dataset, job.data_dir, job.recipe.image_size)
    checkpoints = CheckpointStore(job.checkpoints, job.recipe, dataset.fingerprint, warn=lambda code, message: None)
    saved = checkpoints.latest() or (job.start_from and checkpoints.taken_over(job.start_from))
    state = saved.tensors if saved else None
    with fair_threads(devices), joined(rank, job.gpus, meeting, devices[rank]) as ranks:
        for _ in Distillation(job.recipe, dataset, devices[rank], state, ranks=ranks):
            pass


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])))
