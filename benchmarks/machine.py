"""The machine in words, without its name."""

import platform
from pathlib import Path


def processor() -> str:
    """What it calls itself, or its architecture where it does not say."""
    described = Path("/proc/cpuinfo")
    lines = described.read_text(encoding="utf-8", errors="replace").splitlines() if described.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
