"""Every method as a job: submitted, watched, its runner killed, resumed, judged, downloaded, verified."""

import os
import signal
import time

import pytest

from client import Client
from dream_core.catalog import METHODS
from tests.fixtures.methods import PARAMS, judged
from tests.fixtures.serving import runner_of, serving
from tests.worker.runners import job as local_job

SAME = ("synthetic.safetensors", "decoded.safetensors", "evaluation.json", "metrics.jsonl", "recipe.json")


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("methods"), env={"DREAM_CHECKPOINT_INTERVAL_S": "0.001"}) as service:
        yield service


@pytest.mark.parametrize("method", METHODS)
def test_a_job_from_its_submission_to_its_files(service, method, tmp_path):
    evaluation = judged(method, epochs=300)
    with Client(service.url) as client:
        job = client.jobs.create("digits", method, 2, params=PARAMS[method], evaluation=evaluation)
        runner = runner_of(service)
        while not any(event.type == "checkpoint" for event in client.jobs.events(job.id)):
            time.sleep(0.02)
        os.kill(runner.pid, signal.SIGKILL)
        done = client.jobs.wait(job.id, timeout=120)
        assert (done.status, done.attempt) == ("succeeded", 2), done.error
        events = list(client.jobs.events(job.id))
        assert any(event.type == "metric" for event in events)
        assert any("resumed at step" in event.data.get("message", "") for event in events if event.type == "log")
        assert 0 <= done.result_summary["accuracy"]["mean"] <= 100
        client.jobs.download(job.id, tmp_path / "downloaded")  # verifies every file by its SHA-256

    undisturbed = local_job(tmp_path / "local", method=method, ipc=2, params=PARAMS[method], evaluation=evaluation)
    assert undisturbed.run() == 0
    for name in SAME:
        assert (tmp_path / "downloaded" / name).read_bytes() == (undisturbed.output / name).read_bytes(), name


@pytest.mark.parametrize("method", ["dm", "mtt", "dd", "sre2l"])
def test_a_job_is_cancelled_in_any_loop(service, method):
    endless = {"dm": {"outer_iterations": 10**6}, "mtt": {"iterations": 10**6}, "dd": {"iterations": 10**6},
               "sre2l": {"iterations": 10**6}}[method]  # fmt: skip
    with Client(service.url) as client:
        job = client.jobs.create("digits", method, 1, params=PARAMS[method] | endless, evaluation=judged(method))
        while not client.jobs.get(job.id).progress:
            time.sleep(0.05)
        client.jobs.cancel(job.id)
        assert client.jobs.wait(job.id, timeout=60).status == "cancelled"
