"""The whole product as a user meets it: `dream serve` in one terminal, the other commands in a second."""

import hashlib
import json
import os
import signal
import subprocess
import time

import pytest

from client import Client
from tests.fixtures.serving import DREAM, JUDGED, LONG, SHORT, environment, runner_of, serving

EMBEDDED = pytest.mark.parametrize(
    "service", ["embedded broker"], indirect=True
)  # where the broker makes no difference


@pytest.fixture(scope="module", params=["embedded broker", "redis-server"])
def service(request, tmp_path_factory):
    """With no more than the command itself; and with the broker that a deployment has."""
    env = {}
    if request.param == "redis-server":
        env["REDIS_URL"] = request.getfixturevalue("redis_server")
    home = tmp_path_factory.mktemp("a home")
    for folder in ("train/a", "train/b", "test/a", "test/b"):
        (home / "data" / "broken" / folder).mkdir(parents=True)
        (home / "data" / "broken" / folder / "1.png").write_bytes(b"this is no picture")
    with serving(home, env=env) as service:
        names = [process.name() for process in service.tree()]
        assert any("valkey" in name for name in names) == (request.param == "embedded broker")
        yield service


@pytest.fixture
def client(service):
    with Client(service.url) as client:
        yield client


def dream(service, *arguments, **options):
    command = [*DREAM, *map(str, arguments), "--url", service.url]
    return subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=120, check=False, **options
    )


def settings(params, evaluation):
    pairs = [f"{name}={value}" for name, value in params.items()]
    pairs += [f"evaluation.{name}={value}" for name, value in evaluation.items()]
    return [word for pair in pairs for word in ("--set", pair)]


@pytest.fixture(scope="module")
def result(service, tmp_path_factory):
    """A job from its submission to its files: (what watching said, the directory)."""
    there = tmp_path_factory.mktemp("results")
    wanted = ["--dataset", "digits", "--method", "dream", "--ipc", 1, *settings(SHORT, JUDGED)]
    watched = dream(service, "submit", *wanted, "--watch", "--json")
    assert watched.returncode == 0, watched.stderr
    lines = [json.loads(line) for line in watched.stdout.splitlines()]
    downloaded = dream(service, "download", lines[-1]["id"], "-o", "set", "--json", cwd=there)
    assert downloaded.returncode == 0, downloaded.stderr
    return lines, there / "set"


def test_a_job_goes_from_its_submission_to_verified_files(result):
    (*events, job), directory = result

    assert [event["data"]["phase"] for event in events if event["type"] == "phase"] == [
        "loading",
        "distilling",
        "evaluating",
        "publishing",
    ]
    assert [event["data"]["to"] for event in events if event["type"] == "state"] == ["queued", "running", "succeeded"]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert 0 <= job["result_summary"]["accuracy"]["mean"] <= 100
    assert job["result_summary"]["baselines"]["random"]["n"] == 1

    manifest = json.loads((directory / "manifest.json").read_text())
    assert manifest["job_id"] == job["id"]
    assert {file["path"] for file in manifest["files"]} >= {"synthetic.safetensors", "gallery.png"}
    for file in manifest["files"]:
        assert hashlib.sha256((directory / file["path"]).read_bytes()).hexdigest() == file["sha256"]


@EMBEDDED
def test_a_killed_runner_is_resumed_and_the_result_has_the_same_bytes(service, client, result, tmp_path):
    job = client.jobs.create("digits", "dream", 1, params=SHORT, evaluation=JUDGED)
    runner = runner_of(service)
    while not any(event.type == "checkpoint" for event in client.jobs.events(job.id)):
        time.sleep(0.05)

    os.kill(runner.pid, signal.SIGKILL)

    done = client.jobs.wait(job.id, timeout=120)
    assert (done.status, done.attempt) == ("succeeded", 2)
    events = list(client.jobs.events(job.id))
    assert "worker_lost" in [event.data.get("reason") for event in events if event.type == "state"]
    assert any("resumed at step" in event.data["message"] for event in events if event.type == "log")
    client.jobs.download(job.id, tmp_path)
    undisturbed = result[1] / "synthetic.safetensors"
    assert (tmp_path / "synthetic.safetensors").read_bytes() == undisturbed.read_bytes()


def test_a_running_job_is_cancelled(service, client):
    job = client.jobs.create("digits", "dream", 1, params=LONG, evaluation=JUDGED)
    command = [*DREAM, "watch", job.id, "--url", service.url]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as watching:
        while not client.jobs.get(job.id).progress:
            time.sleep(0.1)

        cancelled = dream(service, "cancel", job.id)

        assert cancelled.stdout.startswith(f"{job.id} is cancelling\n")
        assert watching.wait(30) == 2
        assert "status cancelled" in watching.stdout.read()
    kept = dream(service, "download", job.id, "--output", service.home / "kept")
    assert kept.returncode == 0, kept.stderr
    assert json.loads((service.home / "kept" / "manifest.json").read_text())["partial"] is True


@EMBEDDED
def test_a_dataset_that_turns_out_to_be_broken_fails_the_job_with_the_reason(service):
    failed = dream(service, "submit", "-d", "folder:broken", "--ipc", 1, "--set", "image_size=8", "--watch")

    assert failed.returncode == 1
    assert "1.png" in failed.stdout
    assert "user_error" in failed.stdout
    assert not list((service.home / "staging").iterdir())
    assert not list((service.home / "scratch").iterdir())


@EMBEDDED
@pytest.mark.parametrize("wrong", [["-d", "imagenet"], ["-d", "digits", "--ipc", "999"], ["-d", "folder:absent"]])
def test_what_cannot_be_run_is_refused_at_once(service, wrong):
    refused = dream(service, "submit", *wrong)

    assert (refused.returncode, refused.stdout) == (1, "")
    assert "error: " in refused.stderr
