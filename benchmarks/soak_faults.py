"""The faults of a soak. Each is a function of the battered cluster, a random generator and one of the jobs."""

import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

import psutil
import redis

from benchmarks.soak_verdict import Blow
from tests.fixtures.cluster import OVER, Cluster, Part, until

RESTART_S = 0.3
HUNG_S = 90
"""A worker that has not ended so long after SIGTERM is killed, and the soak fails."""
Fault = Callable[["Battered", random.Random, str], bool]
"""Says whether it found something to hurt."""


class Battered:
    """A cluster whose parts are started again when they end, as by `restart: unless-stopped`, and what befell it."""

    def __init__(self, cluster: Cluster, lease_s: float):
        self.cluster, self.lease_s = cluster, lease_s
        self.blows: list[Blow] = []
        self.cancelled: set[str] = set()
        """Jobs whose end was asked for."""
        self.hung: list[str] = []
        """Workers that did not end when they were told to."""
        self._down: list[Part] = []
        self._over = threading.Event()
        self._keeper = threading.Thread(target=self._keep_up, name="keeper")

    def __enter__(self) -> "Battered":
        self._keeper.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._keeper.join()

    def _keep_up(self) -> None:
        while not self._over.wait(RESTART_S):
            for part in self.cluster.parts:
                if part not in self._down and not part.runs():
                    part.start()

    @contextmanager
    def away(self, part: Part) -> Iterator[None]:
        """Killed, and not started again before the end of the `with`."""
        self._down.append(part)
        try:
            part.kill_all()
            yield
        finally:
            self._down.remove(part)

    def blow(self, job_id: str | None = None, worker_pid: int | None = None) -> None:
        """Remember that this may take the attempts at a job, or of a worker, or all."""
        self.blows.append(Blow(datetime.now(UTC), job_id, worker_pid))


def kill_runner(battered: Battered, rng: random.Random, job_id: str) -> bool:
    """As soon as there is one: most of the time a job has none."""
    end = time.monotonic() + 30
    while not (runners := battered.cluster.runners(job_id)) and time.monotonic() < end:
        if battered.cluster.job(job_id)["status"] in OVER:
            return False
        time.sleep(0.2)
    for runner in runners:
        battered.blow(job_id=job_id)
        with suppress(psutil.NoSuchProcess):
            runner.kill()
    return bool(runners)


def kill_worker(battered: Battered, rng: random.Random, job_id: str) -> bool:
    worker = rng.choice(battered.cluster.workers)
    battered.blow(worker_pid=worker.pid)
    worker.send(signal.SIGKILL)
    return True


def kill_host(battered: Battered, rng: random.Random, job_id: str) -> bool:
    """A worker and what it started, at once: no runner lives to write a checkpoint."""
    worker = rng.choice(battered.cluster.workers)
    battered.blow(worker_pid=worker.pid)
    worker.kill_all()
    return True


def freeze_worker(battered: Battered, rng: random.Random, job_id: str) -> bool:
    worker = rng.choice(battered.cluster.workers)
    battered.blow(worker_pid=worker.pid)
    worker.send(signal.SIGSTOP)
    time.sleep(battered.lease_s + rng.uniform(1, 4))
    worker.send(signal.SIGCONT)
    return True


def stop_worker(battered: Battered, rng: random.Random, job_id: str) -> bool:
    """SIGTERM, as in a deployment."""
    worker = rng.choice(battered.cluster.workers)
    worker.send(signal.SIGTERM)
    try:
        worker.ended(HUNG_S)
    except subprocess.TimeoutExpired:
        battered.hung.append(worker.name)
        worker.kill_all()
    return True


def kill_api(battered: Battered, rng: random.Random, job_id: str) -> bool:
    battered.cluster.api.send(signal.SIGKILL)
    return True


def kill_redis(battered: Battered, rng: random.Random, job_id: str) -> bool:
    with battered.away(battered.cluster.redis):
        time.sleep(rng.uniform(0, 3))
    return True


def flush_redis(battered: Battered, rng: random.Random, job_id: str) -> bool:
    with redis.Redis.from_url(battered.cluster.redis_url) as client, suppress(redis.RedisError):
        return bool(client.flushall())
    return False


def kill_postgres(battered: Battered, rng: random.Random, job_id: str) -> bool:
    """For less than a lease, or for more."""
    assert battered.cluster.postgres
    battered.blow()
    with battered.away(battered.cluster.postgres):
        time.sleep(rng.choice([0, 0, 1, battered.lease_s + 1]))
    battered.blow()
    return True


def repeat_message(battered: Battered, rng: random.Random, job_id: str) -> bool:
    return all(battered.cluster.bell.ring(job_id) for _ in range(10))


def cancel(battered: Battered, rng: random.Random, job_id: str) -> bool:
    battered.cancelled.add(job_id)
    return battered.cluster.tell(job_id, "cancel") in (200, 202)


def pause(battered: Battered, rng: random.Random, job_id: str) -> bool:
    """And resume, a little later."""
    cluster = battered.cluster
    if cluster.tell(job_id, "pause") not in (200, 202):
        return False
    until(lambda: cluster.job(job_id)["status"] in {"paused", *OVER}, f"{job_id} is paused", 120)
    time.sleep(rng.uniform(0, 1))
    cluster.tell(job_id, "resume")
    return True


FAULTS: dict[str, Fault] = {
    "SIGKILL of a runner": kill_runner,
    "SIGKILL of a worker": kill_worker,
    "SIGKILL of a worker and its runner": kill_host,
    "SIGSTOP of a worker past its lease": freeze_worker,
    "SIGTERM of a worker": stop_worker,
    "SIGKILL of the API": kill_api,
    "SIGKILL of Redis": kill_redis,
    "FLUSHALL": flush_redis,
    "SIGKILL of PostgreSQL": kill_postgres,
    "ten more messages": repeat_message,
    "cancel": cancel,
    "pause and resume": pause,
}
