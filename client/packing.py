"""A folder of images as a zip: the same bytes whenever the same files are packed, so that an upload can go on."""

import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from client.errors import UploadFailed

LITTER = {"__MACOSX", "Thumbs.db", "desktop.ini"}
EPOCH = (1980, 1, 1, 0, 0, 0)
BUFFER = 1 << 20


def pack(folder: Path, target: Path, on_bytes: Callable[[int, int], None]) -> None:
    """Write all files of a folder to a zip, without compression: images have theirs. `on_bytes`: done, of how many.

    Hidden files are left out. Raises `UploadFailed`.
    """
    files = sorted(find_files(folder))
    if not files:
        raise UploadFailed(f"there are no files in {folder}", advice="expected train/CLASS/*.png and test/CLASS/*.png")
    total, done = sum(file.stat().st_size for file in files), 0
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for file in files:
            entry = zipfile.ZipInfo(file.relative_to(folder).as_posix(), EPOCH)
            with file.open("rb") as source, archive.open(entry, "w", force_zip64=True) as sink:
                shutil.copyfileobj(source, sink, BUFFER)
            done += file.stat().st_size
            on_bytes(done, total)


def find_files(folder: Path) -> Iterator[Path]:
    """All files under a folder, those behind links too."""
    seen: set[str] = set()
    for here, folders, files in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(here)) in seen:
            raise UploadFailed(f"{here} is a link to a folder that is in it already", advice="remove the link")
        seen.add(real)
        folders[:] = [name for name in folders if not is_litter(name)]
        yield from (Path(here, name) for name in files if not is_litter(name))


def is_litter(name: str) -> bool:
    """Whether it is nobody's data: hidden files, and what systems leave in folders."""
    return name.startswith(".") or name in LITTER
