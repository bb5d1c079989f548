import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import httpx2
import pytest
import typer

from client import Client
from jobs.commands import admin_key, migrate
from jobs.embedded import LOCK, ServeError, locked
from jobs.serve import Options, serve
from tests.fixtures.serving import DREAM, JUDGED, LONG, environment, runner_of, serving, until_gone


def refused(*options, **env):
    """What the command says where it should not get so far as to serve."""
    command = [*DREAM, "serve", *map(str, options)]
    result = subprocess.run(command, env=environment(env), capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stdout) == (1, "")
    assert "Traceback" not in result.stderr
    return result.stderr


def never(facts):
    raise AssertionError(f"it serves: {facts}")


def test_it_starts_from_anywhere_and_stops_leaving_nothing(tmp_path):
    """From a path with a space, longer than a socket's may be, where folders are called like our packages."""
    here = tmp_path / "where the user is"
    for package in ("api", "worker", "jobs", "dream_core"):
        (here / package).mkdir(parents=True)
        (here / package / "__init__.py").write_text("raise RuntimeError('not this one')")
    home = tmp_path / ("a long name " * 10).strip() / "home"
    for leftover in (home / "scratch" / "job" / "1", home / "staging" / "half of a result"):
        leftover.mkdir(parents=True)

    with serving(home, "--workers", "2", env={"DATABASE_URL": "sqlite:///mine.sqlite3"}, cwd=here) as service:
        tree = service.tree()
        sockets = Path(json.loads((home / LOCK).read_text())["directory"])
        assert list(sockets.iterdir())
        assert httpx2.get(f"{service.url}/readyz", trust_env=False).json()["broker"] == "ok"
        assert sum("celery" in process.cmdline() for process in tree) == 2
        assert len(tree) == 5  # itself, the API, two workers, the broker

        second = refused("--home", home, "--port", 0)
        assert f"another `dream serve` is using {home} (process {service.process.pid})" in second

        assert service.stop() == 0

    assert until_gone(tree) == []
    assert not sockets.exists()
    assert not (home / "scratch").exists()
    assert not (home / "staging").exists()
    assert (here / "mine.sqlite3").exists()  # a relative address means the same to all parts


def test_a_stop_hands_the_job_back_and_a_kill_leaves_nothing_running(tmp_path):
    with serving(tmp_path) as service, Client(service.url) as client:
        job = client.jobs.create("digits", "dream", 1, params=LONG, evaluation=JUDGED)
        while not client.jobs.get(job.id).progress:
            time.sleep(0.1)
        tree = service.tree()
        assert service.stop() == 0
    assert until_gone(tree) == []
    assert list((tmp_path / "checkpoints" / job.id).iterdir())

    with serving(tmp_path, "--host", "0.0.0.0", "--insecure-no-auth") as again, Client(again.url) as client:
        runner = runner_of(again)
        resumed = client.jobs.get(job.id)
        assert (resumed.attempt, resumed.raw["retries_left"]) == (2, 2)
        tree = again.tree()
        assert runner in tree

        left_behind = json.loads((tmp_path / "serve.lock").read_text())["directory"]
        assert Path(left_behind).exists()
        os.kill(again.process.pid, signal.SIGKILL)

        assert until_gone(tree) == []
    with locked(tmp_path):  # as the next start does
        assert not Path(left_behind).exists()


def test_a_part_that_dies_ends_the_whole_and_is_named(tmp_path):
    with serving(tmp_path) as service:
        tree = service.tree()
        next(process for process in tree if "celery" in process.cmdline()).kill()

        assert service.process.wait(30) == 1

    assert until_gone(tree) == []
    assert "the worker stopped (SIGKILL)" in (tmp_path / "serve.err").read_text()


@pytest.mark.parametrize("host", ["0.0.0.0", ""])
def test_other_machines_are_not_let_in_unasked(tmp_path, host):
    with pytest.raises(ServeError, match="can be reached from other machines: every request must carry a key") as error:
        serve(Options(host=host, port=0, home=tmp_path), never)

    assert f"dream admin-key --home {tmp_path}" in error.value.advice
    assert "--insecure-no-auth" in error.value.advice


def test_whoever_comes_from_another_machine_needs_a_key(tmp_path, capsys):
    admin_key(tmp_path)
    token = capsys.readouterr().out.strip()

    with serving(tmp_path, "--host", "0.0.0.0") as service:
        assert httpx2.get(f"{service.url}/v1/jobs", trust_env=False).status_code == 401
        headers = {"Authorization": f"Bearer {token}"}
        assert httpx2.get(f"{service.url}/v1/jobs", headers=headers, trust_env=False).status_code == 200


def test_the_database_goes_to_another_schema_and_back(tmp_path, capsys):
    for revision in ("head", "0001", "head"):
        migrate(revision, tmp_path)
        assert capsys.readouterr().out == f"the database is at {revision}\n"

    with pytest.raises(typer.Exit):
        migrate("9999", tmp_path)
    assert "error: cannot go to '9999'" in capsys.readouterr().err


def test_a_port_that_is_taken(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServeError, match=f"cannot listen on 127.0.0.1 port {port}: Address already in use"):
            serve(Options(port=port, home=tmp_path), never)


def test_a_home_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(ServeError, match="cannot use"):
        serve(Options(home=tmp_path / "file" / "home"), never)


def test_a_wrong_setting_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("DREAM_LEASE_S", "soon")

    with pytest.raises(ServeError, match="DREAM_LEASE_S"):
        serve(Options(home=tmp_path), never)


def test_a_database_that_is_not_there(tmp_path):
    said = refused("--home", tmp_path, "--port", 0, DATABASE_URL="postgresql://nobody@127.0.0.1:1/nothing")

    assert "error: cannot use the database" in said
    assert "DATABASE_URL" in said


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://127.0.0.1:1/0", "error: no broker answers at REDIS_URL"),
        ("nonsense://here", "nonsense:// cannot be the broker"),
    ],
)
def test_a_broker_that_is_not_there(tmp_path, url, expected):
    said = refused("--home", tmp_path, "--port", 0, REDIS_URL=url)

    assert expected in said
