"""A folder or a zip of images, seen alike: names with slashes, and the bytes behind them."""

import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Protocol

from dream_core.errors import DatasetInvalid
from dream_core.inventory import describe, is_litter

MAX_FILE_BYTES = 64 * 2**20
MAX_TOTAL_BYTES = 64 * 2**30
MAX_FILES = 2_000_000


class Files(Protocol):
    """What a tree of images is read through. Names are relative, sorted, and without litter."""

    where: str

    def names(self, folder: str) -> list[str]: ...

    def folders(self, inside: str = "") -> list[str]: ...

    def read(self, name: str) -> bytes: ...

    def found(self) -> str: ...


class FolderFiles:
    """Files under a folder."""

    def __init__(self, root: Path) -> None:
        self.root, self.where = root, str(root)

    def names(self, folder: str) -> list[str]:
        """All files below `folder`, at any depth."""
        return sorted(path.relative_to(self.root).as_posix() for path in _walk(self.root / folder))

    def folders(self, inside: str = "") -> list[str]:
        """The names of the folders in `inside`, or at the top."""
        return sorted(
            path.name for path in (self.root / inside).iterdir() if path.is_dir() and not is_litter(path.name)
        )

    def read(self, name: str) -> bytes:
        path = self.root / name
        if path.stat().st_size > MAX_FILE_BYTES:
            raise DatasetInvalid(f"{path} is larger than {MAX_FILE_BYTES >> 20} MiB")
        return path.read_bytes()

    def found(self) -> str:
        return describe(self.root)


def _walk(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if is_litter(path.name):
            continue
        if path.is_dir():
            yield from _walk(path)
        else:
            yield path


class ZipFiles:
    """Files in a zip, read in memory and never extracted. One folder around everything is looked through.

    Raises DatasetInvalid where the zip is damaged, encrypted, or has names or sizes that an honest one has not.
    """

    def __init__(self, path: Path) -> None:
        self.where = str(path)
        try:
            self._archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
            raise DatasetInvalid(f"{path} is not a readable zip: {error}") from error
        entries = [info for info in self._archive.infolist() if not info.is_dir()]
        self._refuse_oversize(entries)
        for info in entries:
            self._refuse_dangerous(info)
        kept = {info.filename: info for info in entries if not any(map(is_litter, info.filename.split("/")))}
        tops = {name.split("/")[0] for name in kept}
        prefix = f"{tops.pop()}/" if len(tops) == 1 and all("/" in name for name in kept) else ""
        if prefix in ("train/", "test/", "val/"):
            prefix = ""
        self._entries = {name.removeprefix(prefix): info for name, info in kept.items()}

    def _refuse_oversize(self, entries: list[zipfile.ZipInfo]) -> None:
        total = sum(info.file_size for info in entries)
        if len(entries) > MAX_FILES or total > MAX_TOTAL_BYTES:
            raise DatasetInvalid(
                f"{self.where} holds {len(entries)} files of {total >> 20} MiB unpacked; "
                f"at most {MAX_FILES} files and {MAX_TOTAL_BYTES >> 20} MiB are read"
            )

    def _refuse_dangerous(self, info: zipfile.ZipInfo) -> None:
        name = PurePosixPath(info.filename)
        if not name.parts:
            raise DatasetInvalid(f"{self.where}: {info.filename!r} is no name of a file")
        if name.is_absolute() or ".." in name.parts or "\\" in info.orig_filename or ":" in name.parts[0]:
            raise DatasetInvalid(f"{self.where}: the name {info.filename!r} leads out of the archive")
        if stat.S_ISLNK(info.external_attr >> 16):
            raise DatasetInvalid(f"{self.where}: {info.filename} is a link; put the file itself into the archive")
        if info.flag_bits & 1:
            raise DatasetInvalid(f"{self.where}: {info.filename} is encrypted")
        if info.file_size > MAX_FILE_BYTES:
            raise DatasetInvalid(f"{self.where}: {info.filename} is larger than {MAX_FILE_BYTES >> 20} MiB")

    def names(self, folder: str) -> list[str]:
        """All files below `folder`, at any depth."""
        return sorted(name for name in self._entries if name.startswith(f"{folder}/"))

    def folders(self, inside: str = "") -> list[str]:
        """The names of the folders in `inside`, or at the top. An empty folder is not seen."""
        parts = [
            name.removeprefix(f"{inside}/").split("/") for name in (self.names(inside) if inside else self._entries)
        ]
        return sorted({first for first, *rest in parts if rest})

    def read(self, name: str) -> bytes:
        try:
            return self._archive.read(self._entries[name])  # never more than the size checked above
        except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError) as error:
            raise DatasetInvalid(f"{self.where}: {name} cannot be read: {error}") from error

    def found(self) -> str:
        tops = sorted({name.split("/")[0] + "/" * ("/" in name) for name in self._entries})
        return ", ".join(tops[:8]) + (f" and {len(tops) - 8} more" if len(tops) > 8 else "") or "nothing"
