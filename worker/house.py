"""What a worker is beside how it hears of jobs: a supervisor, and chores that keep the house in order meanwhile."""

import platform
import sys
from importlib.metadata import version
from threading import Event, Thread

import psutil
import structlog
from prometheus_client import CollectorRegistry

from jobs import dispatcher, operations, retention
from jobs.artifacts import StorageUnavailable
from jobs.database import make_engine, make_sessions, migrate
from jobs.metrics import serve_metrics
from jobs.queue import Bell
from jobs.settings import Settings
from jobs.stores import open_store
from worker import webhooks
from worker.chores import Chore
from worker.datasets_chore import DatasetValidation
from worker.gpu import GpuFigures, own_gpu
from worker.launcher import LauncherMissing, make_launcher
from worker.supervisor import Supervisor

log = structlog.get_logger()

WEBHOOKS_S = 1.0
DATASETS_S = 2.0
ORPHANS_S = 30.0
RETENTION_S = 600.0
CHORES_END_S = 2.0


class House:
    """The one of a process."""

    def __init__(self, settings: Settings):
        self.settings, self.closing = settings, Event()
        self.sessions = make_sessions(make_engine(settings.database_url))
        self.bell, self.launcher = Bell(settings.redis_url), make_launcher(settings)
        self.gpu = own_gpu(settings)
        self.supervisor = Supervisor(settings, self.sessions, self.bell, self.launcher, self.gpu.queues)
        self._threads: list[Thread] = []
        self._facts = {
            "version": version("dream-distillation"),
            "device": settings.device,
            "gpu": self.gpu.name,
            "devices": self.gpu.devices,
            "memory_bytes": psutil.virtual_memory().total,
            "cpus": psutil.cpu_count(),
            "host": platform.node(),
        }

    def open(self, *more: Chore) -> None:
        """Show figures, and begin with the chores."""
        gpus = CollectorRegistry()
        gpus.register(GpuFigures())
        serve_metrics(self.settings, gpus)
        self._threads.extend(chore.start(self.closing) for chore in (*self._chores(), *more))
        log.info("worker.ready", name=self.supervisor.name)

    def tick(self) -> None:
        """The dispatcher's round."""
        dispatcher.tick(self.sessions, self.bell, self.settings.ring_again_s)

    def report(self) -> bool:
        """Tell the database that this worker is here. Returns whether it is being drained."""
        name, job_id = self.supervisor.name, self.supervisor.job_id
        with self.sessions.begin() as session:
            return operations.report_worker(session, name, self.gpu.queue, self._facts, job_id)

    def close(self) -> None:
        """End the running job at a checkpoint, take no more, and begin no chore."""
        self.closing.set()
        self.supervisor.close()

    def wait_for_chores(self) -> None:
        """So that what they have claimed is given back, not lost."""
        for thread in self._threads:
            thread.join(CHORES_END_S)

    def _chores(self) -> list[Chore]:
        settings, sessions = self.settings, self.sessions
        return [
            Chore("dispatcher", settings.dispatch_s, self.tick),
            Chore("orphans", ORPHANS_S, lambda: self.launcher.stop_orphans(sessions)),
            Chore("webhooks", WEBHOOKS_S, lambda: webhooks.deliver_due(sessions, settings) > 0),
            Chore("datasets", DATASETS_S, DatasetValidation(settings, sessions, self.closing)),
            Chore("retention", RETENTION_S, lambda: retention.sweep(sessions, settings)),
        ]


def prepared(settings: Settings) -> House:
    """A house on a database that is up to date. Ends the process where the worker could not work, and says why."""
    try:
        migrate(settings.database_url)  # whichever of the API and the workers is the first to start
        open_store(settings).check()
        return House(settings)
    except (StorageUnavailable, LauncherMissing) as error:
        sys.exit(f"error: {error}: {error.advice}")
