"""Whole deployments on brokers as they are met outside of a laptop."""

from contextlib import ExitStack

import pytest
import trustme

from tests.end_to_end.faults import STEADY
from tests.fixtures.broker import RIGHTS, encrypted_redis, free_port, watched_redis
from tests.fixtures.cluster import deployed, until


@pytest.fixture
def stack():
    with ExitStack() as stack:
        yield stack


def test_jobs_run_by_a_user_of_few_rights_over_tls_and_through_a_restart(tmp_path, stack):
    port, authority, users = free_port(), trustme.CA(), tmp_path / "users"
    users.write_text(f"user default on >root ~* &* +@all\nuser dream on >word {' '.join(RIGHTS)}\n")
    url = f"rediss://dream:word@127.0.0.1:{port}/0?ssl_ca_certs={tmp_path}/ours"

    with encrypted_redis(port, authority, tmp_path, users, "root") as server:
        cluster = stack.enter_context(deployed(tmp_path, 1, "sqlite", {"REDIS_URL": url}))
        running = cluster.submit("runs", STEADY)
        cluster.runner_of(running)
        assert server.acl_log() == []
    waiting = cluster.submit("submitted-while-it-is-away", STEADY)
    with encrypted_redis(port, authority, tmp_path, users, "root") as server:
        for job_id in (running, waiting):
            job = cluster.wait(job_id)
            assert (job["status"], job["attempt"]) == ("succeeded", 1)
        until(lambda: cluster.ask("GET", "/readyz").json()["broker"] == "ok", "the broker is back")
        assert server.acl_log() == []


@pytest.mark.nightly
def test_a_worker_follows_the_sentinels_to_the_server_that_took_over(tmp_path):
    with watched_redis(tmp_path) as (url, servers), deployed(tmp_path, 1, "sqlite", {"REDIS_URL": url}) as cluster:
        running = cluster.submit("runs", STEADY)
        cluster.runner_of(running)
        servers.pop().kill()
        waiting = cluster.submit("submitted-without-a-server", STEADY)
        for job_id in (running, waiting):
            assert cluster.wait(job_id)["attempt"] == 1
        until(lambda: cluster.ask("GET", "/readyz").json()["broker"] == "ok", "another server is found")
        assert cluster.wait(cluster.submit("later", STEADY))["attempt"] == 1
