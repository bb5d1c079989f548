"""What the bell starts, where the database is away."""

import json
import subprocess
import sys

from tests.fixtures.broker import free_port
from tests.fixtures.serving import environment

RING = """
from jobs.logs import configure_logging
configure_logging()
from worker.tasks import run_job
run_job("job_1")
"""


def test_a_database_that_is_away_is_a_line_in_the_log(tmp_path):
    away = f"postgresql://me:hidden@127.0.0.1:{free_port()}/dream"
    env = environment({"DATABASE_URL": away, "DREAM_HOME": str(tmp_path)})
    rung = subprocess.run([sys.executable, "-c", RING], env=env, capture_output=True, text=True, timeout=60, check=True)
    (line,) = rung.stdout.splitlines()
    said = json.loads(line)
    assert (said["event"], said["level"], said["rung_for"]) == ("database.unreachable", "warning", "job_1")
    assert "hidden" not in line
    assert "Traceback" not in rung.stderr
