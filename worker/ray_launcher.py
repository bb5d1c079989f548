"""Runners as jobs of a Ray cluster, through its Jobs API.

Ray starts the very command that would be a process otherwise, on a node that has room for it. Its nodes have this
package installed, `python` on their path, and see DREAM_HOME and DREAM_DATA_DIR under the same paths as the worker:
order, events, checkpoints and results go through files.

A Ray job outlives the worker that has submitted it. It is stopped by the next attempt before that one starts, or by
`stop_orphans`, whichever is first; whatever it reports meanwhile is fenced out.
"""

import json
import os
import shlex
import signal
import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import structlog
from ray.job_submission import (  # pyright: ignore[reportMissingImports]
    JobDetails,
    JobStatus,
    JobSubmissionClient,
)
from requests.exceptions import RequestException
from sqlalchemy.orm import Session, sessionmaker

from jobs import repository
from jobs.settings import Settings
from worker import stopping
from worker.launcher import LOG, RUNNER
from worker.stopping import Stop

log = structlog.get_logger()

LOOK_S = 1.0
KILL_S = 10.0
"""So long Ray is waited for to end what is to be killed."""
EXIT_CODE = "exit_code"
KILLED, STOPPED = -signal.SIGKILL, os.EX_TEMPFAIL
AWAY = (RequestException, ConnectionError, RuntimeError)
"""What Ray's client raises where there is no answer, and RuntimeError for every answer but a good one."""
GONE = "status code 404"
"""How it says that Ray knows no such job: the head has been started anew."""


