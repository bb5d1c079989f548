"""`python -m worker`: real processes, on a database and no broker."""

import signal
import subprocess
import sys

import pytest

from jobs import repository
from jobs.lifecycle import Status
from jobs.spec import JobSpec
from tests.fixtures.cluster import TINY, draw_pictures
from tests.fixtures.serving import JUDGED, LONG, environment
from tests.worker.test_supervisor import until

SMALL = {"width": 8, "image_size": 8}


@pytest.fixture
def start(settings):
    draw_pictures(settings.data_dir / TINY)
    env = {"DREAM_HOME": str(settings.home), "DATABASE_URL": settings.database_url, "REDIS_URL": "none"}
    started = []

    def start(*options):
        command = [sys.executable, "-m", "worker", *options]
        process = subprocess.Popen(command, env=environment(env | {"DREAM_DEVICE": "cpu"}), stderr=subprocess.PIPE)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def submit(sessions):
    def submit(method="random", **params):
        about = {"dataset": f"folder:{TINY}", "method": method, "ipc": 1, "params": SMALL | params}
        spec = JobSpec.model_validate(about | {"evaluation": JUDGED})
        with sessions.begin() as session:
            return repository.create_job(session, spec, spec.resolve()).id

    return submit


def test_it_takes_what_a_lost_worker_held_and_ends_when_none_waits(start, sessions, submit, job):
    job_id = submit()
    with sessions.begin() as session:
        repository.claim(session, job_id, "another", -1)

    process = start("--until-empty")

    assert process.wait(90) == 0, process.stderr.read().decode()
    assert (job(job_id).status, job(job_id).attempt) == (Status.SUCCEEDED, 2)


def test_told_to_end_it_gives_its_job_back_at_a_checkpoint(start, submit, job):
    job_id = submit("dream", **LONG)
    process = start("--until-empty")
    until(lambda: process.poll() is not None or job(job_id).progress, 60)

    process.send_signal(signal.SIGTERM)

    assert process.wait(60) == 0, process.stderr.read().decode()
    given_back = job(job_id)
    assert (given_back.status, given_back.status_reason, given_back.losses) == (Status.QUEUED, "host_shutdown", 0)
    assert given_back.checkpoint_step


def test_one_for_the_chores_frees_what_a_lost_worker_held_and_takes_nothing(start, sessions, submit, job):
    job_id = submit()
    with sessions.begin() as session:
        repository.claim(session, job_id, "another", -1)

    process = start("--chores-only")
    until(lambda: job(job_id).status is Status.QUEUED, 30)
    process.send_signal(signal.SIGTERM)

    assert process.wait(30) == 0
    assert (job(job_id).status, job(job_id).attempt, job(job_id).losses) == (Status.QUEUED, 1, 1)
