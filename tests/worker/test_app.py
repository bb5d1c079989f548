"""The Celery worker as a process of its own."""

import subprocess
import sys

from jobs.serve import CELERY
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
