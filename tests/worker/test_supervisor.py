import json
import threading
import time
from datetime import timedelta

import psutil
import pytest
from sqlalchemy import update

from jobs import repository
from jobs.artifacts import ArtifactStore
from jobs.lifecycle import Status
from jobs.tables import Job


def until(true, seconds=10.0):
    end = time.monotonic() + seconds
    while not (value := true()):
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)
    return value


class Running:
    """A supervisor at work in a thread, as in Celery's pool."""

    def __init__(self, supervisor, job_id):
        self.status = None
        self._thread = threading.Thread(target=self._run, args=(supervisor, job_id))
        self._thread.start()

    def _run(self, supervisor, job_id):
        self.status = supervisor.run(job_id)

    def end(self):
        self._thread.join(20)
        assert not self._thread.is_alive()
        return self.status


def test_a_job_that_succeeds_is_published_with_its_events(settings, submit, supervise, job, events):
    job_id = submit()

    assert supervise("succeed").run(job_id) is Status.SUCCEEDED

    done = job(job_id)
    assert done.result_summary == {"accuracy": {"mean": 80.0, "std": 1.0, "n": 3}}
    assert done.progress == {"step": 3, "total": 10, "ratio": 0.3, "eta_s": 0.7}
    assert [kind for kind, _ in events(job_id)] == ["state", "state", "phase", "metric", "state"]
    found = ArtifactStore(settings.artifacts, settings.staging).find(job_id, "synthetic.safetensors")
    assert found.location.read_bytes() == b"pixels"


def test_nothing_is_left_behind_on_the_disk(settings, submit, supervise):
    job_id = submit()

    supervise("succeed").run(job_id)

    left = [path for part in (settings.scratch, settings.staging, settings.checkpoints) for path in part.rglob("*")]
    assert left == []


def test_a_message_that_comes_twice_starts_one_attempt(submit, supervise, job):
    job_id = submit()
    supervisor = supervise("succeed")

    assert [supervisor.run(job_id), supervisor.run(job_id)] == [Status.SUCCEEDED, None]
    assert job(job_id).attempt == 1


@pytest.mark.parametrize(
    ("part", "cause", "code", "words"),
    [
        ("user_error", "user_error", "DATASET_MISSING", "no such folder"),
        ("out_of_memory", "out_of_memory", "CUDA_OUT_OF_MEMORY", "batch_syn_max"),
        ("disk_full", "internal", "DISK_FULL", "no space left"),
        ("crash", "internal", "RUNNER_CRASHED", "RuntimeError: a mistake"),
        ("damage", "internal", "INVALID_ARTIFACTS", "differs from its checksum"),
        ("nothing", "internal", "INVALID_ARTIFACTS", "manifest.json"),
    ],
)
def test_a_failure_says_what_happened_and_leaves_nothing(settings, submit, supervise, job, part, cause, code, words):
    job_id = submit()

    assert supervise(part).run(job_id) is Status.FAILED

    failed = job(job_id)
    assert (failed.error["class"], failed.error["code"]) == (cause, code)
    assert words in failed.error["message"]
    assert not settings.artifacts.exists()
    assert [*settings.scratch.rglob("*"), *settings.staging.rglob("*")] == []


def test_cancelling_ends_a_running_job_within_seconds(sessions, submit, supervise, job):
    job_id = submit()
    running = Running(supervise("wait"), job_id)
    until(lambda: job(job_id).progress)

    with sessions.begin() as session:
        repository.request_cancel(session, job_id)
    started = time.monotonic()

    assert running.end() is Status.CANCELLED
    assert time.monotonic() - started < 3


def test_a_runner_that_does_not_listen_is_killed_with_all_it_started(settings, sessions, submit, supervise, job):
    job_id = submit()
    running = Running(supervise("deaf", grace_s=0.5), job_id)
    note = settings.checkpoints / job_id / "helper"
    until(lambda: note.exists() and note.read_text())
    helper = psutil.Process(int(note.read_text()))

    with sessions.begin() as session:
        repository.request_cancel(session, job_id)

    assert running.end() is Status.CANCELLED
    until(lambda: not helper.is_running() or helper.status() == psutil.STATUS_ZOMBIE)


