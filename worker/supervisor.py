"""Takes a job from its claim to its end. Loads no torch: every attempt computes in a process of its own,
which a launcher starts, here or elsewhere."""

import contextlib
import json
import os
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path
from threading import Event

import structlog
from sqlalchemy.orm import Session, sessionmaker

from jobs import dispatcher, metrics, repository
from jobs.checkpoints import list_checkpoints
from jobs.lifecycle import TERMINAL, Status
from jobs.queue import QUEUE, Bell
from jobs.settings import Settings
from jobs.stores import open_store
from jobs.tables import Job
from worker.attempt import Attempt
from worker.joblog import JobLog
from worker.launcher import LOG, Handle, Launcher, log_tail
from worker.relay import Relay
from worker.settlement import Settlement

log = structlog.get_logger()


class Supervisor:
    """Runs one job at a time; `close` ends the current one at a checkpoint and takes no more."""

    def __init__(
        self,
        settings: Settings,
        sessions: sessionmaker[Session],
        bell: Bell,
        launcher: Launcher,
        queues: Sequence[str] = (QUEUE,),
    ):
        self._settings, self._sessions, self._bell, self._launcher = settings, sessions, bell, launcher
        self._queues = queues
        self._store = open_store(settings)
        self._closing = Event()
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self.job_id: str | None = None
        """The job that it is at."""

    def close(self) -> None:
        """The worker shuts down: the running job goes back to the queue, uncharged."""
        self._closing.set()

    def run(self, job_id: str | None = None) -> Status | None:
        """One attempt, at the job that is next: the one that was rung for only says that there is something to do.

        Returns what the job is now, or None if there was nothing to take or it was taken away.
        """
        if self._closing.is_set():
            return None
        with self._sessions.begin() as session:
            job = repository.claim_next(
                session, self.name, self._settings.lease_s, self._queues, self._settings.max_running
            )
        if job is None:
            if job_id:
                log.info("job.none_to_claim", rung_for=job_id)
            return None
        with structlog.contextvars.bound_contextvars(job_id=job.id, attempt=job.attempt):
            log.info("job.claimed", dataset=job.dataset, method=job.method, rung_for=job_id)
            self.job_id = job.id
            try:
                status = self._attempt(job)
            finally:
                self.job_id = None
            log.info("job.settled", status=status)
            self._count(job, status)
        if status is Status.QUEUED and not self._closing.is_set():  # else the broker may be about to end, too
            dispatcher.tick(self._sessions, self._bell, self._settings.ring_again_s)
        return status

    def _count(self, job: Job, status: Status | None) -> None:
        """Put an attempt into the figures."""
        if status is None:
            metrics.FENCED.inc()
        metrics.ATTEMPTS.labels(status or "lost").inc()
        claimed = job.claimed_at or job.queued_at
        metrics.QUEUE_WAIT.observe((claimed - job.queued_at).total_seconds())
        metrics.RUN_SECONDS.labels(job.method).observe((repository.utcnow() - claimed).total_seconds())
        if status in TERMINAL:
            with self._sessions() as session:
                settled = repository.get_job(session, job.id)
            metrics.FINISHED.labels(job.method, status, (settled and settled.status_reason) or "").inc()

    def _attempt(self, job: Job) -> Status | None:
        settlement = Settlement(job.id, job.attempt, self._sessions, self._store, self._settings)
        workdir = self._settings.scratch / job.id / str(job.attempt)
        staged: Path | None = None
        try:
            staged = self._store.stage()
            runner = self._start(job, workdir, staged)
        except OSError as error:
            self._clean(workdir, staged)
            return settlement.fail_for(error)
        try:
            relay = Relay(workdir / "events.jsonl", self._sessions, job.id, job.attempt, self._settings, job.method)
            job_log = JobLog(workdir / LOG, job.id, self._settings)
            job_log.begin(job.attempt, self.name)
            limit = job.spec["resources"]["max_runtime_s"]
            watched = (runner, relay, job_log, self._sessions, self._settings, self._closing)
            ending = Attempt(job.id, job.attempt, limit, *watched).watch()
            log.info("runner.ended", code=ending.code, stop=ending.stop)
            return settlement.settle(ending, workdir, staged, log_tail(workdir))
        finally:
            if runner.poll() is None:  # this process failed
                runner.kill()
            self._clean(workdir, staged)

    def _start(self, job: Job, workdir: Path, staged: Path) -> Handle:
        shutil.rmtree(workdir, ignore_errors=True)
        workdir.mkdir(parents=True)
        checkpoints = self._settings.checkpoints / job.id
        checkpoints.mkdir(parents=True, exist_ok=True)
        places = {
            "data_dir": self._settings.uploads / job.dataset_id if job.dataset_id else self._settings.data_dir,
            "checkpoints": checkpoints,
            "start_from": self._parent_checkpoint(job),
            "output": staged,
            "previews": self._settings.previews / job.id,
            "cache": self._settings.cache,
        }
        order = {
            "job_id": job.id,
            "recipe": job.resolved_spec,
            "download": self._settings.allow_download,
            "device": self._settings.device,
            "gpus": job.spec["resources"].get("gpus", 1),  # jobs of earlier versions do not say
            "checkpoint_interval_s": self._settings.checkpoint_interval_s,
            "attempt": job.attempt,
            "grace_s": self._settings.grace_s,
        } | {name: place and str(place) for name, place in places.items()}
        (workdir / "job.json").write_text(json.dumps(order, indent=2), encoding="utf-8")
        return self._launcher.start(job.id, job.attempt, workdir)

    def _parent_checkpoint(self, job: Job) -> Path | None:
        """Where the checkpoint lies that the job goes on from, if it does. One that is gone is the runner's to miss."""
        if job.parent_job_id is None or job.parent_step is None:
            return None
        directory = self._settings.checkpoints / job.parent_job_id
        found = [facts.directory for facts in list_checkpoints(directory) if facts.step == job.parent_step]
        return found[-1] if found else directory / "gone"

    def _clean(self, workdir: Path, staged: Path | None) -> None:
        if staged:
            self._store.discard(staged)
        shutil.rmtree(workdir, ignore_errors=True)
        with contextlib.suppress(OSError):  # another attempt's may lie beside it
            workdir.parent.rmdir()
