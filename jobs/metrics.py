"""Figures for Prometheus (https://prometheus.io/docs/practices/naming/).

Counters and histograms are of this process; what the database knows is asked for when somebody looks, so that it does
not matter which process is asked. No id of a job, a user or a key is ever a label.
"""

import time
from collections.abc import Iterable, Iterator
from importlib.metadata import version

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram, Info, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from jobs.asking import Asking
from jobs.classes import taken_by
from jobs.files import room_at
from jobs.lifecycle import Status
from jobs.queue import QUEUE
from jobs.repository import utcnow
from jobs.settings import Settings
from jobs.tables import Job, PausedQueue, UploadedDataset, WorkerRow

log = structlog.get_logger()

REGISTRY = CollectorRegistry()
FRESH_S = 5.0
"""Figures of the database younger than this are shown again."""
ALIVE_S = 60.0
_LATENCIES = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_SPANS = (1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 12 * 3600, 24 * 3600, 7 * 24 * 3600)

HTTP_SECONDS = Histogram(
    "dream_http_request_duration_seconds",
    "From a request to the end of its answer",
    ("route", "method", "status"),
    buckets=_LATENCIES,
    registry=REGISTRY,
)
SUBMITTED = Counter("dream_jobs_submitted", "Jobs submitted", ("method", "dataset"), registry=REGISTRY)
FINISHED = Counter("dream_jobs_finished", "Jobs that came to an end", ("method", "status", "reason"), registry=REGISTRY)
QUEUE_WAIT = Histogram(
    "dream_job_queue_wait_seconds", "From queued to claimed", buckets=_SPANS, registry=REGISTRY
)  # fmt: skip
RUN_SECONDS = Histogram(
    "dream_job_run_seconds", "Of one attempt", ("method",), buckets=_SPANS, registry=REGISTRY
)  # fmt: skip
ATTEMPTS = Counter("dream_attempts", "Attempts that ended, by what the job was then", ("outcome",), registry=REGISTRY)
LEASES_EXPIRED = Counter("dream_lease_expired", "Attempts given up for lost", registry=REGISTRY)
FENCED = Counter("dream_fenced_writes", "Attempts that found another one in their place", registry=REGISTRY)
STEP_SECONDS = Histogram(
    "dream_step_duration_seconds",
    "Of steps as they are reported, at most two a second",
    ("method", "phase"),
    buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100),
    registry=REGISTRY,
)
CHECKPOINT_SECONDS = Histogram(
    "dream_checkpoint_write_seconds", "Of writing a checkpoint", buckets=_LATENCIES, registry=REGISTRY
)  # fmt: skip
CHECKPOINT_BYTES = Histogram(
    "dream_checkpoint_bytes", "Of a checkpoint", buckets=tuple(10.0**power for power in range(4, 11)), registry=REGISTRY
)
WEBHOOKS = Counter("dream_webhook_deliveries", "Messages to webhooks that were sent", ("outcome",), registry=REGISTRY)
Info("dream_build", "What is running", registry=REGISTRY).info({"version": version("dream-distillation")})


def serve_metrics(settings: Settings, *more: CollectorRegistry) -> None:
    """Show them, and `more`, on `settings.metrics_port` without a key, if there is such a port."""
    if settings.metrics_port is None:
        return
    everything = CollectorRegistry()
    for registry in (REGISTRY, *more):
        everything.register(registry)
    host, port = settings.metrics_host, settings.metrics_port
    try:
        start_http_server(port, addr=host, registry=everything)
    except OSError as error:  # as with several workers on one host
        log.warning("metrics.not_served", host=host, port=port, error=error.strerror)


class DatabaseFigures(Collector):
    """What the database knows. Where it is away only that is shown, and the figures of other collectors."""

    def __init__(self, readings: sessionmaker[Session], settings: Settings) -> None:
        self._readings, self._settings = readings, settings
        self._ask = Asking(self._all, None)
        self._figures: list[Metric] | None = None
        self._read_at = float("-inf")

    def describe(self) -> Iterable[Metric]:
        """Nothing is asked before somebody looks."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """All families."""
        if time.monotonic() - self._read_at > FRESH_S:
            self._figures = self._ask()
            if self._figures is not None:
                self._read_at = time.monotonic()
        reached = GaugeMetricFamily(
            "dream_database_up", "Whether the database answers", value=self._figures is not None
        )
        return [reached, *(self._figures or ())]

    def _all(self) -> list[Metric] | None:
        """None where the database is away."""
        try:
            with self._readings.begin() as session:
                return list(self._read(session))
        except SQLAlchemyError as error:
            log.warning("metrics.database_away", error=str(error))
            return None

    def _read(self, session: Session) -> Iterator[Metric]:
        jobs = GaugeMetricFamily("dream_jobs", "Jobs by status", labels=["status"])
        counted = dict(session.execute(select(Job.status, func.count()).group_by(Job.status)).all())
        for status in Status:
            jobs.add_metric([status], counted.get(status, 0))
        yield jobs

        oldest = GaugeMetricFamily(
            "dream_oldest_claimable_job_age_seconds", "How long a job has waited that might run", labels=["queue"]
        )
        longest = select(Job.queue, func.min(Job.queued_at)).where(Job.status == Status.QUEUED).group_by(Job.queue)
        waiting = session.execute(longest.where(Job.queue.not_in(select(PausedQueue.name)))).all()
        for queue, since in waiting:
            oldest.add_metric([queue], max(0.0, (utcnow() - since).total_seconds()))
        yield oldest

        workers = GaugeMetricFamily("dream_workers", "Workers heard of in the last minute", labels=["queue", "state"])
        heard: dict[tuple[str, str], int] = {}
        for worker in session.scalars(select(WorkerRow)):
            if (utcnow() - worker.seen_at).total_seconds() < ALIVE_S:
                state = "draining" if worker.draining else "busy" if worker.job_id else "idle"
                shown = {QUEUE, worker.queue, *(queue for queue, _ in waiting)}  # of all that it might take from
                for queue in shown.intersection(taken_by(worker)):
                    heard[queue, state] = heard.get((queue, state), 0) + 1
        for labels, number in heard.items():
            workers.add_metric(labels, number)
        yield workers

        kept = GaugeMetricFamily("dream_storage_bytes", "Bytes that are kept, by kind", labels=["kind"])
        kept.add_metric(["artifacts"], session.scalar(select(func.sum(Job.artifact_bytes))) or 0)
        kept.add_metric(["uploads"], session.scalar(select(func.sum(UploadedDataset.bytes))) or 0)
        yield kept

        disk = room_at(self._settings.home)
        yield GaugeMetricFamily("dream_disk_free_bytes", "Free space where the service writes", value=disk.free)
        yield GaugeMetricFamily("dream_disk_total_bytes", "Size of the disk where the service writes", value=disk.total)
