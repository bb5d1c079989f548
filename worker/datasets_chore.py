"""Examines uploaded datasets, one at a time: claims, joins the parts, has the zip examined, settles.

Any number of workers may do so. One that dies while it examines loses its lease, and another one begins again; after
the third loss the upload is rejected.
"""

import time
from dataclasses import dataclass, field
from threading import Event

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from jobs import uploads
from jobs.parts import Interrupted, UploadFiles
from jobs.settings import Settings
from jobs.tables import UploadedDataset
from worker.examination import Bounds
from worker.report import Report
from worker.unpacking import Limits, Refused
from worker.validation import Unfinished, validate

log = structlog.get_logger()

DISK_RETRY_S = 60
UNPACKED_FOR_ONE = 2
"""Bytes of images for one that may be uploaded: they are hardly any smaller in a zip."""


@dataclass(frozen=True, slots=True)
class DatasetValidation:
    """Call it now and then, from a thread that lives on; True: there may be more to do at once."""

    settings: Settings
    sessions: sessionmaker[Session]
    closing: Event
    bounds: Bounds = field(default_factory=Bounds)

    def __call__(self) -> bool:
        """Examine one dataset, if one waits. Raises only what the database raises."""
        with self.sessions.begin() as session:
            dataset = uploads.claim(session, self.settings.lease_s)
        if dataset is None:
            return False
        with structlog.contextvars.bound_contextvars(dataset_id=dataset.id, attempt=dataset.attempt):
            log.info("dataset.claimed", bytes=dataset.bytes)
            files = UploadFiles(self.settings.uploads, dataset.id)
            try:
                self._settle(dataset, files, *self._examine(dataset, files))
            except Unfinished:
                self._abandon(dataset, files)
            except OSError as error:
                log.error("dataset.disk_failed", error=str(error))
                self._release(dataset, DISK_RETRY_S)
        return not self.closing.is_set()

    def _examine(self, dataset: UploadedDataset, files: UploadFiles) -> tuple[Report, str | None]:
        """The report, and the SHA-256 of the zip if this attempt has put it together."""
        if dataset.attempt > uploads.MAX_LOSSES:
            return _lost(), None
        go_on = _Lease(self, dataset)
        try:
            sha256 = files.join(dataset.sha256, go_on)
        except Interrupted:
            raise Unfinished from None
        if sha256 and dataset.sha256 and sha256 != dataset.sha256:
            return _different(sha256, dataset.sha256), sha256
        limits = Limits(total_bytes=UNPACKED_FOR_ONE * self.settings.max_upload_bytes)
        return validate(files.zip, files.directory, dataset.name, limits, self.bounds, go_on), sha256

    def _settle(self, dataset: UploadedDataset, files: UploadFiles, report: Report, sha256: str | None) -> None:
        with self.sessions.begin() as session:
            settled = uploads.settle(session, dataset.id, dataset.attempt, report.as_dict(), sha256)
        codes = sorted({problem["code"] for problem in report.problems})
        log.info("dataset.settled" if settled else "dataset.fenced", ok=report.ok, codes=codes)
        if not settled:
            self._remove_if_deleted(dataset, files)
        elif report.ok:
            files.discard_zip()
        else:
            files.discard()

    def _abandon(self, dataset: UploadedDataset, files: UploadFiles) -> None:
        """Told to stop, fenced out, or the examining process was killed. The last is a loss: the lease runs out."""
        log.warning("dataset.unfinished", closing=self.closing.is_set())
        if self.closing.is_set():
            self._release(dataset, 0)
        self._remove_if_deleted(dataset, files)

    def _release(self, dataset: UploadedDataset, after_s: float) -> None:
        with self.sessions.begin() as session:
            uploads.release(session, dataset.id, dataset.attempt, after_s)

    def _remove_if_deleted(self, dataset: UploadedDataset, files: UploadFiles) -> None:
        with self.sessions.begin() as session:
            deleted = not uploads.is_there(session, dataset.id)
        if deleted:  # while we were writing there
            files.discard()


class _Lease:
    """Asked whether to go on: renews the claim meanwhile. No: the worker shuts down, or the dataset is not ours."""

    def __init__(self, chore: DatasetValidation, dataset: UploadedDataset) -> None:
        self._chore, self._dataset = chore, dataset
        self._renewed_at = time.monotonic()

    def __call__(self) -> bool:
        settings, since = self._chore.settings, time.monotonic() - self._renewed_at
        if self._chore.closing.is_set():
            return False
        if since < settings.heartbeat_s:
            return True
        try:
            with self._chore.sessions.begin() as session:
                held = uploads.renew(session, self._dataset.id, self._dataset.attempt, settings.lease_s)
        except DBAPIError as error:
            log.warning("lease.not_renewed", error=str(error.orig))
            return since < settings.lease_s
        self._renewed_at = time.monotonic()
        return held


def _lost() -> Report:
    message = (
        f"the examination was lost {uploads.MAX_LOSSES} times, perhaps for lack of memory; delete it and try again"
    )
    return Report.of(Refused("EXAMINATION_LOST", message))


def _different(sha256: str, expected: str) -> Report:
    message = f"what arrived has the SHA-256 {sha256}, not {expected} as was said; delete it and upload it again"
    return Report.of(Refused("CHECKSUM", message))
