"""Reads zips of strangers: every name, size and overlap is checked before, and every byte counted while inflating.

Nothing is ever written under a name out of the zip: `Archive.read` gives the bytes of one file at a time.
"""

import contextlib
import re
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import BinaryIO, Self

from dream_core.inventory import is_litter

_CHUNK = 1 << 20
_TAIL = 22 + 65_535  # the end record and the longest comment behind it
_RATIO_SLACK = 1 << 20  # a small file may shrink to nothing
_NESTED = re.compile(r"\.(zip|jar|7z|rar|tar|tgz|tbz2?|txz|gz|bz2|xz|zst|lzma|cab|iso|dmg)$", re.IGNORECASE)
_DAMAGED = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, OverflowError, NotImplementedError)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a zip may hold and unpack to."""

    entries: int = 200_000
    file_bytes: int = 64 << 20
    total_bytes: int = 16 << 30
    """Also of what is made of it."""
    ratio: int = 100
    """Bytes unpacked for one in the zip."""
    directory_bytes: int = 64 << 20


class Refused(Exception):
    """Something that cannot be taken: a stable code, where in the zip it is, and what to do about it."""

    def __init__(self, code: str, message: str, path: str = "") -> None:
        super().__init__(message)
        self.code, self.message, self.path = code, message, path


class Archive:
    """A zip that has passed all checks which need no inflating. Raises Refused where it has not.

    `files` are the names of what is in it, without directories and `litter`; `folders` all directories, empty ones too.
    """

    def __init__(self, path: Path, limits: Limits) -> None:
        self._limits, self._inflated, self._compressed = limits, 0, 0
        try:
            with path.open("rb") as file:
                directory_at = _measure(file, path.stat().st_size, limits)
            self._zip = zipfile.ZipFile(path)
        except _DAMAGED as error:
            raise Refused("DAMAGED_ZIP", f"the zip is damaged ({error}); make it anew and upload it again") from error
        entries = {_name(info): info for info in self._zip.infolist()}
        try:
            _refuse_odd_names(list(map(_name, self._zip.infolist())))
            for name, info in entries.items():
                self._refuse_dangerous(name, info)
            _refuse_overlaps(list(entries.values()), directory_at)
            if sum(info.file_size for info in entries.values()) > limits.total_bytes:
                raise self._too_much()
        except Refused:
            self._zip.close()
            raise
        litter = {name for name in entries if any(map(is_litter, name.split("/")))}
        self.litter = sorted(litter)
        self._entries = {name: info for name, info in entries.items() if not info.is_dir() and name not in litter}
        self.files = sorted(self._entries)
        self.folders = {parent for name in entries.keys() - litter for parent in _parents(name)}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._zip.close()

    def read(self, name: str) -> bytes:
        """One file whole, which is at most `file_bytes`. Raises Refused where it is not what the zip says of it."""
        info = self._entries[name]
        self._compressed += info.compress_size
        data = bytearray()
        try:
            with self._zip.open(info) as file:
                while chunk := file.read(_CHUNK):
                    data += chunk
                    self._inflated += len(chunk)
                    self._refuse_excess(name, len(data), info.compress_size)
        except _DAMAGED as error:
            raise Refused("DAMAGED_ZIP", f"cannot be unpacked ({error}); make the zip anew", name) from error
        if len(data) != info.file_size:
            raise Refused("DAMAGED_ZIP", f"has {len(data)} bytes, not {info.file_size} as the zip says", name)
        return bytes(data)

    def _refuse_dangerous(self, name: str, info: zipfile.ZipInfo) -> None:
        if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise Refused("LINK", "is a link or a device; put the file itself into the zip", name)
        if info.flag_bits & 0x2041:  # encrypted, strongly encrypted, with a hidden directory
            raise Refused("ENCRYPTED", "is encrypted; make the zip without a password", name)
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise Refused("COMPRESSION", "is compressed in an unusual way; store it, or use deflate", name)
        if _NESTED.search(name):
            raise Refused("NESTED_ARCHIVE", "is an archive inside the zip; put its files into the zip instead", name)
        self._refuse_excess(name, info.file_size, info.compress_size)

    def _refuse_excess(self, name: str, size: int, compressed: int) -> None:
        limits = self._limits
        if size > limits.file_bytes:
            raise Refused("TOO_LARGE", f"is larger than {limits.file_bytes:,} bytes, the most that a file may be", name)
        if size > limits.ratio * compressed + _RATIO_SLACK:
            raise Refused("ZIP_BOMB", f"unpacks to more than {limits.ratio} times its size in the zip", name)
        if self._inflated > limits.total_bytes:
            raise self._too_much()
        if self._inflated > limits.ratio * self._compressed + _RATIO_SLACK:
            raise Refused("ZIP_BOMB", f"the zip unpacks to more than {limits.ratio} times its size")

    def _too_much(self) -> Refused:
        return Refused("TOO_LARGE", f"the zip unpacks to more than {self._limits.total_bytes:,} bytes; leave some out")


def _measure(file: BinaryIO, size: int, limits: Limits) -> int:
    """Where the central directory begins, after making sure that `zipfile` can read it in bounded memory.

    The count of entries in the end record may lie, so they are counted.
    """
    file.seek(max(0, size - _TAIL))
    tail = file.read(_TAIL)
    found = tail.rfind(b"PK\5\6")
    if found < 0:
        raise Refused("NOT_A_ZIP", "this is not a whole zip: its end is missing; upload all of a .zip file")
    disk, first_disk, _, count, length, start, comment = struct.unpack("<4H2LH", tail[found + 4 : found + 22])
    if found + 22 + comment != len(tail):
        raise Refused("DAMAGED_ZIP", "there is something behind the end of the zip; make it anew")
    end = size - len(tail) + found
    locator = tail[found - 20 : found] if found >= 76 else b""
    if locator.startswith(b"PK\6\7"):  # then `zipfile` takes the large record's word
        end -= 76
        record = tail[found - 76 : found - 20]
        record_length, place = struct.unpack("<Q", record[4:12])[0], struct.unpack("<Q", locator[8:16])[0]
        if not record.startswith(b"PK\6\6") or record_length != 44 or place != end:
            raise Refused("DAMAGED_ZIP", "its end record is not where it should be; make the zip anew")
        disk, first_disk, _, count, length, start = struct.unpack("<2L4Q", record[16:])
    if disk or first_disk:
        raise Refused("DAMAGED_ZIP", "this is one part of a zip in several; make it as a single file")
    if count > limits.entries or length > limits.directory_bytes:
        raise _too_many(limits)
    if start + length != end:
        raise Refused("DAMAGED_ZIP", "something has been put in front of the zip, or it is damaged; make it anew")
    file.seek(start)
    if sum(1 for _ in _headers(file, length, limits)) != count:
        raise Refused("DAMAGED_ZIP", f"it says that it has {count} entries, but has not; make it anew")
    return start


def _headers(file: BinaryIO, length: int, limits: Limits) -> Iterator[None]:
    passed = 0
    for number in range(1, length // 46 + 1):
        header = file.read(46)
        if len(header) < 46 or not header.startswith(b"PK\1\2"):
            raise Refused("DAMAGED_ZIP", "the directory of the zip is damaged; make it anew")
        if number > limits.entries:
            raise _too_many(limits)
        more = sum(struct.unpack("<3H", header[28:34]))
        file.seek(more, 1)
        passed += 46 + more
        yield
        if passed >= length:
            break
    if passed != length:
        raise Refused("DAMAGED_ZIP", "the directory of the zip is damaged; make it anew")


def _too_many(limits: Limits) -> Refused:
    return Refused("TOO_MANY_FILES", f"the zip has more than {limits.entries:,} entries; leave some out")


def _refuse_overlaps(entries: list[zipfile.ZipInfo], directory_at: int) -> None:
    """Bytes that belong to two entries are how a small zip unpacks to terabytes. Nothing may precede the first."""
    entries.sort(key=lambda info: info.header_offset)
    starts = [*(info.header_offset for info in entries), directory_at]
    if starts[0] != 0:
        raise Refused("DAMAGED_ZIP", "something has been put in front of the zip, or it is damaged; make it anew")
    for info, following in zip(entries, starts[1:], strict=True):
        if info.header_offset + 30 + info.compress_size > following:
            raise Refused("ZIP_BOMB", "overlaps another entry; make the zip anew with a usual program", _name(info))


def _name(info: zipfile.ZipInfo) -> str:
    """The name, its accents composed. macOS writes UTF-8 without saying so."""
    name = info.orig_filename
    if not info.flag_bits & 0x800:
        with contextlib.suppress(UnicodeError):
            name = name.encode("cp437").decode()
    return unicodedata.normalize("NFC", name)


def _parents(name: str) -> list[str]:
    """`a/b/c` is in `a` and `a/b`; `a/b/` itself is a directory."""
    return list(accumulate(name.split("/")[:-1], "{}/{}".format))


def _refuse_odd_names(names: list[str]) -> None:
    spellings: dict[str, str] = {}
    seen: set[str] = set()
    for name in names:
        parts = PurePosixPath(name).parts
        plain = "/".join(parts) + "/" * name.endswith("/")
        if not parts or name.startswith("/") or ".." in parts or "\\" in name or re.match("[A-Za-z]:", name):
            raise Refused("UNSAFE_NAME", "leads out of the zip; use relative names with slashes", name)
        if name != plain or not name.isprintable() or any(len(part.encode()) > 200 for part in parts):
            raise Refused("UNSAFE_NAME", "is no usable name: too long, or with characters that cannot be seen", name)
        if name in seen:
            raise Refused("DUPLICATE_NAME", "is in the zip twice; keep one", name)
        seen.add(name)
        for path in (*_parents(name), plain.removesuffix("/")):
            folded = unicodedata.normalize("NFC", path.casefold())
            if spellings.setdefault(folded, path) != path:
                other = spellings[folded]
                raise Refused("DUPLICATE_NAME", f"differs from {other!r} only in case or accents; rename one", path)
