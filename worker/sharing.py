"""Several devices for one job: the runner is rank 0, and starts a process for each further rank (`worker.rank`).

Only rank 0 is seen from outside: it alone reports, saves, is told to stop, evaluates and publishes, for it has all of
the result at every step. The others do the same steps and nothing else, in sessions of their own, so that no signal to
the runner's group reaches them; where rank 0 ends, however it does, they are killed.
"""

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from dream_core.ranks import ALONE, RankLost, Ranks, joined
from jobs.processes import Process, spawn
from worker.order import Job
from worker.reporting import Reporter, say

LOOK_S = 0.1
SETTLE_S = 10.0
"""For the end of a lost rank to be seen, once the others have felt it."""


@contextmanager
def shared(job: Job, devices: Sequence[torch.device], report: Reporter) -> Iterator[Ranks]:
    """The ranks of a job, of which this process is the first: one for each device. Further ones live inside the block.

    Where one of them is lost, so is this process: it ends in the same way, and the attempt with it.
    """
    if len(devices) == 1:
        yield ALONE
        return
    with tempfile.TemporaryDirectory(prefix="dream-ranks-") as place, fair_threads(devices):
        meeting = Path(place) / "meeting"
        with (
            _Helpers(job, len(devices), meeting, report) as helpers,
            joined(0, len(devices), meeting, devices[0]) as ranks,
        ):
            try:
                yield ranks
            except RankLost:
                helpers.wait_for_the_end()
                raise
            finally:
                helpers.kill()  # first, lest one of them waits for this process and it for them


@contextmanager
def fair_threads(devices: Sequence[torch.device]) -> Iterator[None]:
    """Ranks that compute on the CPU divide its threads among them."""
    before = torch.get_num_threads()
    if devices[0].type == "cpu":
        torch.set_num_threads(max(1, before // len(devices)))
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Helpers:
    """The further ranks, watched from a thread. On Linux the kernel kills them where this process dies."""

    def __init__(self, job: Job, count: int, meeting: Path, report: Reporter):
        self._count, self._report = count, report
        self._over = threading.Event()
        self._processes: list[Process] = []
        self._command = [sys.executable, "-m", "worker.rank", str(job.directory), str(meeting)]

    def __enter__(self) -> "_Helpers":
        try:
            for rank in range(1, self._count):
                self._processes.append(spawn([*self._command, str(rank)], signal.SIGKILL, stdout=subprocess.DEVNULL))
        except OSError:
            self.kill()
            raise
        threading.Thread(target=self._watch, name="ranks", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        """End those that still run."""
        self._over.set()
        for process in self._processes:
            process.kill()
            process.wait()

    def wait_for_the_end(self) -> None:
        """This process's own, which the watching thread brings about as soon as it sees who is lost."""
        self._over.wait(SETTLE_S)

    def _watch(self) -> None:
        while not self._over.wait(LOOK_S):
            for rank, process in enumerate(self._processes, start=1):
                if (code := process.poll()) and not self._over.is_set():  # else it was killed from here
                    self._end_as(rank, process, code)

    def _end_as(self, rank: int, process: Process, code: int) -> None:
        """End this process as a rank did. The main thread may be deep in a collective call that never returns."""
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        told = f"rank {rank} of {self._count} (process {process.pid}) {how}, and the attempt with it"
        try:
            self._report.warning("RANK_LOST", told)
        except OSError:
            say(told)
        for other in self._processes:
            other.kill()
        if code < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        os._exit(code)
