"""Against a real Ray on this machine. Its jobs play the parts of `scripted_runner`, but for the last one."""

import hashlib
import sys
import time
from pathlib import Path

import psutil
import pytest

pytest.importorskip("ray", reason="Ray is not installed: pip install 'dream-distillation[ray]'")

from jobs import repository
from jobs.lifecycle import Status
from jobs.queue import Bell
from jobs.spec import JobSpec
from tests.fixtures.cluster import SAME, TINY, draw_pictures
from tests.fixtures.ray_cluster import ray_cluster
from tests.fixtures.serving import JUDGED, SHORT
from tests.worker.conftest import RUNNER
from tests.worker.test_supervisor import Running, until
from worker.launcher import LOG
from worker.launcher import RUNNER as REAL
from worker.process import ProcessLauncher
from worker.ray_launcher import EXIT_CODE, STOPPED, RayLauncher, submission_id
from worker.stopping import Stop
from worker.supervisor import Supervisor

RAY_S = 90


@pytest.fixture
def settings(settings):
    """More patient than elsewhere: a job of Ray starts a process that imports Ray."""
    return settings.model_copy(update={"lease_s": 60, "heartbeat_s": 1, "grace_s": 10})


@pytest.fixture(scope="module")
def address():
    with ray_cluster() as address:
        yield address


@pytest.fixture
def launch(settings, address):
    """A launcher whose runners play a part, with changed settings if wanted."""

    def launch(part, **changes):
        changed = settings.model_copy(update={"launcher": "ray", "ray_address": address} | changes)
        return RayLauncher(changed, [sys.executable, str(RUNNER), part])

    return launch


@pytest.fixture
def supervise(settings, sessions, launch):
    def supervise(part, **changes):
        changed = settings.model_copy(update=changes)
        return Supervisor(changed, sessions, Bell(settings.redis_url), launch(part, **changes))

    return supervise


@pytest.fixture
def ordered(launch, tmp_path):
    """The working directory of an attempt that no worker watches."""

    def ordered(attempt):
        workdir = tmp_path / "orders" / str(attempt)
        workdir.mkdir(parents=True)
        order = f'{{"output": "{workdir}", "checkpoints": "{workdir}", "attempt": "{attempt}"}}'
        (workdir / "job.json").write_text(order)
        (workdir / "stop").write_text("shutdown")  # what the real runner takes for granted
        return workdir

    return ordered


def published(settings, job_id):
    return {path.name: path.read_bytes() for path in Path(settings.artifacts, job_id).rglob("*") if path.is_file()}


def ended(running):
    until(lambda: running.status, RAY_S)
    return running.end()


def status_of(launcher, job_id, attempt):
    return launcher.client.get_job_status(submission_id(job_id, attempt)).value


def reported(workdir):
    return (workdir / "events.jsonl").exists()


def test_a_job_that_succeeds_is_published_with_its_events(settings, submit, supervise, events):
    job_id = submit()

    assert supervise("succeed").run(job_id) is Status.SUCCEEDED

    assert [kind for kind, _ in events(job_id)] == ["state", "state", "phase", "metric", "state"]
    assert published(settings, job_id)["synthetic.safetensors"] == b"pixels"
    assert [path for part in (settings.scratch, settings.staging) for path in part.rglob("*")] == []


@pytest.mark.parametrize(
    ("part", "status", "reason"),
    [
        ("user_error", Status.FAILED, "user_error"),
        ("crash", Status.FAILED, "internal"),
        ("die", Status.QUEUED, "worker_lost"),
    ],
)
def test_how_a_runner_ends_is_told_apart(submit, supervise, job, part, status, reason):
    job_id = submit()

    assert supervise(part).run(job_id) is status

    assert job(job_id).status_reason == reason


def test_cancelling_keeps_what_there_is(settings, sessions, submit, supervise, job, events):
    job_id = submit()
    running = Running(supervise("keep"), job_id)
    until(lambda: job(job_id).progress, RAY_S)

    with sessions.begin() as session:
        repository.request_cancel(session, job_id)

    assert ended(running) is Status.CANCELLED
    assert job(job_id).partial
    assert published(settings, job_id)["synthetic.safetensors"] == b"pixels"
    assert ("log", {"message": "asked to stop: cancel"}) in events(job_id)


def test_a_success_that_comes_after_cancelling_is_kept_for_what_it_is(sessions, submit, supervise, job):
    job_id = submit()
    running = Running(supervise("wait_then_finish"), job_id)
    until(lambda: job(job_id).progress, RAY_S)

    with sessions.begin() as session:
        repository.request_cancel(session, job_id)

    assert ended(running) is Status.CANCELLED
    assert (job(job_id).partial, job(job_id).accuracy) == (True, 80.0)


