"""The Celery worker: `celery -A worker.app worker`. Waits for the bell, and keeps the queue honest meanwhile."""

from functools import cache
from threading import Event, Thread
from typing import Any

import structlog
from celery.signals import setup_logging, worker_init, worker_ready, worker_shutting_down
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from jobs import dispatcher
from jobs.database import make_engine, make_sessions, migrate
from jobs.logs import configure_logging
from jobs.queue import Bell, make_worker_app
from jobs.settings import get_settings
from worker.supervisor import Supervisor

log = structlog.get_logger()

app = make_worker_app(get_settings().redis_url)
app.conf.update(include=("worker.tasks",), worker_redirect_stdouts=False)
closing = Event()


@cache
def sessions() -> sessionmaker[Session]:
    return make_sessions(make_engine(get_settings().database_url))


@cache
def supervisor() -> Supervisor:
    """The one of this process."""
    settings = get_settings()
    return Supervisor(settings, sessions(), Bell(settings.redis_url))


def dispatch() -> None:
    """Tick until the worker shuts down. A database that is away for a while is waited for."""
    settings = get_settings()
    bell = Bell(settings.redis_url)
    while not closing.is_set():
        try:
            dispatcher.tick(sessions(), bell)
        except SQLAlchemyError as error:
            log.warning("dispatcher.failed", error=str(error))
        closing.wait(settings.dispatch_s)


@setup_logging.connect
def _log(**_: Any) -> None:
    configure_logging()  # being connected to the signal keeps Celery from setting up its own


@worker_init.connect
def _prepare(**_: Any) -> None:
    migrate(get_settings().database_url)  # whichever of the API and the workers is the first to start


@worker_ready.connect
def _ready(**_: Any) -> None:
    Thread(target=dispatch, name="dispatcher", daemon=True).start()
    log.info("worker.ready", name=supervisor().name)


@worker_shutting_down.connect
def _shutting_down(**_: Any) -> None:
    closing.set()
    supervisor().close()
