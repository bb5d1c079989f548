"""The Celery worker: `celery -A worker.app worker`. Waits for the bell, and keeps the house in order meanwhile."""

import sys
from functools import cache
from typing import Any

from celery.signals import (
    heartbeat_sent,
    setup_logging,
    worker_init,
    worker_ready,
    worker_shutdown,
    worker_shutting_down,
)
from pydantic import ValidationError

from jobs.logs import configure_logging
from jobs.queue import make_worker_app
from jobs.settings import complaint, get_settings
from worker.chores import Chore
from worker.gpu import own_gpu
from worker.house import House, prepared

try:
    queues = own_gpu(get_settings()).queues
    app = make_worker_app(get_settings().redis_url, queues)
except ValidationError as error:
    sys.exit(f"error: {complaint(error)}")
app.conf.update(include=("worker.tasks",), worker_redirect_stdouts=False)


@cache
def house() -> House:
    """The one of this process."""
    return prepared(get_settings())


class Presence:
    """Tells the database that this worker is here, and stops taking messages while it is being drained."""

    def __init__(self, node: str):
        self._node = node
        self._consuming = True

    def tell(self) -> None:
        """Once; call it every few seconds."""
        draining = house().report()
        if draining is self._consuming:
            command = app.control.cancel_consumer if draining else app.control.add_consumer
            for queue in queues:
                command(queue, destination=[self._node])
            self._consuming = not draining


@setup_logging.connect
def _log(**_: Any) -> None:
    configure_logging()  # being connected to the signal keeps Celery from setting up its own


@worker_init.connect
def _prepare(**_: Any) -> None:
    house()


@worker_ready.connect
def _ready(sender: Any, **_: Any) -> None:
    house().open(Chore("presence", get_settings().heartbeat_s, Presence(sender.hostname).tell))


@heartbeat_sent.connect
def _beat(**_: Any) -> None:
    """For health checks: to ask the worker through the broker takes a Python that starts longer than it asks."""
    if (file := get_settings().beat_file) is not None:
        file.touch()


@worker_shutting_down.connect
def _shutting_down(**_: Any) -> None:
    house().close()


@worker_shutdown.connect
def _shut_down(**_: Any) -> None:
    house().wait_for_chores()