def test_shutting_the_worker_down_hands_the_job_back_uncharged(submit, supervise, job):
    job_id = submit()
    supervisor = supervise("wait")
    running = Running(supervisor, job_id)
    until(lambda: job(job_id).progress, RAY_S)

    supervisor.close()

    assert ended(running) is Status.QUEUED
    assert (job(job_id).status_reason, job(job_id).losses, job(job_id).checkpoint_step) == ("host_shutdown", 0, 7)


def test_a_runner_that_does_not_listen_is_killed_with_all_it_started(settings, sessions, submit, supervise, job):
    job_id = submit()
    running = Running(supervise("deaf", grace_s=1), job_id)
    note = settings.checkpoints / job_id / "helper"
    until(lambda: note.exists() and note.read_text(), RAY_S)
    helper = psutil.Process(int(note.read_text()))

    with sessions.begin() as session:
        repository.request_cancel(session, job_id)

    assert ended(running) is Status.CANCELLED
    until(lambda: not helper.is_running() or helper.status() == psutil.STATUS_ZOMBIE)


def test_the_next_attempt_stops_the_one_whose_worker_died(launch, ordered):
    launcher, first, second = launch("wait"), ordered(1), ordered(2)
    orphan = launcher.start("job_a", 1, first)
    until(lambda: orphan.poll() is None and reported(first), RAY_S)

    after = launcher.start("job_a", 2, second)  # by another worker: it knows what Ray knows

    until(lambda: after.poll() is None and reported(second), RAY_S)
    assert status_of(launcher, "job_a", 1) == "STOPPED"
    assert (first / EXIT_CODE).read_text().strip() == str(STOPPED)
    after.terminate(Stop.PAUSE)
    until(lambda: after.poll() == STOPPED, RAY_S)


def test_what_nobody_wants_any_more_is_stopped(launch, ordered, sessions, submit):
    """One whose job another attempt has, and one whose job is not known. One that is held runs on."""
    launcher, held = launch("wait"), submit()
    with sessions.begin() as session:
        assert repository.claim(session, held, "worker", 60).attempt == 1
    runs = {name: launcher.start(name, 1, ordered(name)) for name in ("job_b", held)}
    until(lambda: all(run.poll() is None and reported(run._workdir) for run in runs.values()), RAY_S)

    launcher.stop_orphans(sessions)

    until(lambda: status_of(launcher, "job_b", 1) == "STOPPED", RAY_S)
    assert status_of(launcher, held, 1) == "RUNNING"
    runs[held].kill()
    assert runs[held].poll() == STOPPED


def test_while_ray_is_away_an_attempt_waits_and_can_be_stopped(launch, ordered):
    launcher = launch("wait", ray_address="http://127.0.0.1:1")

    waiting = launcher.start("job_c", 1, ordered(1))

    assert waiting.poll() is None
    waiting.terminate(Stop.CANCEL)
    assert waiting.poll() == STOPPED


def test_what_ray_has_forgotten_is_lost(launch, ordered):
    launcher, workdir = launch("user_error"), ordered(1)
    forgotten = launcher.start("job_d", 1, workdir)
    until(lambda: forgotten.poll() is None and status_of_if_any(launcher, "job_d") == "FAILED", RAY_S)
    forgotten._code, forgotten._look_at = None, 0.0  # as if it had not been seen to end
    launcher.client.delete_job(submission_id("job_d", 1))

    assert forgotten.poll() == -9
    assert (workdir / LOG).exists()


def status_of_if_any(launcher, job_id):
    known = [job.status.value for job in launcher.client.list_jobs() if job.submission_id == submission_id(job_id, 1)]
    return known[0] if known else None


def test_a_job_on_ray_has_the_bytes_of_one_beside_the_worker(settings, sessions, address):
    """The real runner, twice: as a job of Ray, and as a process."""
    draw_pictures(settings.data_dir / TINY)
    about = {"dataset": f"folder:{TINY}", "method": "dream", "ipc": 1}
    spec = JobSpec.model_validate(about | {"params": SHORT | {"image_size": 8}, "evaluation": JUDGED})
    patient = settings.model_copy(update={"launcher": "ray", "ray_address": address, "device": "cpu"})

    on_ray, beside = (
        digests(settings, sessions, spec, Supervisor(patient, sessions, Bell(settings.redis_url), launcher))
        for launcher in (RayLauncher(patient), ProcessLauncher((sys.executable, *REAL)))
    )

    assert on_ray == beside
    assert on_ray.keys() >= {"synthetic.safetensors", "evaluation.json"}


def digests(settings, sessions, spec, supervisor):
    with sessions.begin() as session:
        job_id = repository.create_job(session, spec, spec.resolve()).id
    began = time.monotonic()
    assert supervisor.run(job_id) is Status.SUCCEEDED
    files = published(settings, job_id)
    found = {name: hashlib.sha256(files[name]).hexdigest() for name in SAME if name in files}
    sys.stdout.write(f"{type(supervisor._launcher).__name__}, {time.monotonic() - began:.1f} s: {found}\n")
    return found
