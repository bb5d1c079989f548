"""The files of an upload, in `uploads/<dataset id>/`: parts as they arrive, then one zip, then the prepared images.

The images lie in a folder that is called like the dataset. No dataset's name begins with a dot, so no other file is in
its way.
"""

import hashlib
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from jobs.files import sync

PART_BYTES = 64 << 20
"""The most that a part may have."""
MAX_PARTS = 10_000

_PART = re.compile(r"(\d{5})-([0-9a-f]{64})")
_CHUNK = 1 << 20


class PartTooLarge(Exception):
    """More bytes have come than a part may have."""


class Interrupted(Exception):
    """Told to stop."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part that has arrived."""

    number: int
    bytes: int
    sha256: str


@dataclass(slots=True)
class Incoming:
    """A part that is arriving."""

    path: Path
    file: BinaryIO
    size: int = 0
    _hash: Any = field(default_factory=hashlib.sha256)

    def write(self, chunk: bytes) -> None:
        """Add to it. Raises PartTooLarge instead of writing more than a part may have."""
        self.size += len(chunk)
        if self.size > PART_BYTES:
            raise PartTooLarge(f"a part may have {PART_BYTES:,} bytes at most; send more, smaller ones")
        self.file.write(chunk)
        self._hash.update(chunk)

    def finish(self) -> None:
        """See it safely to the disk. Slow: not inside a transaction."""
        self.file.flush()
        sync(self.path)

    @property
    def sha256(self) -> str:
        """Of what has come so far, in hexadecimal."""
        return self._hash.hexdigest()


class UploadFiles:
    """The place of one upload."""

    def __init__(self, uploads: Path, dataset_id: str) -> None:
        self.directory = uploads / dataset_id
        self._parts = self.directory / ".parts"
        self.zip = self.directory / ".raw.zip"

    def parts(self) -> list[Part]:
        """What has arrived, by number."""
        if not self._parts.is_dir():
            return []
        found = {
            int(match[1]): Part(int(match[1]), path.stat().st_size, match[2])
            for path in self._parts.iterdir()
            if (match := _PART.fullmatch(path.name))
        }
        return [found[number] for number in sorted(found)]

    @contextmanager
    def incoming(self) -> Iterator[Incoming]:
        """Where a part can be written. Removed afterwards unless it was kept."""
        self._parts.mkdir(parents=True, exist_ok=True)
        path = self._parts / f"incoming-{uuid.uuid4().hex}"
        try:
            with path.open("xb") as file:
                yield Incoming(path, file)
        finally:
            path.unlink(missing_ok=True)

    def keep(self, number: int, incoming: Incoming) -> Part:
        """Make a finished one the part of this number, in place of one that came before. One at a time."""
        name = f"{number:05}-{incoming.sha256}"
        before = [path for path in self._parts.glob(f"{number:05}-*") if path.name != name]
        incoming.path.rename(self._parts / name)
        for path in before:
            path.unlink()
        sync(self._parts)
        return Part(number, incoming.size, incoming.sha256)

    def last_written(self) -> datetime | None:
        """When the last part arrived, or began to."""
        return datetime.fromtimestamp(self._parts.stat().st_mtime, UTC) if self._parts.is_dir() else None

    def join(self, expected: str | None, go_on: Callable[[], bool]) -> str | None:
        """Put the parts together as `zip`; the SHA-256 of it. None where it is `zip` already.

        Where that is not as `expected` the parts stay as they are, and there is no `zip`. Raises Interrupted when
        `go_on`, which is asked for every part, says no.
        """
        if self.zip.is_file():
            return None
        whole, partial = hashlib.sha256(), self.directory / ".raw.partial"
        with partial.open("wb") as target:
            for part in self.parts():
                if not go_on():
                    raise Interrupted
                with (self._parts / f"{part.number:05}-{part.sha256}").open("rb") as source:
                    while chunk := source.read(_CHUNK):
                        whole.update(chunk)
                        target.write(chunk)
        if expected in (None, whole.hexdigest()):
            partial.rename(self.zip)
            shutil.rmtree(self._parts, ignore_errors=True)
        return whole.hexdigest()

    def discard_zip(self) -> None:
        """What came is not needed any more: keep what was made of it."""
        self.zip.unlink(missing_ok=True)
        shutil.rmtree(self._parts, ignore_errors=True)

    def discard(self) -> None:
        """All of it."""
        shutil.rmtree(self.directory, ignore_errors=True)
