"""What an attempt's ending means for its job."""

import errno
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from jobs import repository
from jobs.artifacts import ArtifactStore, InvalidArtifacts
from jobs.lifecycle import ErrorClass, Status
from worker.attempt import Ending, Stop

log = structlog.get_logger()

RETRY_S = 1.0
UNSAID = {74: {"code": "IO_ERROR", "message": "the disk failed, so that not even the reason could be written down"}}
"""What an exit code says by itself, for a runner that could not leave an error.json."""

Settle = Callable[[Session], Status | None]


class Settlement:
    """Settles one attempt, each way in one transaction that the fence guards."""

    def __init__(
        self, job_id: str, attempt: int, sessions: sessionmaker[Session], store: ArtifactStore, patience_s: float
    ):
        self._job_id, self._attempt = job_id, attempt
        self._sessions, self._store, self._patience_s = sessions, store, patience_s

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
                status = self.fail(ErrorClass.TIMEOUT, "MAX_RUNTIME", message)
            case Ending(code=64 | 70 | 74):
                unsaid = UNSAID.get(ending.code, {})
                status = self._fail_as_told(unsaid | _read(workdir / "error.json"))
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
        error = {"class": cause, "code": code, "message": message}
        return self._commit(
            lambda session: repository.settle(session, self._job_id, self._attempt, Status.FAILED, error=error)
        )

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
        """The rename and the row's new status are one transaction: a stale attempt publishes nothing."""
        summary = _read(workdir / "result.json")

        def publish(session: Session) -> Status | None:
            status = repository.settle(session, self._job_id, self._attempt, Status.SUCCEEDED, result_summary=summary)
            if status is Status.SUCCEEDED and staged.exists():
                self._store.publish(staged, self._job_id)
            return status

        try:
            self._store.verify(staged)
            return self._commit(publish)
        except (InvalidArtifacts, FileNotFoundError) as error:
            return self.fail(ErrorClass.INTERNAL, "INVALID_ARTIFACTS", f"the result is not complete: {error}")
        except OSError as error:
            return self.fail_for(error)

    def fail_for(self, error: OSError) -> Status | None:
        """The job has failed because of the disk."""
        code = "DISK_FULL" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "IO_ERROR"
        return self.fail(ErrorClass.INTERNAL, code, f"the worker's disk failed: {error}")

    def _commit(self, settle: Settle) -> Status | None:
        """Once the database answers. After the lease another worker settles, so there is no use in waiting longer."""
        deadline = time.monotonic() + self._patience_s
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
