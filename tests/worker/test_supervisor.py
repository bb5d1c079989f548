import json
import re
import threading
import time
from datetime import timedelta

import psutil
import pytest
from sqlalchemy import update

from jobs import repository
from jobs.lifecycle import Status
from jobs.spec import JobSpec
from jobs.stores.local import LocalStore
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
    assert published(settings, job_id).read_bytes() == b"pixels"


def test_nothing_is_left_behind_on_the_disk_but_checkpoints(settings, submit, supervise):
    job_id = submit()
    (settings.checkpoints / job_id).mkdir(parents=True)
    (settings.checkpoints / job_id / "state").write_text("of an earlier attempt")

    supervise("succeed").run(job_id)

    assert [path for part in (settings.scratch, settings.staging) for path in part.rglob("*")] == []
    assert (settings.checkpoints / job_id / "state").exists()  # a retry may go on from there


def test_the_job_that_is_next_is_taken_whichever_was_rung_for(submit, supervise, job):
    first, second = submit(), submit()
    supervisor = supervise("succeed")

    assert [supervisor.run(second), supervisor.run(second), supervisor.run(second)] == [Status.SUCCEEDED] * 2 + [None]
    assert job(first).started_at < job(second).started_at


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


def test_a_success_that_comes_after_cancelling_is_kept_for_what_it_is(settings, sessions, submit, supervise, job):
    job_id = submit()
    running = Running(supervise("wait_then_finish"), job_id)
    until(lambda: job(job_id).progress)

    with sessions.begin() as session:
        repository.request_cancel(session, job_id)

    assert running.end() is Status.CANCELLED
    assert (job(job_id).partial, job(job_id).accuracy) == (True, 80.0)
    assert published(settings, job_id).is_file()


def published(settings, job_id):
    result = LocalStore(settings.artifacts, settings.staging).result(job_id, 1)
    return result.files.locate(result.find("synthetic.safetensors"))


def nothing_published(settings):
    return not list(settings.artifacts.rglob("*")) and not list(settings.staging.rglob("*"))


def test_cancelling_keeps_what_there_is(settings, sessions, submit, supervise, job, events):
    job_id = submit()
    running = Running(supervise("keep"), job_id)
    until(lambda: job(job_id).progress)

    with sessions.begin() as session:
        repository.request_cancel(session, job_id)

    assert running.end() is Status.CANCELLED
    cancelled = job(job_id)
    assert (cancelled.partial, cancelled.error, cancelled.accuracy) == (True, None, None)
    assert cancelled.result_summary == {"partial": True, "step": 3, "steps": 10}
    assert cancelled.expires_at is not None
    assert published(settings, job_id).read_bytes() == b"pixels"
    assert ("log", {"message": "asked to stop: cancel"}) in events(job_id)
    assert (settings.checkpoints / job_id / "state").exists()


@pytest.mark.parametrize("part", ["wait", "keep_damaged", "keep_half"])
def test_without_a_whole_partial_result_cancelling_is_settled_all_the_same(
    settings, sessions, submit, supervise, job, part
):
    job_id = submit()
    running = Running(supervise(part), job_id)
    until(lambda: job(job_id).progress)

    with sessions.begin() as session:
        repository.request_cancel(session, job_id)

    assert running.end() is Status.CANCELLED
    assert (job(job_id).partial, job(job_id).result_summary) == (False, None)
    assert nothing_published(settings)


def test_a_partial_result_that_cannot_be_moved_does_not_hinder_settling(settings, sessions, submit, supervise, job):
    job_id = submit()
    settings.home.mkdir(exist_ok=True)
    settings.artifacts.write_text("where a directory should be")
    running = Running(supervise("keep"), job_id)
    until(lambda: job(job_id).progress)

    with sessions.begin() as session:
        repository.request_cancel(session, job_id)

    assert running.end() is Status.CANCELLED
    assert (job(job_id).partial, job(job_id).result_summary) == (False, None)


def test_cancelling_now_waits_for_no_runner_and_keeps_nothing(settings, sessions, submit, supervise, job, events):
    job_id = submit()
    running = Running(supervise("deaf", grace_s=60), job_id)
    until(lambda: job(job_id).progress)

    with sessions.begin() as session:
        repository.request_cancel(session, job_id, now=True)

    assert job(job_id).status is Status.CANCELLED
    assert running.end() is None
    assert nothing_published(settings)
    assert not list(settings.scratch.rglob("*"))


def test_pausing_lets_go_at_a_checkpoint_and_resuming_goes_on(settings, sessions, submit, supervise, job, events):
    job_id = submit()
    running = Running(supervise("keep"), job_id)
    until(lambda: job(job_id).progress)

    with sessions.begin() as session:
        repository.request_pause(session, job_id)

    assert running.end() is Status.PAUSED
    assert ("log", {"message": "asked to stop: pause"}) in events(job_id)
    assert (job(job_id).losses, job(job_id).partial) == (0, False)
    assert nothing_published(settings)
    with sessions.begin() as session:
        repository.resume(session, job_id)
    assert supervise("succeed").run(job_id) is Status.SUCCEEDED
    assert job(job_id).attempt == 2


