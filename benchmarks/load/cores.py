"""Who kept the machine's cores busy: the API, the rest of what is measured with it, or something else."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psutil


@dataclass
class Busy:
    """Cores on average while something was measured."""

    api: float = 0.0
    others: float = 0.0


@contextmanager
def watching_cores(api: psutil.Process) -> Iterator[Busy]:
    """What was busy while the block ran, once it is over."""
    busy = Busy()
    start, before = time.perf_counter(), _spent(api)
    yield busy
    seconds, after = time.perf_counter() - start, _spent(api)
    of_api, ours, all_together = ((end - begin) / seconds for begin, end in zip(before, after, strict=True))
    busy.api, busy.others = round(of_api, 2), round(max(0.0, all_together - ours), 2)


def _spent(api: psutil.Process) -> tuple[float, float, float]:
    """Seconds of a core so far: the API's; those of this process and its children, ended ones too; everyone's."""
    ours = sum(os.times()[:4])
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            ours += sum(child.cpu_times()[:2])
    return sum(api.cpu_times()[:2]), ours, busy_seconds()


def busy_seconds() -> float:
    """Seconds that the machine's cores have been busy so far."""
    times = psutil.cpu_times()
    return sum(times) - times.idle - getattr(times, "iowait", 0.0)
