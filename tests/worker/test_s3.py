"""Results that workers bring to an S3 server: published whole by the attempt that has the job, or not at all."""

import os
import signal
import subprocess
import sys
import time

import pytest
from pydantic import SecretStr

from jobs import repository
from jobs.artifacts import MANIFEST, verify, write_manifest
from jobs.lifecycle import Status
from jobs.retention import DAY, sweep
from jobs.stores import open_store
from tests.worker.test_supervisor import Running, until

PIXELS = b"pixels"


@pytest.fixture
def settings(settings, own_s3_server):
    return own_s3_server.settings(settings)


@pytest.fixture
def store(settings):
    return open_store(settings)


def published(store, job):
    result = store.result(job.id, job.attempt)
    with result.files.open(result.find("synthetic.safetensors")) as file:
        return file.read()


def staged_by_hand(store, content=PIXELS):
    staged = store.stage()
    (staged / "synthetic.safetensors").write_bytes(content)
    write_manifest(staged, {"schema_version": 1})
    return staged


def test_a_job_that_succeeds_is_published(settings, store, submit, supervise, job, own_s3_server):
    job_id = submit()
    assert supervise("succeed").run(job_id) is Status.SUCCEEDED
    assert published(store, job(job_id)) == PIXELS
    assert own_s3_server.objects() == [f"{job_id}/v1-1/{name}" for name in (MANIFEST, "synthetic.safetensors")]
    assert not settings.artifacts.exists()
    assert not list(settings.staging.iterdir())


def test_cancelling_keeps_what_there_is(store, sessions, submit, supervise, job):
    job_id = submit()
    running = Running(supervise("keep"), job_id)
    until(lambda: job(job_id).progress)
    with sessions.begin() as session:
        repository.request_cancel(session, job_id)
    assert running.end() is Status.CANCELLED
    assert job(job_id).partial
    assert published(store, job(job_id)) == PIXELS


def test_damaged_results_are_not_uploaded(submit, supervise, job, own_s3_server):
    job_id = submit()
    assert supervise("damage").run(job_id) is Status.FAILED
    assert job(job_id).error["code"] == "INVALID_ARTIFACTS"
    assert own_s3_server.objects() == []


def test_a_fenced_attempt_publishes_nothing_and_clears_up(
    settings, store, sessions, submit, supervise, job, own_s3_server
):
    """It stood still while it uploaded, and another has the job."""
    job_id = submit()
    supervisor = supervise("succeed")
    upload = supervisor._store.upload

    def slowly(*about):
        upload(*about)
        with sessions.begin() as session:
            repository.requeue(session, job_id, 1, "worker_lost")
            repository.claim(session, job_id, "another", 60)

    supervisor._store.upload = slowly
    assert supervisor.run(job_id) is None
    assert own_s3_server.objects() == []
    assert (job(job_id).status, job(job_id).attempt) == (Status.RUNNING, 2)


def test_a_store_that_is_away_for_a_moment_is_waited_for(store, submit, supervise, job, own_s3_server):
    job_id = submit()
    own_s3_server.stop()
    running = Running(supervise("succeed", lease_s=20, heartbeat_s=0.3), job_id)
    until(lambda: job(job_id).progress)
    time.sleep(1)
    assert job(job_id).status is Status.RUNNING
    own_s3_server.start()
    assert running.end() is Status.SUCCEEDED
    assert (published(store, job(job_id)), job(job_id).attempt) == (PIXELS, 1)


def test_a_store_that_refuses_ends_the_job_after_as_many_tries_as_lost_workers(submit, supervise, job, own_s3_server):
    job_id = submit()
    supervisor = supervise("succeed", lease_s=0.5, heartbeat_s=0.2, aws_secret_access_key=SecretStr("wrong" * 8))
    assert [supervisor.run(job_id) for _ in range(3)] == [Status.QUEUED, Status.QUEUED, Status.FAILED]
    failed = job(job_id)
    assert (failed.error["class"], failed.error["code"]) == ("internal", "STORAGE_UNAVAILABLE")
    assert "refuses the credentials" in failed.error["message"]
    assert "wrong" not in failed.error["message"]
    assert own_s3_server.objects() == []


UPLOADING = """
import sys
from pathlib import Path
from jobs.artifacts import verify
from jobs.settings import Settings
from jobs.stores import open_store
store = open_store(Settings())
put_file = store._server.put_file
def put_and_stop(*about, **options):
    put_file(*about, **options)
    print("up", flush=True)
    sys.stdin.read()
store._server.put_file = put_and_stop
store.upload(Path(sys.argv[1]), verify(Path(sys.argv[1])), sys.argv[2], 1)
"""


def test_a_worker_killed_while_it_uploads_leaves_nothing_that_counts(
    settings, store, sessions, submit, supervise, job, own_s3_server
):
    job_id = submit()
    with sessions.begin() as session:
        repository.claim(session, job_id, "the one to be killed", 60)
    staged = staged_by_hand(store)
    environment = os.environ | own_s3_server.environment | {"DREAM_HOME": str(settings.home)}
    command = [sys.executable, "-c", UPLOADING, str(staged), job_id]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        assert worker.stdout.readline() == b"up\n"
        worker.send_signal(signal.SIGKILL)
    assert own_s3_server.objects() == [f"{job_id}/v1-1/synthetic.safetensors"]
    with pytest.raises(FileNotFoundError):
        store.result(job_id, 1)

    with sessions.begin() as session:
        repository.requeue(session, job_id, 1, "worker_lost")
    assert supervise("succeed").run(job_id) is Status.SUCCEEDED
    assert (published(store, job(job_id)), job(job_id).attempt) == (PIXELS, 2)

    sweep(sessions, settings)
    assert f"{job_id}/v1-1/synthetic.safetensors" in own_s3_server.objects()  # it might still be written to
    sweep(sessions, settings, repository.utcnow() + 1.1 * DAY)
    assert own_s3_server.objects() == [f"{job_id}/v1-2/{name}" for name in (MANIFEST, "synthetic.safetensors")]


def test_retention(settings, store, sessions, submit, supervise, job, own_s3_server):
    done, strange = submit(), f"job_{'0' * 32}"
    supervise("succeed").run(done)
    staged = staged_by_hand(store)
    store.upload(staged, verify(staged), strange, 1)
    running = submit()
    with sessions.begin() as session:
        repository.claim(session, running, "a worker", 1e9)
    store.upload(staged, verify(staged), running, 1)
    jobs = {name.partition("/")[0] for name in own_s3_server.objects()}
    assert jobs == {done, strange, running}

    sweep(sessions, settings, repository.utcnow() + 1.1 * DAY)
    assert {name.partition("/")[0] for name in own_s3_server.objects()} == {done, running}
    sweep(sessions, settings, repository.utcnow() + 31 * DAY)
    assert {name.partition("/")[0] for name in own_s3_server.objects()} == {running}
    assert job(done).purged_at
    own_s3_server.stop()
    sweep(sessions, settings, repository.utcnow() + 31 * DAY)  # says so, and does the rest
