import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jobs import repository
from jobs.database import make_engine, make_sessions, migrate
from jobs.queue import Bell
from jobs.settings import Settings
from jobs.spec import JobSpec
from worker.process import ProcessLauncher
from worker.supervisor import Supervisor

# A stand-in for the computation, a real process all the same: it does what its name in job.json's dataset says.
RUNNER = Path(__file__).with_name("scripted_runner.py")


@pytest.fixture
def settings(tmp_path):
    return Settings(
        home=tmp_path / "a home",
        redis_url="redis://127.0.0.1:1/0",
        lease_s=3,
        heartbeat_s=0.3,
        grace_s=2,
        stall_s=60,
        allow_download=False,
    )


@pytest.fixture
def sessions(settings):
    migrate(settings.database_url)
    engine = make_engine(settings.database_url)
    yield make_sessions(engine)
    engine.dispose()


@pytest.fixture
def submit(sessions):
    def submit(max_runtime_s=None):
        spec = JobSpec.model_validate(
            {"dataset": "digits", "method": "dream", "ipc": 1, "resources": {"max_runtime_s": max_runtime_s}}
        )
        with sessions.begin() as session:
            return repository.create_job(session, spec, spec.resolve()).id

    return submit


@pytest.fixture
def supervise(settings, sessions):
    """A supervisor whose runner plays the named part, or is another command, with changed settings if wanted."""

    def supervise(part="succeed", command=None, **changes):
        changed = settings.model_copy(update=changes)
        launcher = ProcessLauncher(command or [sys.executable, str(RUNNER), part])
        return Supervisor(changed, sessions, Bell(settings.redis_url), launcher)

    return supervise


@pytest.fixture
def job(sessions):
    def job(job_id):
        with sessions() as session:
            return repository.get_job(session, job_id)

    return job


@pytest.fixture
def events(sessions):
    def events(job_id):
        with sessions() as session:
            return [
                (event.type, json.loads(json.dumps(event.data)))
                for event in repository.list_events(session, job_id, 0, 1000)[0]
            ]

    return events


@pytest.fixture
def small_disk(tmp_path):
    """Mounts disks of a few bytes, so that they can be filled."""
    mounted = []

    def small_disk(size):
        place = tmp_path / f"disk {len(mounted)}"
        place.mkdir()
        mount = shutil.which("mount")
        if mount is None or os.geteuid() != 0:
            pytest.skip("only root can mount a small disk to fill")
        command = [mount, "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"a small disk to fill cannot be mounted here: {done.stderr.strip()}")
        mounted.append(place)
        return place

    yield small_disk
    for place in mounted:
        subprocess.run(["umount", str(place)], check=True)