def test_who_cancels_a_job_that_is_pausing_keeps_what_there_is(settings, sessions, submit, supervise, job, events):
    job_id = submit()
    running = Running(supervise("keep_slowly"), job_id)
    until(lambda: job(job_id).progress)

    with sessions.begin() as session:
        repository.request_pause(session, job_id)
    until((settings.checkpoints / job_id / "asked").exists)
    with sessions.begin() as session:
        repository.request_cancel(session, job_id)

    assert running.end() is Status.CANCELLED
    assert job(job_id).partial
    assert ("log", {"message": "asked to stop: cancel"}) in events(job_id)


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


@pytest.mark.parametrize("part", ["wait", "keep"])
def test_a_job_that_runs_too_long_has_failed_and_keeps_what_there_is(settings, submit, supervise, job, events, part):
    job_id = submit(max_runtime_s=1)

    assert supervise(part).run(job_id) is Status.FAILED

    assert job(job_id).error["class"] == "timeout"
    assert ("log", {"message": "asked to stop: timeout"}) in events(job_id)
    assert job(job_id).partial == bool(list(settings.artifacts.rglob("manifest.json"))) == (part == "keep")


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
    supervisor = supervise(command=["sh", "-c", f'cp "$1/job.json" "{seen}"; exit 64', "sh"])

    supervisor.run(submit())

    order = json.loads(seen.read_text())
    assert order["recipe"]["dataset"] == "digits"
    assert order["data_dir"] == str(settings.data_dir)
    assert (order["attempt"], order["download"], order["device"]) == (1, False, "auto")
    assert order["previews"] == str(settings.previews / order["job_id"])
    assert order["start_from"] is None


def test_a_retry_is_told_of_its_parents_checkpoint_and_an_uploads_place(settings, sessions, supervise, tmp_path):
    seen = tmp_path / "seen.json"
    supervisor = supervise(command=["sh", "-c", f'cp "$1/job.json" "{seen}"; exit 64', "sh"])
    spec = JobSpec.model_validate({"dataset": "digits", "method": "dream", "ipc": 1})
    with sessions.begin() as session:
        parent = repository.create_job(session, spec, spec.resolve())
        repository.request_cancel(session, parent.id)
        about = {"parent": parent, "parent_step": 42, "dataset_id": "ds_1"}
        repository.create_job(session, spec, spec.resolve(), **about)
    kept = settings.checkpoints / parent.id

    for step, expected in ((41, kept / "gone"), (42, kept / "ckpt-0123-00000042")):
        directory = kept / f"ckpt-0123-{step:08d}"
        directory.mkdir(parents=True)
        state = {"step": step, "created_at": "2026-11-22T12:00:00+00:00"}
        (directory / "state.json").write_text(json.dumps(state))
        supervisor.run("job_0")
        order = json.loads(seen.read_text())
        assert order["start_from"] == str(expected)
        assert order["data_dir"] == str(settings.uploads / "ds_1")
        with sessions.begin() as session:
            repository.create_job(session, spec, spec.resolve(), **about)


# ---------------------------------------------------------------- what users are shown


def test_neither_paths_nor_secrets_are_shown(settings, submit, supervise, job, events):
    job_id = submit()

    supervise("tell_all").run(job_id)

    log = (settings.job_logs / f"{job_id}.log").read_text()
    shown = json.dumps([job(job_id).error, events(job_id)]) + log
    for hidden in (str(settings.home), "abcdefghijk", "hunter2"):
        assert hidden not in shown
    told = f"at <home>/checkpoints/{job_id} with drk_… and redis://:…@broker:6379/0"
    assert job(job_id).error["message"] == told
    assert log.splitlines()[1:] == [f"printed {told}", "without an end"]


def test_the_log_has_every_attempt_in_turn(settings, submit, supervise):
    job_id = submit()
    supervisor = supervise("die")
    supervisor.run(job_id)
    supervise("crash").run(job_id)

    lines = (settings.job_logs / f"{job_id}.log").read_text().splitlines()

    assert re.fullmatch(rf"--- attempt 1 on worker {re.escape(supervisor.name)} at \S+Z", lines[0])
    assert lines[1].startswith("--- attempt 2 on worker")
    assert lines[-1] == "RuntimeError: a mistake"


def test_a_log_that_cannot_be_written_is_done_without(settings, submit, supervise):
    settings.home.mkdir(exist_ok=True)
    settings.job_logs.write_text("where a directory should be")

    assert supervise("succeed").run(submit()) is Status.SUCCEEDED
