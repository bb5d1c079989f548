"""The Celery worker: `celery -A worker.app worker`. Waits for the bell, and keeps the house in order meanwhile."""

import platform
from functools import cache
from importlib.metadata import version
from threading import Event, Thread
from typing import Any

import psutil
import structlog
from celery.signals import setup_logging, worker_init, worker_ready, worker_shutdown, worker_shutting_down
from sqlalchemy.orm import Session, sessionmaker

from jobs import dispatcher, operations, retention
from jobs.database import make_engine, make_sessions, migrate
from jobs.logs import configure_logging
from jobs.metrics import serve_metrics
from jobs.queue import QUEUE, Bell, make_worker_app
from jobs.settings import get_settings
from worker import webhooks
from worker.chores import Chore
from worker.datasets_chore import DatasetValidation
from worker.supervisor import Supervisor

log = structlog.get_logger()

WEBHOOKS_S = 1.0
DATASETS_S = 2.0
RETENTION_S = 600.0
CHORES_END_S = 2.0

app = make_worker_app(get_settings().redis_url)
app.conf.update(include=("worker.tasks",), worker_redirect_stdouts=False)
closing = Event()
threads: list[Thread] = []


@cache
def sessions() -> sessionmaker[Session]:
    return make_sessions(make_engine(get_settings().database_url))


@cache
def supervisor() -> Supervisor:
    """The one of this process."""
    settings = get_settings()
    return Supervisor(settings, sessions(), Bell(settings.redis_url))


class Presence:
    """Tells the database that this worker is here, and stops taking messages while it is being drained."""

    def __init__(self, node: str):
        self._node = node
        self._consuming = True
        self._facts = {
            "version": version("dream-distillation"),
            "device": get_settings().device,
            "memory_bytes": psutil.virtual_memory().total,
            "cpus": psutil.cpu_count(),
            "host": platform.node(),
        }

    def tell(self) -> None:
        """Once; call it every few seconds."""
        with sessions().begin() as session:
            draining = operations.report_worker(session, supervisor().name, QUEUE, self._facts, supervisor().job_id)
        if draining is self._consuming:
            command = app.control.cancel_consumer if draining else app.control.add_consumer
            command(QUEUE, destination=[self._node])
            self._consuming = not draining


def chores(node: str) -> list[Chore]:
    """What this worker does beside its jobs."""
    settings, bell = get_settings(), Bell(get_settings().redis_url)
    return [
        Chore("dispatcher", settings.dispatch_s, lambda: dispatcher.tick(sessions(), bell, settings.ring_again_s)),
        Chore("presence", settings.heartbeat_s, Presence(node).tell),
        Chore("webhooks", WEBHOOKS_S, lambda: webhooks.deliver_due(sessions(), settings) > 0),
        Chore("datasets", DATASETS_S, DatasetValidation(settings, sessions(), closing)),
        Chore("retention", RETENTION_S, lambda: retention.sweep(sessions(), settings)),
    ]


@setup_logging.connect
def _log(**_: Any) -> None:
    configure_logging()  # being connected to the signal keeps Celery from setting up its own


@worker_init.connect
def _prepare(**_: Any) -> None:
    migrate(get_settings().database_url)  # whichever of the API and the workers is the first to start


@worker_ready.connect
def _ready(sender: Any, **_: Any) -> None:
    serve_metrics(get_settings())
    threads.extend(chore.start(closing) for chore in chores(sender.hostname))
    log.info("worker.ready", name=supervisor().name)


@worker_shutting_down.connect
def _shutting_down(**_: Any) -> None:
    closing.set()
    supervisor().close()


@worker_shutdown.connect
def _shut_down(**_: Any) -> None:
    for thread in threads:  # so that what a chore has claimed is given back, not lost
        thread.join(CHORES_END_S)
