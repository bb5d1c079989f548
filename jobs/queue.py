"""The doorbell. A message tells a worker that a job may be waiting; the database says whether it is.

So a message may be lost, repeated or late without harm, and the broker may be down: the dispatcher rings again.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import structlog
from celery import Celery
from kombu.entity import Exchange, Queue
from kombu.exceptions import OperationalError

from jobs.broker import NONE, parse_broker

log = structlog.get_logger()

TASK = "dream.run_job"
QUEUE = "default"
CLASS_PREFIX = "gpu."
SHARED = ":x"
"""Before the number of devices; no class has a colon. Access lists of brokers know queues by how they begin."""

_COMMON: dict[str, Any] = {
    "accept_content": ["json"],
    "task_serializer": "json",
    "task_ignore_result": True,
    "task_default_queue": QUEUE,
    "broker_connection_timeout": 1,
    "enable_utc": True,
}


def make_app(redis_url: str, *, current: bool = False, transport: Mapping[str, Any] = {}, **settings: Any) -> Celery:
    """A Celery application at the broker. Raises ValueError for one that cannot be used."""
    broker = parse_broker(redis_url)
    app = Celery("dream", broker=broker.url, set_as_current=current)
    app.conf.update(_COMMON, **settings, broker_transport_options={**transport, **broker.options})
    return app


def queue_of(gpu_class: str | None, gpus: int = 1) -> str:
    """Where jobs wait that want this class of GPU, or none in particular, and so many devices."""
    return _for_devices(QUEUE if gpu_class is None else CLASS_PREFIX + gpu_class, gpus)


def queues_of(queue: str, devices: int) -> tuple[str, ...]:
    """All that a worker takes from: the common queue and that of its class, each for up to so many devices."""
    return tuple(_for_devices(name, gpus) for gpus in range(1, devices + 1) for name in dict.fromkeys((QUEUE, queue)))


def wanted_of(queue: str) -> tuple[str | None, int]:
    """The class and the number of devices that jobs of a queue want."""
    queue, _, gpus = queue.partition(SHARED)
    return (queue.removeprefix(CLASS_PREFIX) if queue.startswith(CLASS_PREFIX) else None), int(gpus or 1)


def _for_devices(queue: str, gpus: int) -> str:
    return queue if gpus == 1 else f"{queue}{SHARED}{gpus}"


def make_worker_app(redis_url: str, queues: Iterable[str] = (QUEUE,)) -> Celery:
    """The Celery application of a worker: takes one message at a time, and acknowledges it before it starts."""
    return make_app(
        redis_url,
        current=True,
        task_queues=[Queue(name, Exchange(name), name) for name in queues],
        # With late acknowledgement the broker hands a message that takes longer than its visibility timeout to a
        # second worker, and one that kills its worker to every worker in turn. The lease in the database does better.
        task_acks_late=False,
        task_reject_on_worker_lost=False,
        # A fetched message waits behind the running job even while other workers are idle.
        worker_disable_prefetch=True,
        worker_prefetch_multiplier=1,
        worker_pool="threads",
        worker_concurrency=1,
        worker_soft_shutdown_timeout=100,
        worker_hijack_root_logger=False,
        broker_connection_retry_on_startup=True,
        transport={
            "visibility_timeout": 86_400,
            "socket_connect_timeout": 5,
            "socket_timeout": 30,
            "socket_keepalive": True,
            "health_check_interval": 25,
        },
    )


class Bell:
    """Rings for jobs. A call takes about a second at most, and none raises: an unreachable broker is an answer.

    Where there is to be no broker (`REDIS_URL=none`) nobody has to be told: workers look for themselves.
    """

    def __init__(self, redis_url: str) -> None:
        self._app: Celery | None = None
        if redis_url == NONE:
            return
        self._app = make_app(
            redis_url,
            task_publish_retry=False,
            broker_pool_limit=2,  # to connect anew takes ten times as long as to ring
            transport={
                "socket_connect_timeout": 1,
                "socket_timeout": 1,
                "max_retries": 1,
                "interval_start": 0,  # kombu waits two seconds by default, even before giving up
            },
        )
        connection = self._app.connection_for_write()
        self._away = (OperationalError, *connection.connection_errors, *connection.channel_errors)

    @property
    def absent(self) -> bool:
        """Whether there is to be no broker."""
        return self._app is None

    def ring(self, job_id: str, queue: str = QUEUE) -> bool:
        """Tell workers of the queue that a job waits. False if the broker cannot be reached, or takes no message."""
        if self._app is None:
            return True
        try:
            self._app.send_task(TASK, args=[job_id], queue=queue, ignore_result=True)
        except self._away as error:
            log.warning("queue.unreachable", job_id=job_id, error=str(error))
            return False
        return True

    def waiting(self, queue: str = QUEUE) -> int | None:
        """How many messages no worker has taken yet. None if the broker cannot be reached."""
        if self._app is None:
            return 0
        try:
            with self._app.connection_for_write() as connection:
                return connection.default_channel.queue_declare(queue, durable=True).message_count
        except self._away as error:
            log.warning("queue.unreachable", error=str(error))
            return None
