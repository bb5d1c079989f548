"""A job that several devices share: one runner to the outside, the bytes of a job that none shares, and no orphans."""

import json
import os
import signal
import sys
import time

import psutil
import pytest

from jobs import repository
from jobs.lifecycle import Status
from jobs.spec import JobSpec
from tests.worker.runners import JUDGED, TINY, job
from worker.stopping import Stop, tell

DONE, USER_ERROR, STOPPED = 0, 64, 75
STEPS = 30
LONGER = {"params": {"inner_iterations": STEPS, "interval": 5}}
SAME = ("synthetic.safetensors", "decoded.safetensors", "metrics.jsonl", "evaluation.json", "gallery.png")

pytestmark = pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="two ranks on the CPU want two cores")


def helpers(process):
    """The processes that a runner has started."""
    return [child for child in psutil.Process(process.pid).children() if "worker.rank" in child.cmdline()]


def interrupted(work, how, kind="metric", count=2):
    """Start the job, do something to it and its one helper once it has told so many events; its exit code.

    Fails where the helper outlives it."""
    process, end = work.start(), time.monotonic() + 60
    while len(work.events(kind)) < count:
        assert process.is_alive(), f"ended with {process.exitcode}"
        assert time.monotonic() < end
        time.sleep(0.002)
    (helper,) = helpers(process)
    how(process, helper)
    code = work.ends(process)
    assert gone(helper)
    return code


def gone(helper, seconds=5.0):
    end = time.monotonic() + seconds
    while helper.is_running() and helper.status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def with_gpus(work, gpus):
    """The same job, asking for another number of devices."""
    order = json.loads((work.directory / "job.json").read_text())
    (work.directory / "job.json").write_text(json.dumps(order | {"gpus": gpus}))
    return work


@pytest.fixture(scope="module")
def unshared(tmp_path_factory):
    work = job(tmp_path_factory.mktemp("unshared"), **LONGER)
    assert work.run() == DONE
    return work


@pytest.mark.nightly
def test_a_shared_job_reports_once_and_has_the_same_bytes(unshared, tmp_path):
    work = job(tmp_path, gpus=2, **LONGER)

    assert work.run() == DONE

    assert work.files(*SAME) == unshared.files(*SAME)
    steps = [event["step"] for event in work.events("metric") if "loss" in event]
    assert steps == sorted(set(steps))
    assert [event["phase"] for event in work.events("phase")] == ["loading", "distilling", "evaluating", "publishing"]
    assert len(work.events("checkpoint")) == 1
    assert work.events("warning") == []


def test_where_a_rank_is_killed_so_is_the_attempt_and_others_go_on_with_any_number(unshared, tmp_path):
    work = job(tmp_path, gpus=2, checkpoint_interval_s=0, **LONGER)

    assert interrupted(work, lambda _, helper: helper.kill(), "checkpoint", 3) == -signal.SIGKILL

    (warning,) = work.events("warning")
    assert warning["code"] == "RANK_LOST"
    assert warning["message"].startswith("rank 1 of 2 (process ")
    assert warning["message"].endswith("was killed by SIGKILL, and the attempt with it")

    saved = len(work.events("checkpoint"))
    assert interrupted(work, lambda runner, _: os.kill(runner.pid, signal.SIGTERM), "checkpoint", saved + 2) == STOPPED

    assert with_gpus(work, 1).run() == DONE
    resumed = [int(event["message"].split()[3]) for event in work.events("log")]
    assert 3 <= resumed[0] < resumed[1] < STEPS
    assert work.files(*SAME) == unshared.files(*SAME)


@pytest.mark.nightly
def test_cancelled_it_leaves_what_there_is(tmp_path):
    work = job(tmp_path, gpus=2, **LONGER)

    def cancel(runner, _):
        tell(work.directory, Stop.CANCEL)
        os.kill(runner.pid, signal.SIGTERM)

    assert interrupted(work, cancel) == STOPPED

    assert work.result["partial"]
    assert (work.output / "synthetic.safetensors").exists()


@pytest.mark.nightly
def test_where_the_runner_is_killed_so_are_the_other_ranks(tmp_path):
    work = job(tmp_path, gpus=2, **LONGER)

    assert interrupted(work, lambda runner, _: runner.kill()) == -signal.SIGKILL


@pytest.mark.nightly
def test_a_rank_that_hangs_stops_the_run_only_until_it_is_killed(tmp_path):
    """Nothing more is reported, which is what the supervisor looks for."""
    work = job(tmp_path, gpus=2, **LONGER)

    def hang(runner, helper):
        helper.suspend()
        before = len(work.events("metric"))
        time.sleep(1.5)
        assert len(work.events("metric")) <= before + 1
        runner.kill()

    assert interrupted(work, hang) == -signal.SIGKILL


def test_what_cannot_be_shared_is_refused_before_anything_is_started(tmp_path):
    more = (os.cpu_count() or 1) + 1
    work = job(tmp_path, gpus=more, **LONGER)

    assert work.run() == USER_ERROR

    assert work.error["code"] == "DEVICES_MISSING"
    assert f"{more} devices are wanted, and there is no GPU" in work.error["message"]


@pytest.mark.nightly
def test_a_job_for_two_devices_through_the_worker(settings, sessions, supervise, job, events):
    body = {"dataset": "digits", "method": "dream", "ipc": 1, "params": TINY, "evaluation": JUDGED}
    spec = JobSpec.model_validate(body | {"resources": {"gpus": 2}})
    with sessions.begin() as session:
        job_id = repository.create_job(session, spec, spec.resolve()).id

    status = supervise(command=[sys.executable, "-m", "worker.runner"], grace_s=20, lease_s=30).run(job_id)

    assert status is Status.SUCCEEDED, job(job_id).error
    assert [data["phase"] for kind, data in events(job_id) if kind == "phase"][-1] == "publishing"