class RayLauncher:
    """Submits runners to Ray. What it has of ours is known by `home`: one cluster may serve several services."""

    def __init__(self, settings: Settings, command: Sequence[str] = ("python", *RUNNER)):
        self._settings, self._command = settings, command

    def start(self, job_id: str, attempt: int, workdir: Path) -> "RayRun":
        """Have it submitted as soon as Ray answers and earlier attempts are over: `poll` sees to it."""
        return RayRun(self, job_id, attempt, workdir)

    @cached_property
    def client(self) -> JobSubmissionClient:
        """Of Ray's Jobs API. Raises AWAY, and is then tried again."""
        return JobSubmissionClient(self._settings.ray_address)

    def submit(self, job_id: str, attempt: int, workdir: Path) -> None:
        """Raises AWAY."""
        settings, devices = self._settings, json.loads((workdir / "job.json").read_bytes()).get("gpus", 1)
        self.client.submit_job(
            entrypoint=entrypoint(self._command, workdir),
            submission_id=submission_id(job_id, attempt),
            metadata={"home": str(settings.home), "job_id": job_id, "attempt": str(attempt)},
            runtime_env={"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(int(settings.grace_s))}},
            entrypoint_num_cpus=settings.ray_cpus * devices,
            entrypoint_num_gpus=settings.ray_gpus * devices or None,
        )

    def running(self) -> list[JobDetails]:
        """Our Ray jobs that are not over. Raises AWAY."""
        mine = [job for job in self.client.list_jobs() if (job.metadata or {}).get("home") == str(self._settings.home)]
        return [job for job in mine if not job.status.is_terminal()]

    def stop_orphans(self, sessions: sessionmaker[Session]) -> None:
        """Stop the Ray jobs whose attempt holds its job no more: its worker died, or nobody wants it. While Ray is
        away there is nothing to be done."""
        try:
            for job in self.running():
                with sessions() as session:
                    held = repository.held_status(session, job.metadata["job_id"], int(job.metadata["attempt"]))
                if held is None:
                    log.warning("ray.orphan_stopped", submission_id=job.submission_id)
                    self.client.stop_job(job.submission_id)
        except AWAY as error:
            log.warning("ray.unreachable", error=str(error))


class RayRun:
    """An attempt on Ray. While Ray is away it is taken to run on: the lease says for how long that is so."""

    def __init__(self, launcher: RayLauncher, job_id: str, attempt: int, workdir: Path):
        self._launcher, self._job_id, self._attempt, self._workdir = launcher, job_id, attempt, workdir
        self._submitted = self._asked = False
        self._code: int | None = None
        self._look_at = 0.0

    def poll(self) -> int | None:
        """The exit code as Settlement knows them, or None. Asks Ray once a second at most."""
        if self._code is None and time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + LOOK_S
            try:
                self._code = self._look() if self._submitted else self._submit()
            except AWAY as error:
                log.warning("ray.unreachable", error=str(error))
        return self._code

    def terminate(self, stop: Stop) -> None:
        """Tell it why, and have Ray send SIGTERM, and SIGKILL when the grace is over."""
        stopping.tell(self._workdir, stop)
        self._asked = True
        if self._submitted:
            self._ask_to_stop()
        elif self._code is None:
            self._code = STOPPED

    def kill(self) -> None:
        """Ray knows SIGTERM first, and SIGKILL after the grace. Whoever is still there after KILL_S is given up: with
        its working directory gone it fails at the next thing that it reports."""
        if self.poll() is not None:
            return
        end = time.monotonic() + KILL_S
        while self._submitted and self.poll() is None and time.monotonic() < end:
            self._ask_to_stop()
            time.sleep(LOOK_S)
        if self._code is None:
            self._code = KILLED

    def dump_stacks(self) -> None:
        """Not through Ray's Jobs API; its dashboard shows them."""
        log.warning("ray.no_stacks", submission_id=submission_id(self._job_id, self._attempt))

    def _submit(self) -> None:
        """Once all earlier attempts at the job are over. One whose answer was lost is found, not submitted again."""
        known = [job for job in self._launcher.running() if job.metadata["job_id"] == self._job_id]
        earlier = [job for job in known if job.metadata["attempt"] != str(self._attempt)]
        for job in earlier:
            log.warning("ray.earlier_stopped", submission_id=job.submission_id)
            self._launcher.client.stop_job(job.submission_id)
        if not earlier:
            if not known:
                self._launcher.submit(self._job_id, self._attempt, self._workdir)
            self._submitted = True

    def _look(self) -> int | None:
        try:
            info = self._launcher.client.get_job_info(submission_id(self._job_id, self._attempt))
        except RuntimeError as error:
            if GONE in str(error):
                return KILLED
            raise
        if self._asked and info.status is JobStatus.PENDING:  # Ray stops it when there is room for it, and at once
            return STOPPED
        return exit_code(info, self._workdir)

    def _ask_to_stop(self) -> None:
        try:
            self._launcher.client.stop_job(submission_id(self._job_id, self._attempt))
        except AWAY as error:
            log.warning("ray.not_stopped", error=str(error))


def submission_id(job_id: str, attempt: int) -> str:
    """What Ray calls an attempt."""
    return f"{job_id}-{attempt}"


def entrypoint(command: Sequence[str], workdir: Path) -> str:
    """The shell's command. The shell outlives a SIGTERM, to leave the exit code: Ray forgets that of what it stops."""
    place, line = shlex.quote(str(workdir)), shlex.join([*command, str(workdir)])
    return f"trap : TERM; {line} >>{place}/{LOG} 2>&1; code=$?; echo $code >{place}/{EXIT_CODE}; exit $code"


def exit_code(info: JobDetails, workdir: Path) -> int | None:
    """What Ray says of a job, in the codes of a process. None: it is not over."""
    if not info.status.is_terminal():
        return None
    code = info.driver_exit_code
    if info.status is JobStatus.STOPPED:
        code = _left(workdir)
    if code is None:  # the node died, or it could not be started
        log.warning("ray.lost", submission_id=info.submission_id, status=info.status.value, said=info.message)
        return KILLED
    return 128 - code if code > 128 else code  # so the shell tells of a signal


def _left(workdir: Path) -> int | None:
    try:
        return int((workdir / EXIT_CODE).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
