"""Zips that are made while they are sent: no temporary file, nothing compressed, the same bytes every time."""

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from zipfile import ZIP64_LIMIT, ZIP_FILECOUNT_LIMIT, ZipFile, ZipInfo

CHUNK = 1 << 16
_HEADERS = 30 + 46 + 16  # bytes of a file's entry in a zip, beside its content and twice its name
_END = 22


@dataclass(frozen=True, slots=True)
class Member:
    """A file of the zip. `size` is None where it is not known before the content is made."""

    name: str
    content: Iterable[bytes]
    size: int | None = None


class _Sink(io.RawIOBase):
    """Takes what is written until it is fetched. There is no going back in it: sizes are put behind the content."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        self.size += len(data)
        return len(data)

    def take(self) -> bytes:
        taken, self._parts, self.size = b"".join(self._parts), [], 0
        return taken


def zipped(members: Iterable[Member]) -> Iterator[bytes]:
    """A zip of these files, in pieces of CHUNK bytes and more. All are from 1980, whenever it is made."""
    sink = _Sink()
    with ZipFile(sink, "w") as file:
        for member in members:
            entry = ZipInfo(member.name)
            entry.external_attr = 0o644 << 16
            entry.file_size = member.size or 0
            with file.open(entry, "w") as target:
                for chunk in member.content:
                    target.write(chunk)
                    if sink.size >= CHUNK:
                        yield sink.take()
    yield sink.take()


def zip_length(members: Sequence[Member]) -> int | None:
    """Bytes that `zipped` makes of them; None where that is not known, or where it takes what large zips take."""
    total = _END
    for member in members:
        if member.size is None or member.size * 1.05 > ZIP64_LIMIT:
            return None
        total += _HEADERS + 2 * len(member.name.encode()) + member.size
    return total if total <= ZIP64_LIMIT and len(members) <= ZIP_FILECOUNT_LIMIT else None
