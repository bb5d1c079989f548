"""The runbooks of docs/operations.md, carried out on real deployments while jobs run."""

import json
import subprocess

import httpx2
import psycopg
import pytest
import redis

from client.keys import new_token
from jobs.previews import list_previews
from tests.end_to_end.faults import ENDLESS, STEADY, is_undisturbed, resumed
from tests.end_to_end.faults_of_disks import small_disk
from tests.fixtures.broker import RIGHTS
from tests.fixtures.cluster import Cluster, deployed, until
from tests.fixtures.database import ACCOUNT
from tests.fixtures.serving import DREAM, environment


def dream(cluster: Cluster, *arguments: object, **changes: str) -> str:
    """What a command says that is given on the host where the deployment is."""
    own = {"DREAM_HOME": str(cluster.home), "DATABASE_URL": cluster.database_url, "DREAM_URL": cluster.url}
    done = subprocess.run(
        [*DREAM, *map(str, arguments)],
        env=environment(own | changes),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# ---------------------------------------------------------------- backup and restore


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("sqlite", "sqlite"),
        pytest.param("postgresql", "postgresql", marks=pytest.mark.nightly),
        pytest.param("sqlite", "postgresql", marks=pytest.mark.nightly),
    ],
)
def test_a_backup_taken_while_jobs_run_is_put_back_elsewhere(tmp_path, before, after):
    backup = tmp_path / "backup"
    with deployed(tmp_path / "old", 1, before) as old:
        done = old.submit("done", STEADY)
        old.wait(done)
        running = old.submit("runs", STEADY)
        runner = old.runner_of(running)
        until(lambda: old.checkpointed(running), "a checkpoint", every=0.01)
        runner.suspend()  # or a fast machine has ended the job before the command has begun
        assert f"is in {backup}" in dream(old, "backup", backup)
        assert old.job(running)["status"] == "running"
        runner.resume()
    assert (backup / "backup.json").exists()

    def put_back(new: Cluster) -> None:
        assert json.loads(dream(new, "restore", backup, "--json"))["files"] > 0

    with deployed(tmp_path / "new", 1, after, prepare=put_back) as new:
        is_undisturbed(new, done)
        assert new.wait(running)["status"] == "succeeded"
        is_undisturbed(new, running)
        assert resumed(new, running)
        shown = {event["data"]["step"] for event in new.events(running) if event["type"] == "preview"}
        assert shown <= {frame.step for frame in list_previews(new.home / "previews" / running)}


# ---------------------------------------------------------------- upgrade


@pytest.mark.nightly
def test_an_upgrade_lets_a_running_job_end_and_finds_the_waiting_one(tmp_path):
    with deployed(tmp_path, 1) as cluster:
        running, waiting = cluster.submit("runs", STEADY), cluster.submit("waits", STEADY)
        cluster.runner_of(running)
        name = cluster.job(running)["worker"]

        dream(cluster, "workers", "drain", name)
        assert cluster.wait(running)["attempt"] == 1
        until(lambda: "drained" in dream(cluster, "workers"), "the worker is drained", every=0.5)
        assert cluster.job(waiting)["status"] == "queued"
        assert cluster.workers[0].terminate() == 0
        cluster.api.terminate()
        dream(cluster, "backup", tmp_path / "before")
        dream(cluster, "migrate", "0001")  # as an older version had it
        dream(cluster, "migrate")
        cluster.start()

        assert cluster.wait(waiting)["attempt"] == 1
        for job_id in (running, waiting):
            is_undisturbed(cluster, job_id)


# ---------------------------------------------------------------- keys, secrets, passwords


