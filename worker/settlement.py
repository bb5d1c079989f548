"""What an attempt's ending means for its job."""

import errno
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from jobs import repository
from jobs.artifacts import MANIFEST, ArtifactStore, InvalidArtifacts, StorageUnavailable, verify
from jobs.lifecycle import HELD, ErrorClass, Status
from jobs.redaction import scrub
from jobs.settings import Settings
from worker.attempt import Ending
from worker.holding import Holding
from worker.stopping import Stop

log = structlog.get_logger()

RETRY_S = 1.0
UNSAID = {74: {"code": "IO_ERROR", "message": "the disk failed, so that not even the reason could be written down"}}
"""What an exit code says by itself, for a runner that could not leave an error.json."""

Settle = Callable[[Session], Status | None]


class Settlement:
    """Settles one attempt, each way in one transaction that the fence guards."""

    def __init__(
        self, job_id: str, attempt: int, sessions: sessionmaker[Session], store: ArtifactStore, settings: Settings
    ):
        self._job_id, self._attempt = job_id, attempt
        self._sessions, self._store, self._settings = sessions, store, settings

    def settle(self, ending: Ending, workdir: Path, staged: Path, log_tail: str) -> Status | None:
        """What the job is now; None if it is no longer this attempt's to settle."""
        status = None
        match ending:
            case Ending(stop=Stop.FENCED):
                pass
            case Ending(code=0):  # the exit codes are those of <sysexits.h>
                status = self._publish(workdir, staged)
            case Ending(stop=Stop.TIMEOUT):
                message = "the job ran longer than resources.max_runtime_s allows"
                error = self._error(ErrorClass.TIMEOUT, "MAX_RUNTIME", message)
                status = self._end_early(Status.FAILED, error, workdir, staged)
            case Ending(code=64 | 70 | 74):
                unsaid = UNSAID.get(ending.code, {})
                status = self._fail_as_told(unsaid | _read(workdir / "error.json"))
            case Ending(stop=Stop.CANCEL):
                status = self._end_early(Status.CANCELLED, None, workdir, staged)
            case Ending(stop=Stop.STALLED):
                status = self._give_back(ErrorClass.WORKER_LOST)
            case Ending(code=75) | Ending(stop=Stop()):
                status = self._give_back(ErrorClass.HOST_SHUTDOWN)
            case Ending(code=code) if code < 0:
                status = self._give_back(ErrorClass.WORKER_LOST)
            case _:
                status = self._fail_crashed(ending.code, log_tail)
        return status

    def fail(self, cause: ErrorClass, code: str, message: str) -> Status | None:
        """The job has failed; trying again would not help."""
        error = self._error(cause, code, message)
        return self._commit(lambda session: self._settle(session, Status.FAILED, error=error))

    def _error(self, cause: ErrorClass, code: str, message: str) -> dict[str, Any]:
        return {"class": cause, "code": code, "message": scrub(message, self._settings)}

    def _fail_as_told(self, error: dict[str, Any]) -> Status | None:
        known = error.get("class") in list(ErrorClass)
        cause = ErrorClass(error["class"]) if known else ErrorClass.INTERNAL
        message = error.get("message", "the runner failed and did not say why")
        return self.fail(cause, error.get("code", "INTERNAL"), message)

    def _fail_crashed(self, code: int, log_tail: str) -> Status | None:
        log.error("runner.crashed", code=code, output=log_tail)
        last = log_tail.strip().splitlines()[-1:] or ["no output"]
        return self.fail(ErrorClass.INTERNAL, "RUNNER_CRASHED", f"the runner exited with code {code}: {last[0]}")

    def _give_back(self, cause: ErrorClass) -> Status | None:
        return self._commit(lambda session: repository.requeue(session, self._job_id, self._attempt, cause))

    def _publish(self, workdir: Path, staged: Path) -> Status | None:
        """The rename and the row's new status are one transaction: a stale attempt publishes nothing. What is kept on
        another machine is there before.
        """
        summary = _read(workdir / "result.json")

        def publish(session: Session) -> Status | None:
            job = repository.lock_job(session, self._job_id)
            late = job is not None and job.status is Status.CANCELLING
            outcome = Status.CANCELLED if late else Status.SUCCEEDED
            return self._settle(session, outcome, staged, result_summary=summary, partial=late, artifact_bytes=size)

        try:
            size = self._bring(staged)
            return self._commit_result(publish)
        except StorageUnavailable as error:
            return self._give_back_unstored(error)
        except (InvalidArtifacts, FileNotFoundError) as error:
            return self.fail(ErrorClass.INTERNAL, "INVALID_ARTIFACTS", f"the result is not complete: {error}")
        except OSError as error:
            return self.fail_for(error)

    def _end_early(self, outcome: Status, error: dict[str, Any] | None, workdir: Path, staged: Path) -> Status | None:
        """The job is over before its time. What the runner has left is published, if it is whole."""
        if (staged / MANIFEST).exists():
            summary = _read(workdir / "result.json")
            try:
                size = self._bring(staged)
                about = {"error": error, "result_summary": summary, "partial": True, "artifact_bytes": size}
                return self._commit_result(lambda session: self._settle(session, outcome, staged, **about))
            except (InvalidArtifacts, OSError) as trouble:
                log.warning("partial.not_published", error=str(trouble))
        status = self._commit(lambda session: self._settle(session, outcome, error=error))
        self._withdraw()
        return status

    def _bring(self, staged: Path) -> int:
        """Verify what is staged and have it where it will be served from; its bytes. However long it takes, the job
        stays ours meanwhile. Raises InvalidArtifacts and OSError; StorageUnavailable after as much patience as a lease.
        """
        deadline = time.monotonic() + self._settings.lease_s
        with Holding(self._sessions, self._job_id, self._attempt, self._settings) as holding:
            manifest = verify(staged)
            while True:
                try:
                    self._store.upload(staged, manifest, self._job_id, self._attempt)
                    return manifest.total_bytes
                except StorageUnavailable as error:
                    log.warning("artifacts.not_stored", error=str(error), advice=error.advice)
                    if holding.lost or time.monotonic() > deadline:
                        raise
                time.sleep(RETRY_S)

    def _give_back_unstored(self, error: StorageUnavailable) -> Status | None:
        """The result will be made again from the last checkpoint, as after a lost worker, and no more often."""
        words = self._error(ErrorClass.INTERNAL, "STORAGE_UNAVAILABLE", f"the result could not be stored: {error}")
        cause = ErrorClass.WORKER_LOST
        status = self._commit(lambda session: repository.requeue(session, self._job_id, self._attempt, cause, words))
        self._withdraw()
        return status

    def _commit_result(self, settle: Settle) -> Status | None:
        status = self._commit(settle)
        if status is None:
            self._withdraw()
        return status

    def _withdraw(self) -> None:
        """Remove what was uploaded, unless it is the job's result after all: the answer to a commit may be lost.

        Where that cannot be found out, it is left to the retention.
        """
        try:
            with self._sessions() as session:
                job = repository.get_job(session, self._job_id)
            mine = job is not None and job.attempt == self._attempt and (job.has_result or job.status in HELD)
            if not mine:
                self._store.withdraw(self._job_id, self._attempt)
        except (SQLAlchemyError, StorageUnavailable) as error:
            log.warning("upload.not_withdrawn", error=str(error))

    def _settle(self, session: Session, outcome: Status, staged: Path | None = None, **about: Any) -> Status | None:
        """Settle, and publish what is staged with it."""
        days = self._settings.retention_days
        status = repository.settle(session, self._job_id, self._attempt, outcome, retention_days=days, **about)
        if status and staged and staged.exists():  # else an earlier try got as far as this, but did not commit
            self._store.publish(staged, self._job_id)
        return status

    def fail_for(self, error: OSError) -> Status | None:
        """The job has failed because of the disk."""
        code = "DISK_FULL" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "IO_ERROR"
        return self.fail(ErrorClass.INTERNAL, code, f"the worker's disk failed: {error}")

    def _commit(self, settle: Settle) -> Status | None:
        """Once the database answers. After the lease another worker settles, so there is no use in waiting longer."""
        deadline = time.monotonic() + self._settings.lease_s
        while True:
            try:
                with self._sessions.begin() as session:
                    return settle(session)
            except DBAPIError as error:
                log.warning("job.not_settled", error=str(error.orig))
                if time.monotonic() > deadline:
                    return None
                time.sleep(RETRY_S)


def _read(path: Path) -> dict[str, Any]:
    """A JSON object that the runner left, empty if it did not."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
