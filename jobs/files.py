"""Files that are there whole or not at all, and the room that a disk has for them."""

import os
import shutil
from pathlib import Path
from typing import NamedTuple


def atomic_write(path: Path, content: bytes | str) -> None:
    """Write a file such that a reader finds the old content or the new one, never a part. Raises OSError.

    After a power cut it may be either; `sync` the file and its directory where that matters.
    """
    partial = path.with_name(f".{path.name}.tmp")
    try:
        partial.write_bytes(content if isinstance(content, bytes) else content.encode())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Have the system write a file's or a directory's content to the disk, so that a power cut leaves it there."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Room(NamedTuple):
    """Bytes of a disk, as `df` counts them: what the system keeps back for root is neither full nor free."""

    free: int
    total: int

    @property
    def full(self) -> float:
        """The share that is taken, from 0 to 1; 0 on a filesystem that does not tell its size."""
        return 1 - self.free / self.total if self.total else 0.0


def room_at(directory: Path) -> Room:
    """What the disk under a directory holds. Raises OSError."""
    usage = shutil.disk_usage(directory)
    return Room(usage.free, usage.used + usage.free)
