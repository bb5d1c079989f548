"""The Celery worker as a process of its own."""

import subprocess
import sys

from jobs import operations, repository
from jobs.lifecycle import Status
from jobs.queue import Bell
from jobs.serve import CELERY
from jobs.spec import JobSpec
from tests.fixtures.cluster import until
from tests.fixtures.serving import environment


def test_a_worker_that_hears_the_broker_touches_its_beat_file(tmp_path, redis_url):
    beat = tmp_path / "worker.beat"
    ours = {"DREAM_HOME": str(tmp_path / "home"), "REDIS_URL": redis_url, "DREAM_BEAT_FILE": str(beat)}
    with subprocess.Popen([sys.executable, "-m", *CELERY], env=environment(ours), stderr=subprocess.DEVNULL) as worker:
        try:
            until(beat.exists, "a first beat")
            first = beat.stat().st_mtime
            until(lambda: beat.stat().st_mtime > first, "another one", seconds=20)
        finally:
            worker.terminate()


def test_a_worker_of_a_class_hears_the_bell_of_its_class(tmp_path, redis_url, settings, sessions):
    with sessions.begin() as session:
        wanted = {"dataset": "folder:none", "method": "random", "ipc": 1, "resources": {"gpu_class": "a100"}}
        spec = JobSpec.model_validate(wanted)
        job_id = repository.create_job(session, spec, spec.resolve()).id
    ours = {"DREAM_HOME": str(settings.home), "REDIS_URL": redis_url, "DREAM_GPU_CLASS": "a100"}
    ours["DREAM_DISPATCH_S"] = "60"  # nobody else rings
    with subprocess.Popen([sys.executable, "-m", *CELERY], env=environment(ours), stderr=subprocess.DEVNULL) as worker:

        def serves():
            with sessions.begin() as session:
                return [(row.queue, row.facts["gpu"]) for row in operations.list_workers(session)]

        def over():
            with sessions.begin() as session:
                return repository.get_job(session, job_id).status is Status.FAILED  # its folder is not there

        try:
            assert until(serves, "it is here") == [("gpu.a100", None)]
            assert Bell(redis_url).ring(job_id, "gpu.a100")
            until(over, "it has taken the job")
        finally:
            worker.terminate()
