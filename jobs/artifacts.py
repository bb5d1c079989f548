"""What a job leaves behind: files with a manifest, hashed, and what a store of them does.

A reader sees all of a result or nothing. The job's row is the publish point: what an attempt has stored is served once
the row says that the job has a result, and that this attempt was its last.
"""

import hashlib
import mimetypes
import re
import uuid
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Literal, Protocol
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from jobs.advice import Advised
from jobs.files import sync

MANIFEST = "manifest.json"
VERSION = "v1"
JOB_ID = re.compile(r"job_[0-9a-f]{32}")
ArchiveFormat = Literal["imagefolder", "npz", "hf", "safetensors"]
"""What a whole result can be had as."""


class InvalidArtifacts(Exception):
    """What was staged is not what its manifest says."""


class StorageUnavailable(Advised, OSError):
    """The store of artifacts does not do what is asked of it. `advice` says what the operator can do; there is no
    secret in either.
    """


class ManifestFile(BaseModel):
    """A file of the result, its path relative to the manifest."""

    path: str
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    media_type: str

    @property
    def name(self) -> str:
        """Without its folders."""
        return PurePosixPath(self.path).name

    @property
    def disposition(self) -> str:
        """The Content-Disposition of its download."""
        quoted = quote(self.name)
        return f'attachment; filename="{quoted}"' if quoted == self.name else f"attachment; filename*=utf-8''{quoted}"


class Manifest(BaseModel):
    """`manifest.json`: what there is, and how it is used. Only the files are this module's business."""

    model_config = ConfigDict(extra="allow")

    files: list[ManifestFile]

    @property
    def total_bytes(self) -> int:
        """Of all files together."""
        return sum(file.bytes for file in self.files)


class Files(Protocol):
    """Where the files of a published result are."""

    def open(self, file: ManifestFile) -> BinaryIO:
        """For reading, from any place in it. Raises FileNotFoundError and StorageUnavailable, as do its reads."""
        ...

    def locate(self, file: ManifestFile) -> Path | str:
        """Its path on this machine's disk, or a URL that gives it for some minutes to whoever has it."""
        ...


@dataclass(frozen=True, slots=True)
class Result:
    """A published result, to be read."""

    manifest_json: bytes
    manifest: Manifest
    files: Files

    @classmethod
    def of(cls, manifest_json: bytes, files: Files) -> "Result":
        """Raises InvalidArtifacts where the manifest is none."""
        return cls(manifest_json, _parse(manifest_json), files)

    def find(self, path: str) -> ManifestFile | None:
        """A file by its path in the manifest, or the manifest itself; None for any other path."""
        if path == MANIFEST:
            digest = hashlib.sha256(self.manifest_json).hexdigest()
            size = len(self.manifest_json)
            return ManifestFile(path=MANIFEST, bytes=size, sha256=digest, media_type="application/json")
        return next((file for file in self.manifest.files if file.path == path and _is_safe(path)), None)


class ArtifactStore(Protocol):
    """Takes results in, and gives them out. All raise StorageUnavailable where they have to ask a server in vain."""

    def check(self) -> None:
        """See whether it can be used, within seconds."""
        ...

    def stage(self) -> Path:
        """A new empty directory on this machine's disk to write a result into."""
        ...

    def upload(self, staged: Path, manifest: Manifest, job_id: str, attempt: int) -> None:
        """Bring verified files to where they will be served from, if that is another machine. Slow: not inside a
        transaction. Nobody sees them before the job's row says so. Called again, it goes on where it stopped.
        """
        ...

    def publish(self, staged: Path, job_id: str) -> None:
        """Make what is here the job's result, by a rename. Call it in the transaction that settles the job."""
        ...

    def withdraw(self, job_id: str, attempt: int) -> None:
        """Remove what an attempt has uploaded."""
        ...

    def discard(self, staged: Path) -> None:
        """Remove what was staged, if it is still there."""
        ...

    def delete(self, job_id: str) -> None:
        """Remove all that there is of a job."""
        ...

    def result(self, job_id: str, attempt: int) -> Result:
        """What the last attempt of a job has published. Raises FileNotFoundError if there is nothing."""
        ...

    def jobs(self) -> list[str]:
        """Ids of the jobs of which there is something."""
        ...

    def uploads(self, job_id: str) -> dict[int, float]:
        """The attempts of which there is an upload, and when it last changed, in seconds since 1970."""
        ...

    def changed_at(self, job_id: str) -> float:
        """When something of the job last changed, in seconds since 1970; now, if it is gone."""
        ...


def new_directory(staging: Path) -> Path:
    """An empty directory of its own under `staging`."""
    directory = staging / uuid.uuid4().hex
    directory.mkdir(parents=True)
    return directory


def verify(staged: Path) -> Manifest:
    """Compare every staged file with the manifest, and see it safely to the disk. Slow: not inside a transaction.

    Raises InvalidArtifacts, naming what is missing, different, unlisted or no plain file.
    """
    try:
        manifest = _parse((staged / MANIFEST).read_bytes())
    except FileNotFoundError:
        raise InvalidArtifacts(f"{MANIFEST} is missing") from None
    problems = []
    for file in manifest.files:
        location = staged / file.path
        if not _is_safe(file.path):
            problems.append(f"{file.path!r} is not a plain relative path")
        elif location.is_symlink() or not location.is_file():
            problems.append(f"{file.path} is missing")
        elif location.stat().st_size != file.bytes or _sha256(location) != file.sha256:
            problems.append(f"{file.path} differs from its checksum")
    listed = {MANIFEST, *(file.path for file in manifest.files)}
    for location in staged.rglob("*"):
        name = location.relative_to(staged).as_posix()
        if location.is_symlink() or (not location.is_dir() and name not in listed):
            problems.append(f"{name} is not in the manifest")
    if problems:
        raise InvalidArtifacts("; ".join(problems))
    for location in (*staged.rglob("*"), staged):
        sync(location)
    return manifest


def require_id(job_id: str) -> str:
    """The id, for use in a path. Raises ValueError for what is none."""
    if not JOB_ID.fullmatch(job_id):
        raise ValueError(f"not the id of a job: {job_id!r}")
    return job_id


def write_manifest(directory: Path, facts: dict[str, Any]) -> Manifest:
    """Hash every file in `directory` and write the manifest, last, with `facts` beside the list of files."""
    files = [
        ManifestFile(
            path=location.relative_to(directory).as_posix(),
            bytes=location.stat().st_size,
            sha256=_sha256(location),
            media_type=mimetypes.guess_type(location.name)[0] or "application/octet-stream",
        )
        for location in sorted(directory.rglob("*"))
        if location.is_file()
    ]
    manifest = Manifest(files=files, **facts)
    (directory / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return manifest


def _parse(content: bytes) -> Manifest:
    try:
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        raise InvalidArtifacts(f"{MANIFEST} is not a manifest: {error}") from error


def _is_safe(path: str) -> bool:
    parts = PurePosixPath(path).parts
    plain = "\\" not in path and ":" not in path and path.isprintable()
    return plain and bool(parts) and not path.startswith("/") and ".." not in parts and str(PurePosixPath(path)) == path


def _sha256(location: Path) -> str:
    with location.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