@pytest.mark.nightly
def test_a_key_and_then_the_secret_are_exchanged(tmp_path):
    admin = new_token()
    guarded = {"DREAM_REQUIRE_KEY": "true", "DREAM_ADMIN_KEY": admin, "DREAM_SECRET": "the first of them"}
    with deployed(tmp_path, 1, "sqlite", guarded) as cluster:

        def make() -> dict:
            return json.loads(dream(cluster, "keys", "create", "ann", "--json", DREAM_API_KEY=admin))

        def lets_in(key: dict) -> bool:
            headers = {"Authorization": f"Bearer {key['token']}"}
            return cluster.ask("GET", "/v1/jobs", headers=headers).status_code == 200

        first, second = make(), make()
        assert lets_in(first)
        dream(cluster, "keys", "revoke", first["id"], DREAM_API_KEY=admin)
        assert not lets_in(first)
        assert lets_in(second)

        for part in (cluster.api, *cluster.workers):
            part.terminate()
            part.change({"DREAM_SECRET": "the second of them"})
        cluster.start()

        assert not lets_in(second)
        assert lets_in(make())


@pytest.mark.nightly
def test_passwords_are_exchanged_while_a_job_runs(tmp_path):
    def use_passwords(cluster: Cluster) -> None:
        with _owner_of(cluster) as connection:
            connection.execute("CREATE ROLE dream LOGIN PASSWORD 'first'")
            connection.execute("CREATE DATABASE dream OWNER dream")
        rules = cluster.database_url.partition("host=")[2] + "/data/pg_hba.conf"
        with open(rules, "w", encoding="ascii") as file:
            file.write(f"local all {ACCOUNT} trust\nlocal all all scram-sha-256\n")
        with _owner_of(cluster) as connection:
            connection.execute("SELECT pg_reload_conf()")
        _give(cluster, "first")

    with deployed(tmp_path, 1, prepare=use_passwords) as cluster, redis.Redis.from_url(cluster.redis_url) as broker:
        broker.execute_command("ACL", "SETUSER", "dream", "on", ">first", *RIGHTS)
        until(lambda: cluster.ask("GET", "/readyz").json()["broker"] == "ok", "the broker lets us in")
        broker.acl_log_reset()
        job_id = cluster.submit("runs", ENDLESS)
        cluster.runner_of(job_id)
        until(lambda: cluster.checkpointed(job_id), "a checkpoint", every=0.01)

        broker.execute_command("ACL", "SETUSER", "dream", ">second")
        with _owner_of(cluster) as connection:
            connection.execute("ALTER ROLE dream PASSWORD 'second'")
        _give(cluster, "second")
        for part in (cluster.api, *cluster.workers):
            part.terminate()
            part.start()
        cluster.wait_until_ready()
        broker.execute_command("ACL", "SETUSER", "dream", "<first")

        cluster.runner_of(job_id, 2)
        until(lambda: resumed(cluster, job_id), "it goes on")
        assert cluster.reasons(job_id) == ["host_shutdown"]
        ready = cluster.ask("GET", "/readyz").json()
        assert (ready["database"], ready["broker"]) == ("ok", "ok")
        assert broker.acl_log() == []


def _owner_of(cluster: Cluster) -> psycopg.Connection:
    return psycopg.connect(cluster.database_url, autocommit=True)


def _give(cluster: Cluster, password: str) -> None:
    """Tell the API and the workers the password, for when they are started next."""
    place = cluster.database_url.partition("?")[2]
    urls = {
        "DATABASE_URL": f"postgresql://dream:{password}@/dream?{place}",
        "REDIS_URL": cluster.redis_url.replace("redis://", f"redis://dream:{password}@"),
    }
    for part in (cluster.api, *cluster.workers):
        part.change(urls)


# ---------------------------------------------------------------- a full disk


@pytest.mark.nightly
def test_a_full_disk_refuses_jobs_until_there_is_room_again(tmp_path):
    with small_disk(tmp_path / "home", "64m") as home, deployed(home, 1, "sqlite") as cluster:
        done = cluster.submit("done", STEADY)
        cluster.wait(done)
        with (home / "filler").open("wb") as filler:
            filler.write(bytes(61 << 20))

        refused = httpx2.post(f"{cluster.url}/v1/jobs", json={"spec": STEADY}, trust_env=False)
        assert (refused.status_code, refused.json()["code"]) == (503, "OVERLOADED")
        assert "Retry-After" in refused.headers
        assert cluster.ask("GET", f"/v1/jobs/{done}/artifacts").is_success

        (home / "filler").unlink()
        again = cluster.submit("again", STEADY)
        cluster.wait(again)
        is_undisturbed(cluster, again)
