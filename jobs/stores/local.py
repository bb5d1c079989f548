"""Artifacts on a local disk: `staging/<uuid>/` while written, `artifacts/<job>/v1/` for good."""

import shutil
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from jobs.artifacts import JOB_ID, MANIFEST, VERSION, Manifest, ManifestFile, Result, new_directory, require_id
from jobs.files import sync


@dataclass(frozen=True, slots=True)
class LocalFiles:
    """The files in a directory."""

    directory: Path

    def open(self, file: ManifestFile) -> BinaryIO:
        return self.locate(file).open("rb")

    def locate(self, file: ManifestFile) -> Path:
        return self.directory / file.path


class LocalStore:
    """A result is published by the rename of its directory, so that one job has one, whichever attempt made it."""

    def __init__(self, artifacts: Path, staging: Path) -> None:
        self._artifacts, self._staging = artifacts, staging

    def check(self) -> None:
        """The disk is looked after elsewhere."""

    def stage(self) -> Path:
        return new_directory(self._staging)

    def upload(self, staged: Path, manifest: Manifest, job_id: str, attempt: int) -> None:
        """It is here already."""

    def publish(self, staged: Path, job_id: str) -> None:
        target = self.directory(job_id)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():  # an earlier attempt got as far as here, but did not commit
            target.rename(self._staging / uuid.uuid4().hex)
        staged.rename(target)
        sync(target.parent)

    def withdraw(self, job_id: str, attempt: int) -> None:
        """There are no uploads."""

    def discard(self, staged: Path) -> None:
        shutil.rmtree(staged, ignore_errors=True)

    def delete(self, job_id: str) -> None:
        shutil.rmtree(self.directory(job_id).parent, ignore_errors=True)

    def result(self, job_id: str, attempt: int) -> Result:
        directory = self.directory(job_id)
        return Result.of((directory / MANIFEST).read_bytes(), LocalFiles(directory))

    def jobs(self) -> list[str]:
        names = [path.name for path in self._artifacts.iterdir()] if self._artifacts.is_dir() else []
        return [name for name in names if JOB_ID.fullmatch(name)]

    def uploads(self, job_id: str) -> dict[int, float]:
        return {}

    def changed_at(self, job_id: str) -> float:
        try:
            return self.directory(job_id).parent.stat().st_mtime
        except FileNotFoundError:
            return time.time()

    def directory(self, job_id: str) -> Path:
        """Where a published result is, if there is one. Raises ValueError for what is no id."""
        return self._artifacts / require_id(job_id) / VERSION
