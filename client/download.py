"""Fetches a job's files: resumable, verified against the manifest, each in place whole or not at all."""

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.parse import quote

import httpx2

from client.errors import ApiError, DownloadFailed, ServiceUnreachable
from client.transport import Transport

OnBytes = Callable[[str, int, int], None]
"""Called with a file's name, the bytes of it that are here, and its size."""

MANIFEST = "manifest.json"
BREAKS = 4
"""Broken connections that one file may suffer, each resumed where it broke."""


@dataclass(frozen=True, slots=True)
class Download:
    """A finished download: where it lies, the manifest, and the files in the manifest's order, the manifest last."""

    directory: Path
    manifest: dict[str, Any]
    files: tuple[Path, ...]

    @property
    def bytes(self) -> int:
        return sum(file.stat().st_size for file in self.files)


@dataclass(frozen=True, slots=True)
class Entry:
    """A file as the manifest promises it."""

    name: str
    target: Path
    bytes: int
    sha256: str

    @property
    def part(self) -> Path:
        return self.target.with_name(self.target.name + ".part")


def download(transport: Transport, job_id: str, directory: Path, on_bytes: OnBytes | None = None) -> Download:
    """Fetch what is not here yet. `manifest.json` is written last: where it is, everything is.

    Raises `DownloadFailed` for a file that twice arrives other than promised, or a name that leads outside `directory`.
    """
    response = transport.request("GET", f"/v1/jobs/{job_id}/artifacts/{MANIFEST}")
    manifest = transport.decode(response)
    entries = plan(manifest, directory)
    try:
        for entry in entries:
            entry.target.parent.mkdir(parents=True, exist_ok=True)
            _check_inside(entry, directory)
            fetch(transport, job_id, entry, on_bytes or (lambda *_: None))
        last = directory / MANIFEST
        part = last.with_name(last.name + ".part")
        part.write_bytes(response.content)
        os.replace(part, last)
    except OSError as error:
        message = f"cannot write to {directory}: {error.strerror or error}"
        raise DownloadFailed(
            message, advice="free space or choose another directory, then run it again: it resumes"
        ) from None
    return Download(directory, manifest, (*(entry.target for entry in entries), last))


def plan(manifest: dict[str, Any], directory: Path) -> list[Entry]:
    """The manifest's files, after a look at every name: it must stay inside the directory, and meet no other."""
    entries, seen = [], {MANIFEST}
    try:
        for file in manifest["files"]:
            entries.append(Entry(file["path"], directory / file["path"], int(file["bytes"]), str(file["sha256"])))
    except (KeyError, TypeError, ValueError):
        raise DownloadFailed("the manifest is not one", advice="is this the address of a dream service?") from None
    for entry in entries:
        if not is_safe(entry.name) or entry.name.casefold() in seen or entry.bytes < 0:
            message = f"the manifest names a file that may not be written: {entry.name!r}"
            raise DownloadFailed(message, advice="do not trust this server")
        seen.add(entry.name.casefold())
    return entries


def is_safe(name: str) -> bool:
    """Whether a manifest's path is plain and relative, on every system."""
    parts = PurePosixPath(name).parts
    return (
        bool(parts)
        and str(PurePosixPath(*parts)) == name
        and not name.startswith("/")
        and not any(part in {"..", "."} or part.endswith((".part", " ", ".")) for part in parts)
        and not any(character in '\\:*?"<>|' or not character.isprintable() for character in name)
    )


def _check_inside(entry: Entry, directory: Path) -> None:
    """A link that lies in the directory already must not lead the file elsewhere."""
    if not entry.target.parent.resolve().is_relative_to(directory.resolve()):
        raise DownloadFailed(f"{entry.target} leads outside {directory}", advice="download into an empty directory")


def fetch(transport: Transport, job_id: str, entry: Entry, on_bytes: OnBytes) -> None:
    """One file, whole and verified. One that arrives corrupted is fetched once more from its first byte."""
    if entry.target.is_file() and entry.target.stat().st_size == entry.bytes and _sha256(entry.target) == entry.sha256:
        on_bytes(entry.name, entry.bytes, entry.bytes)
        return
    for _ in range(2):
        _complete(transport, job_id, entry, on_bytes)
        if entry.part.stat().st_size == entry.bytes and _sha256(entry.part) == entry.sha256:
            os.replace(entry.part, entry.target)
            return
        entry.part.unlink()
    raise DownloadFailed(
        f"{entry.name} arrived twice with other bytes than the manifest promises",
        advice="the service's copy is damaged: tell whoever runs it, or submit the job again",
    )


def _complete(transport: Transport, job_id: str, entry: Entry, on_bytes: OnBytes) -> None:
    """Bring the `.part` file to its size, going on where an earlier attempt stopped."""
    for broken in range(BREAKS):
        try:
            return _append(transport, job_id, entry, on_bytes)
        except ServiceUnreachable:
            if broken == BREAKS - 1:
                raise
            time.sleep(0.5 * (broken + 1))
    return None


def _append(transport: Transport, job_id: str, entry: Entry, on_bytes: OnBytes) -> None:
    have = entry.part.stat().st_size if entry.part.is_file() else 0
    if have > entry.bytes:
        have = 0
    if have == entry.bytes > 0:
        return
    headers = {"Range": f"bytes={have}-", "If-Range": f'"{entry.sha256}"'} if have else {}
    path = f"/v1/jobs/{job_id}/artifacts/{quote(entry.name)}"
    try:
        with transport.stream(path, headers) as response:
            # not by the status: there are S3 servers that answer a part with 200
            resumed = have > 0 and response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
            with entry.part.open("r+b" if resumed else "wb") as file:
                file.seek(have if resumed else 0)
                file.truncate()
                _copy(response, file, entry, on_bytes)
    except ApiError as error:
        if error.status != httpx2.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        entry.part.write_bytes(b"")  # the service's copy is shorter than promised: start again, and compare


def _copy(response: httpx2.Response, file: IO[bytes], entry: Entry, on_bytes: OnBytes) -> None:
    """Copy the body, but never more than one byte beyond what was promised: enough to see that it is wrong."""
    for chunk in response.iter_bytes(1 << 18):
        room = entry.bytes + 1 - file.tell()
        file.write(chunk[:room])
        on_bytes(entry.name, min(file.tell(), entry.bytes), entry.bytes)
        if len(chunk) >= room:
            return


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
