"""The dispatcher with a real broker, on both databases."""

import redis

from jobs import metrics, repository
from jobs.dispatcher import ring_all, tick
from jobs.lifecycle import Status
from jobs.queue import Bell
from tests.jobs.test_repository import call, claim, read, submit


def test_rings_for_what_was_not_rung_for(sessions, redis_url, dead_redis_url):
    job = submit(sessions)
    assert ring_all(sessions, Bell(dead_redis_url), [job.id]) == []
    assert tick(sessions, Bell(dead_redis_url)).rung == []
    bell = Bell(redis_url)
    assert tick(sessions, bell).rung == [job.id]
    assert tick(sessions, bell).rung == []
    assert bell.waiting() == 1


def test_rings_again_after_the_broker_has_lost_its_messages(sessions, redis_url):
    job, bell = submit(sessions), Bell(redis_url)
    assert ring_all(sessions, bell, [job.id]) == [job.id]
    assert tick(sessions, bell, ring_again_s=-1).rung == []  # its message still waits for a worker
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    assert tick(sessions, bell, ring_again_s=-1).rung == [job.id]


def test_a_lost_worker_is_noticed_and_the_job_rung_for(sessions, redis_url):
    job = claim(sessions, submit(sessions), lease_s=-1)
    done = tick(sessions, Bell(redis_url))
    assert (done.expired, done.rung) == ({job.id: Status.QUEUED}, [job.id])
    assert read(sessions, job).status_reason == "worker_lost"


def test_a_cancelled_job_of_a_lost_worker_is_let_go(sessions, redis_url):
    job = claim(sessions, submit(sessions), lease_s=-1)
    call(sessions, repository.request_cancel, job.id)
    before = cancelled(job.method)
    done = tick(sessions, Bell(redis_url))
    assert (done.expired, done.rung) == ({job.id: Status.CANCELLED}, [])
    assert cancelled(job.method) == before + 1


def cancelled(method: str) -> float:
    """How many jobs of the method the figures say were cancelled."""
    samples = [sample for family in metrics.FINISHED.collect() for sample in family.samples]
    wanted = ("dream_jobs_finished_total", method, "cancelled")
    return sum(s.value for s in samples if (s.name, s.labels["method"], s.labels["status"]) == wanted)
