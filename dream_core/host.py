"""Settings of the process that a distillation runs in. For programs to call, never on import."""

import ctypes
import resource
import sys
from pathlib import Path

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # names and numbers of glibc's malloc.h
_KEEP = 2**31 - 1


def keep_freed_memory() -> bool:
    """Have the C library keep freed memory for the next tensor instead of returning it to the system.

    By default glibc maps every large tensor anew, and the first touch of its pages costs more than a ReLU over it.
    Training ConvNet-3 on two cores is about a quarter faster with this. Returns whether it applied (glibc only).
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return all(mallopt(option, value) for option, value in
               ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _KEEP), (_M_TOP_PAD, 256 * 2**20)))  # fmt: skip


def peak_memory() -> int:
    """The largest resident set of this process so far, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux has getrusage begin with the memory of the process that started this one
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def use_threads_for(image_size: int) -> None:
    """One thread for images of up to 16 pixels: on more, such small work waits for its threads more than it works."""
    if image_size <= 16:
        import torch  # takes seconds that the rest of this module does not need

        torch.set_num_threads(1)
