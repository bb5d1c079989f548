"""What a job leaves behind: files with a manifest, hashed, then published by one rename.

A reader sees all of a result or nothing. The job's row is the publish point: files of a job that has not succeeded
are not served, and are replaced by the next attempt.
"""

import hashlib
import mimetypes
import re
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from jobs.files import sync

MANIFEST = "manifest.json"
VERSION = "v1"
JOB_ID = re.compile(r"job_[0-9a-f]{32}")
ArchiveFormat = Literal["imagefolder", "npz", "hf", "safetensors"]
"""What a whole result can be had as."""


class InvalidArtifacts(Exception):
    """What was staged is not what its manifest says."""


class ManifestFile(BaseModel):
    """A file of the result, its path relative to the manifest."""

    path: str
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    media_type: str


class Manifest(BaseModel):
    """`manifest.json`: what there is, and how it is used. Only the files are this module's business."""

    model_config = ConfigDict(extra="allow")

    files: list[ManifestFile]

    @property
    def total_bytes(self) -> int:
        """Of all files together."""
        return sum(file.bytes for file in self.files)


@dataclass(frozen=True, slots=True)
class Artifact:
    """A published file, ready to be sent."""

    location: Path
    name: str
    bytes: int
    sha256: str
    media_type: str


class ArtifactStore:
    """Artifacts on a local disk: `staging/<uuid>/` while written, `artifacts/<job>/v1/` for good."""

    def __init__(self, artifacts: Path, staging: Path) -> None:
        self._artifacts, self._staging = artifacts, staging

    def stage(self) -> Path:
        """A new empty directory to write a result into."""
        directory = self._staging / uuid.uuid4().hex
        directory.mkdir(parents=True)
        return directory

    def verify(self, staged: Path) -> Manifest:
        """Compare every staged file with the manifest, and see it safely to the disk. Slow: not inside a transaction.

        Raises InvalidArtifacts, naming what is missing, different, unlisted or no plain file.
        """
        try:
            manifest = _read_manifest(staged)
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

    def publish(self, staged: Path, job_id: str) -> None:
        """Make verified files the job's result, by a rename. Call it in the transaction that settles the job."""
        target = self.directory(job_id)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():  # an earlier attempt got as far as here, but did not commit
            target.rename(self._staging / uuid.uuid4().hex)
        staged.rename(target)
        sync(target.parent)

    def discard(self, staged: Path) -> None:
        """Remove what was staged, if it is still there."""
        shutil.rmtree(staged, ignore_errors=True)

    def delete(self, job_id: str) -> None:
        """Remove all that was published for a job."""
        shutil.rmtree(self.directory(job_id).parent, ignore_errors=True)

    def manifest(self, job_id: str) -> Manifest:
        """The manifest of a published result. Raises FileNotFoundError if there is none."""
        return _read_manifest(self.directory(job_id))

    def find(self, job_id: str, path: str) -> Artifact | None:
        """A published file by its path in the manifest, or the manifest itself; None for any other path."""
        directory = self.directory(job_id)
        if path == MANIFEST:
            location = directory / MANIFEST
            return Artifact(location, MANIFEST, location.stat().st_size, _sha256(location), "application/json")
        for file in self.manifest(job_id).files:
            if file.path == path and _is_safe(path):
                return Artifact(directory / path, PurePosixPath(path).name, file.bytes, file.sha256, file.media_type)
        return None

    def directory(self, job_id: str) -> Path:
        """Where a published result is, if there is one. Raises ValueError for what is no id."""
        if not JOB_ID.fullmatch(job_id):
            raise ValueError(f"not the id of a job: {job_id!r}")
        return self._artifacts / job_id / VERSION


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


def _read_manifest(directory: Path) -> Manifest:
    try:
        return Manifest.model_validate_json((directory / MANIFEST).read_bytes())
    except ValidationError as error:
        raise InvalidArtifacts(f"{MANIFEST} is not a manifest: {error}") from error


def _is_safe(path: str) -> bool:
    parts = PurePosixPath(path).parts
    plain = "\\" not in path and ":" not in path and path.isprintable()
    return plain and bool(parts) and not path.startswith("/") and ".." not in parts and str(PurePosixPath(path)) == path


def _sha256(location: Path) -> str:
    with location.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