def test_a_success_that_comes_after_cancelling_is_discarded(settings, sessions, submit, supervise, job):
    job_id = submit()
    running = Running(supervise("wait_then_finish"), job_id)
    until(lambda: job(job_id).progress)

    with sessions.begin() as session:
        repository.request_cancel(session, job_id)

    assert running.end() is Status.CANCELLED
    assert not settings.artifacts.exists()


def test_shutting_the_worker_down_hands_the_job_back_uncharged(settings, submit, supervise, job):
    job_id = submit()
    supervisor = supervise("wait")
    running = Running(supervisor, job_id)
    until(lambda: job(job_id).progress)

    supervisor.close()

    assert running.end() is Status.QUEUED
    handed_back = job(job_id)
    assert (handed_back.status_reason, handed_back.losses, handed_back.checkpoint_step) == ("host_shutdown", 0, 7)
    assert (settings.checkpoints / job_id / "state").read_text() == "saved"
    assert supervisor.run(job_id) is None  # and takes no more


def test_a_killed_runner_is_a_loss_and_the_job_waits_again(submit, supervise, job):
    job_id = submit()

    assert supervise("die").run(job_id) is Status.QUEUED
    assert (job(job_id).status_reason, job(job_id).losses) == ("worker_lost", 1)
    assert supervise("succeed").run(job_id) is Status.SUCCEEDED
    assert job(job_id).attempt == 2


def test_a_job_that_kills_every_runner_is_poison(submit, supervise, job):
    job_id = submit()

    assert [supervise("die").run(job_id) for _ in range(3)] == [Status.QUEUED, Status.QUEUED, Status.FAILED]
    assert job(job_id).error["class"] == "poison"


def test_a_job_that_gets_further_each_time_is_not_poison(submit, supervise):
    job_id = submit()

    assert [supervise("progress_and_die").run(job_id) for _ in range(4)] == [Status.QUEUED] * 4


def test_a_job_that_runs_too_long_has_failed(submit, supervise, job):
    job_id = submit(max_runtime_s=1)

    assert supervise("wait").run(job_id) is Status.FAILED
    assert job(job_id).error["class"] == "timeout"


def test_a_runner_that_says_nothing_is_ended(submit, supervise, job):
    job_id = submit()

    assert supervise("wait", stall_s=1).run(job_id) is Status.QUEUED
    assert job(job_id).status_reason == "worker_lost"


def test_an_attempt_that_lost_its_lease_stops_at_once_and_writes_nothing(sessions, submit, supervise, job, events):
    job_id = submit()
    running = Running(supervise("wait"), job_id)
    until(lambda: job(job_id).progress)

    with sessions.begin() as session:  # as if this host had slept, and another worker had the job
        session.execute(update(Job).values(lease_until=repository.utcnow() - timedelta(seconds=1)))
        repository.expire_leases(session)
        other = repository.claim(session, job_id, "another", 60)
    before = events(job_id)

    assert running.end() is None
    assert (job(job_id).worker, job(job_id).attempt, other.attempt) == ("another", 2, 2)
    assert events(job_id) == before


def test_many_events_arrive_all_and_in_order(submit, supervise, job, events):
    job_id = submit()

    assert supervise("flood").run(job_id) is Status.SUCCEEDED

    steps = [data["step"] for kind, data in events(job_id) if kind == "metric" and data["total"] == 5000]
    assert steps == list(range(len(steps)))
    assert job(job_id).event_seq == 5000 + 5


def test_the_order_tells_the_runner_all_it_needs(settings, submit, supervise, tmp_path):
    seen = tmp_path / "seen.json"
    supervisor = supervise("succeed")
    supervisor._command = ["sh", "-c", f'cp "$1/job.json" "{seen}"; exit 64', "sh"]

    supervisor.run(submit())

    order = json.loads(seen.read_text())
    assert order["recipe"]["dataset"] == "digits"
    assert order["data_dir"] == str(settings.data_dir)
    assert (order["attempt"], order["download"], order["device"]) == (1, False, "auto")
