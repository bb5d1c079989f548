"""Takes a job from its claim to its end. Loads no torch: every attempt computes in a process of its own."""

import contextlib
import json
import os
import shutil
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from threading import Event

import structlog
from sqlalchemy.orm import Session, sessionmaker

from jobs import dispatcher, repository
from jobs.artifacts import ArtifactStore
from jobs.lifecycle import Status
from jobs.queue import Bell
from jobs.settings import Settings
from jobs.tables import Job
from worker.attempt import Attempt
from worker.process import Child
from worker.relay import Relay
from worker.settlement import Settlement

log = structlog.get_logger()

RUNNER = (sys.executable, "-m", "worker.runner")


class Supervisor:
    """Runs one job at a time; `close` ends the current one at a checkpoint and takes no more."""

    def __init__(
        self, settings: Settings, sessions: sessionmaker[Session], bell: Bell, command: Sequence[str] = RUNNER
    ):
        self._settings, self._sessions, self._bell, self._command = settings, sessions, bell, command
        self._store = ArtifactStore(settings.artifacts, settings.staging)
        self._closing = Event()
        self.name = f"{socket.gethostname()}:{os.getpid()}"

    def close(self) -> None:
        """The worker shuts down: the running job goes back to the queue, uncharged."""
        self._closing.set()

    def run(self, job_id: str) -> Status | None:
        """One attempt. Returns what the job is now, or None if there was nothing to take or it was taken away."""
        if self._closing.is_set():
            return None
        with self._sessions.begin() as session:
            job = repository.claim(session, job_id, self.name, self._settings.lease_s)
        if job is None:
            log.info("job.not_claimed", job_id=job_id)
            return None
        with structlog.contextvars.bound_contextvars(job_id=job.id, attempt=job.attempt):
            log.info("job.claimed", dataset=job.dataset, method=job.method)
            status = self._attempt(job)
            log.info("job.settled", status=status)
        if status is Status.QUEUED and not self._closing.is_set():  # else the broker may be about to end, too
            dispatcher.tick(self._sessions, self._bell)
        elif status in (Status.SUCCEEDED, Status.CANCELLED):
            shutil.rmtree(self._settings.checkpoints / job.id, ignore_errors=True)
        return status

    def _attempt(self, job: Job) -> Status | None:
        settlement = Settlement(job.id, job.attempt, self._sessions, self._store, self._settings.lease_s)
        workdir = self._settings.scratch / job.id / str(job.attempt)
        staged: Path | None = None
        try:
            staged = self._store.stage()
            child = self._start(job, workdir, staged)
        except OSError as error:
            self._clean(workdir, staged)
            return settlement.fail_for(error)
        try:
            relay = Relay(workdir / "events.jsonl", self._sessions, job.id, job.attempt)
            limit = job.spec["resources"]["max_runtime_s"]
            watched = (child, relay, self._sessions, self._settings, self._closing)
            ending = Attempt(job.id, job.attempt, limit, *watched).watch()
            log.info("runner.ended", code=ending.code, stop=ending.stop)
            return settlement.settle(ending, workdir, staged, child.log_tail())
        finally:
            if child.poll() is None:  # this process failed
                child.kill()
            self._clean(workdir, staged)

    def _start(self, job: Job, workdir: Path, staged: Path) -> Child:
        shutil.rmtree(workdir, ignore_errors=True)
        workdir.mkdir(parents=True)
        checkpoints = self._settings.checkpoints / job.id
        checkpoints.mkdir(parents=True, exist_ok=True)
        order = {
            "job_id": job.id,
            "recipe": job.resolved_spec,
            "data_dir": str(self._settings.data_dir),
            "download": self._settings.allow_download,
            "device": self._settings.device,
            "checkpoints": str(checkpoints),
            "output": str(staged),
            "cache": str(self._settings.cache),
            "checkpoint_interval_s": self._settings.checkpoint_interval_s,
            "attempt": job.attempt,
            "grace_s": self._settings.grace_s,
        }
        (workdir / "job.json").write_text(json.dumps(order, indent=2), encoding="utf-8")
        return Child(self._command, workdir)

    def _clean(self, workdir: Path, staged: Path | None) -> None:
        if staged:
            self._store.discard(staged)
        shutil.rmtree(workdir, ignore_errors=True)
        with contextlib.suppress(OSError):  # another attempt's may lie beside it
            workdir.parent.rmdir()
