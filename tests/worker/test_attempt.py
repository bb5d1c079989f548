import json
import sys
from threading import Event

from jobs.database import make_engine, make_sessions
from tests.worker.conftest import RUNNER
from worker.attempt import Attempt, Ending
from worker.joblog import JobLog
from worker.launcher import LOG
from worker.process import Child
from worker.relay import Relay
from worker.stopping import Stop


def test_a_database_that_stays_away_ends_the_attempt_at_a_checkpoint(settings, tmp_path):
    """By then another worker may have the job. What was reported stays in the file."""
    order = {"output": str(tmp_path / "output"), "checkpoints": str(tmp_path), "attempt": 1}
    (tmp_path / "job.json").write_text(json.dumps(order))
    engine = make_engine("postgresql://nobody@127.0.0.1:1/nothing")
    child = Child([sys.executable, str(RUNNER), "wait"], tmp_path)
    relay = Relay(tmp_path / "events.jsonl", make_sessions(engine), "job_0", 1, settings)
    job_log = JobLog(tmp_path / LOG, "job_0", settings)

    ending = Attempt("job_0", 1, None, child, relay, job_log, make_sessions(engine), settings, Event()).watch()

    assert ending == Ending(75, Stop.LEASE_LOST)
    assert (tmp_path / "state").read_text() == "saved"
    assert (tmp_path / "stop").read_text() == "lease_lost"
    engine.dispose()
