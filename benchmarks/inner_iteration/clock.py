"""Seconds, operations and memory of a piece of work, on a CPU or a GPU; and the most that the machine multiplies."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from types import FrameType
from typing import Protocol

import psutil
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from dream_core.host import peak_memory


class Meter(Protocol):
    """Measures blocks by name."""

    def __call__(self, name: str) -> AbstractContextManager[None]:
        """Measure the block under a name."""
        ...


class Clock:
    """Times blocks by name and keeps the fastest of each, which others on the machine have disturbed least."""

    def __init__(self, device: torch.device):
        self.device = device
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time the block under a name. Work that a GPU was given before or in it is waited for."""
        self._wait()
        start = time.perf_counter()
        yield
        self._wait()
        self.keep(name, time.perf_counter() - start)

    def keep(self, name: str, seconds: float) -> None:
        """Take a time that was taken elsewhere."""
        self.seconds[name] = min(seconds, self.seconds.get(name, seconds))

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


class TooLong(BaseException):
    """The time is up. No `except Exception` on the way stops it."""


@contextmanager
def at_most(seconds: float | None) -> Iterator[None]:
    """Raise TooLong in the main thread when the block takes longer, and kill the processes that it has started: a
    compiler would go on beside what is measured next."""
    if seconds is None:
        yield
        return
    others = set(psutil.Process().children())

    def up(signum: int, frame: FrameType | None) -> None:
        for started in set(psutil.Process().children()) - others:
            _kill(started)
        raise TooLong

    before = signal.signal(signal.SIGALRM, up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _kill(process: psutil.Process) -> None:
    with suppress(psutil.NoSuchProcess):
        for each in (process, *process.children(recursive=True)):
            each.kill()


class _NoModules(nullcontext[None]):
    """In place of what tells a counter in which module an operation is, by hooks that gradients of leaves forbid."""

    parents = ("Global",)


class Operations:
    """Counts the floating-point operations of convolutions and matrix products, a multiplication and an addition as
    two."""

    def __init__(self) -> None:
        self.counted: dict[str, int] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Count the block under a name."""
        counter = FlopCounterMode(display=False)
        counter.mod_tracker = _NoModules()  # pyright: ignore[reportAttributeAccessIssue]
        with counter:
            yield
        self.counted[name] = counter.get_total_flops()


def peak_bytes(device: torch.device) -> int:
    """The most memory that this process had so far: of the GPU, or of the host."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_memory()


def fastest(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Seconds of the fastest of some calls, after one that does not count."""
    clock = Clock(device)
    work()
    for _ in range(repeats):
        with clock("work"):
            work()
    return clock.seconds["work"]


def matrix_peak(device: torch.device, side: int = 2048, repeats: int = 8) -> float:
    """GFLOP/s of multiplying two square float32 matrices."""
    a, b = torch.rand(side, side, device=device), torch.rand(side, side, device=device)
    return 2 * side**3 / fastest(lambda: a @ b, device, repeats) / 1e9


@torch.no_grad()
def convolution_peak(device: torch.device, width: int, side: int, images: int = 128, repeats: int = 8) -> float:
    """GFLOP/s of the 3x3 convolution, `width` to `width` channels on side x side pixels, that a ConvNet is made of."""
    x, weight = torch.rand(images, width, side, side, device=device), torch.rand(width, width, 3, 3, device=device)
    seconds = fastest(lambda: F.conv2d(x, weight, padding=1), device, repeats)
    return 2 * 9 * images * width**2 * side**2 / seconds / 1e9
