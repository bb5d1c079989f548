"""What hurts every job at once: the API, Redis and PostgreSQL are killed and come back."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx2
import redis

from tests.end_to_end.faults import ENDLESS, STEADY, Lane, is_undisturbed, resumed
from tests.fixtures.cluster import Cluster, Part, until
from tests.fixtures.serving import until_gone

LANE = Lane("servers", workers=1, at_a_time=1)


@LANE.row
def an_api_killed_in_the_middle_of_requests_leaves_one_job_for_each_key(cluster: Cluster):
    _kill_api_while_submitting(cluster, [0.002, 0.02])


@LANE.nightly_row
def an_api_killed_at_any_moment_of_a_request_leaves_one_job_for_its_key(cluster: Cluster):
    _kill_api_while_submitting(cluster, [milliseconds / 1000 for milliseconds in range(0, 60, 4)])


@LANE.row
def jobs_run_submitted_or_waiting_while_redis_is_killed_and_emptied_are_all_done(cluster: Cluster):
    running, waiting = cluster.submit("runs", STEADY), cluster.submit("waits", STEADY)
    runner = cluster.runner_of(running)
    assert cluster.job(waiting)["status"] == "queued"

    with _away(cluster.redis):
        start = time.monotonic()
        submitted = cluster.submit("while-redis-is-away", STEADY)
        assert time.monotonic() - start < 5
        assert runner.is_running()
    _flush(cluster)

    for job_id in (running, waiting, submitted):
        job = cluster.wait(job_id)
        assert (job["status"], job["attempt"]) == ("succeeded", 1)
        is_undisturbed(cluster, job_id)


@LANE.row
def postgresql_may_be_away_for_less_than_a_lease(cluster: Cluster):
    job_id = cluster.submit("blink", STEADY)
    until(lambda: cluster.checkpointed(job_id), "a checkpoint", every=0.01)

    with _away(cluster.postgres):
        pass

    job = cluster.wait(job_id)
    assert (job["status"], job["attempt"]) == ("succeeded", 1)
    is_undisturbed(cluster, job_id)


@LANE.row
def a_job_stops_at_a_checkpoint_while_postgresql_is_away_for_longer_than_its_lease(cluster: Cluster):
    job_id = cluster.submit("outage", ENDLESS)
    runner = cluster.runner_of(job_id)
    until(lambda: cluster.checkpointed(job_id), "a checkpoint", every=0.01)

    with (
        _away(cluster.postgres),
        httpx2.Client(base_url=cluster.url, trust_env=False, timeout=20) as http,
    ):
        assert http.get("/livez").status_code == 200
        unwell = http.get(f"/v1/jobs/{job_id}")
        assert (unwell.status_code, unwell.headers["Content-Type"]) == (503, "application/problem+json")
        assert http.get("/readyz").status_code == 503
        assert not until_gone([runner])

    cluster.runner_of(job_id, 2)
    assert cluster.reasons(job_id) in (["worker_lost"], ["host_shutdown"])  # who first comes to say so
    until(lambda: resumed(cluster, job_id), "it goes on")
    cluster.tell(job_id, "cancel")
    assert cluster.wait(job_id)["status"] == "cancelled"


def _kill_api_while_submitting(cluster: Cluster, delays_s: list[float]) -> None:
    for delay_s in delays_s:
        key = f"mid-request-{delay_s}"
        with ThreadPoolExecutor(1) as client:
            submitting = client.submit(cluster.submit, key, ENDLESS)
            time.sleep(delay_s)
            with _away(cluster.api):
                pass
            job_id = submitting.result()
        assert cluster.submit(key, ENDLESS) == job_id
        cluster.tell(job_id, "cancel")
        listed = cluster.ask("GET", "/v1/jobs", params={"limit": 100}).json()["data"]
        assert [job["id"] for job in listed if job["name"] == key] == [job_id]
        cluster.wait(job_id, "cancelled")


@contextmanager
def _away(server: Part) -> Iterator[None]:
    """Killed, and started again."""
    server.kill_all()
    try:
        yield
    finally:
        server.start()


def _flush(cluster: Cluster) -> None:
    with redis.Redis.from_url(cluster.redis_url) as client:
        until(lambda: _answers(client), "redis answers")
        client.flushall()


def _answers(client: redis.Redis) -> bool:
    try:
        return client.ping()
    except redis.ConnectionError:
        return False
