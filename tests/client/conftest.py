import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest
from sqlalchemy.orm import Session, sessionmaker

from client import Client
from client.cli import main
from client.keys import new_token
from jobs import repository
from jobs.artifacts import write_manifest
from jobs.database import make_engine, make_sessions, migrate
from jobs.lifecycle import Status
from jobs.settings import Settings
from jobs.stores.local import LocalStore
from tests.fixtures.broker import free_port


@dataclass
class Service:
    """The real API in a process of its own, and hands to play the worker with."""

    settings: Settings
    port: int
    sessions: sessionmaker[Session]
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen | None = field(default=None)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        environment = os.environ | {
            "DREAM_HOME": str(self.settings.home),
            "DATABASE_URL": self.settings.database_url,
            "REDIS_URL": self.settings.redis_url,
            **self.environment,
        }
        log = (self.settings.home / "api.log").open("ab")
        command = [sys.executable, "-m", "api", "--port", str(self.port)]
        with log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        for _ in range(1200):
            try:
                httpx2.get(f"{self.url}/livez", trust_env=False)
                return
            except httpx2.TransportError:
                time.sleep(0.05)
        self.kill()
        raise RuntimeError(f"the API does not answer: {(self.settings.home / 'api.log').read_text()}")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(20)

    def claim(self, job_id):
        with self.sessions.begin() as session:
            return repository.claim(session, job_id, "a worker", 60).attempt

    def report(self, job_id, attempt, kind, **data):
        event = {"type": kind, "created_at": repository.utcnow().isoformat(), "data": data}
        with self.sessions.begin() as session:
            assert repository.append_events(session, job_id, attempt, [event])

    def finish(self, job_id, attempt, files=None, seconds=None):
        """Publish files and let the job succeed."""
        store = LocalStore(self.settings.artifacts, self.settings.staging)
        staged = store.stage()
        for name, content in (files or {"synthetic.safetensors": b"pixels"}).items():
            (staged / name).parent.mkdir(parents=True, exist_ok=True)
            (staged / name).write_bytes(content)
        write_manifest(staged, {"schema_version": 1, "job_id": job_id})
        summary = {"accuracy": {"mean": 81.25, "std": 0.5, "n": 3, "best_mean": 82.0}, "baselines": {"random": None}}
        summary |= {"seconds": seconds} if seconds else {}
        with self.sessions.begin() as session:
            assert repository.settle(session, job_id, attempt, Status.SUCCEEDED, result_summary=summary)
            store.publish(staged, job_id)
        return self.settings.artifacts / job_id / "v1"

    def stop_with_a_partial_result(self, job_id, attempt, step, steps):
        """What a worker does that was asked to cancel the job."""
        store = LocalStore(self.settings.artifacts, self.settings.staging)
        staged = store.stage()
        (staged / "synthetic.safetensors").write_bytes(b"half of the pixels")
        write_manifest(staged, {"schema_version": 1, "job_id": job_id, "partial": True})
        summary = {"partial": True, "step": step, "steps": steps}
        with self.sessions.begin() as session:
            assert repository.settle(
                session, job_id, attempt, Status.CANCELLED, result_summary=summary, partial=True, retention_days=30
            )
            store.publish(staged, job_id)

    def leave_checkpoint(self, job_id, step, total=200):
        """What a worker leaves to go on from."""
        directory = self.settings.checkpoints / job_id / f"ckpt-{step:08}"
        directory.mkdir(parents=True)
        about = {"step": step, "total": total, "phase": "distilling", "loss": 0.25}
        (directory / "state.json").write_text(json.dumps(about | {"created_at": repository.utcnow().isoformat()}))

    def fail(self, job_id, attempt):
        error = {"class": "out_of_memory", "code": "CUDA_OUT_OF_MEMORY", "message": "lower batch_syn_max"}
        with self.sessions.begin() as session:
            assert repository.settle(session, job_id, attempt, Status.FAILED, error=error)


@contextlib.contextmanager
def running(home, **environment):
    """A service of its own."""
    settings = Settings(home=home, redis_url=f"redis://127.0.0.1:{free_port()}/0")
    migrate(settings.database_url)
    engine = make_engine(settings.database_url)
    service = Service(settings, free_port(), make_sessions(engine), environment)
    service.start()
    try:
        yield service
    finally:
        service.stop()
        engine.dispose()


@pytest.fixture(scope="session")
def service(tmp_path_factory):
    with running(tmp_path_factory.mktemp("a home")) as service:
        yield service


@pytest.fixture(scope="session")
def guarded(tmp_path_factory):
    """A service that asks for keys, and allows each of them little."""
    limits = {"DREAM_RATE_LIMIT": "15/3 seconds", "DREAM_MAX_STREAMS": "1", "DREAM_MAX_QUEUED": "5"}
    keys = {"DREAM_REQUIRE_KEY": "true", "DREAM_ADMIN_KEY": new_token()}
    with running(tmp_path_factory.mktemp("guarded"), **keys, **limits) as service:
        yield service


@pytest.fixture
def admin(guarded):
    """Its administrator."""
    with Client(guarded.url, guarded.environment["DREAM_ADMIN_KEY"]) as admin:
        yield admin


@pytest.fixture
def someone(guarded, admin):
    """Someone with a key of their own."""
    with Client(guarded.url, admin.keys.create(f"owner-{uuid.uuid4().hex[:8]}")["token"]) as someone:
        yield someone


@pytest.fixture
def client(service):
    with Client(service.url) as client:
        yield client


@pytest.fixture
def job(client):
    """A job that waits."""
    return client.jobs.create("digits", "dream", 1)


@dataclass
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)

    @property
    def lines(self):
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture
def dream(service, monkeypatch, capsys):
    """The `dream` command, pointed at the service."""
    monkeypatch.setenv("DREAM_URL", service.url)
    monkeypatch.setenv("COLUMNS", "80")

    def dream(*arguments):
        monkeypatch.setattr(sys, "argv", ["dream", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        code = ended.value.code
        return Result(0 if code is None else int(code), captured.out, captured.err)

    return dream


@pytest.fixture
def cutting_proxy(service):
    """A real connection to the service that breaks: the first `times` answers end `after` so many bytes.

    `then` is called before one ends: the service has done what it was asked, and the client does not know yet.
    """
    opened = []

    def start(after, times, then=lambda: None):
        listener = socket.create_server(("127.0.0.1", 0))
        opened.append(listener)
        threading.Thread(target=_relay_all, args=(listener, service.port, after, times, then), daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield start
    for listener in opened:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def _relay_all(listener, port, after, times, then):
    for number in range(100):
        try:
            near, _ = listener.accept()
        except OSError:
            return
        limit = after if number < times else None
        threading.Thread(target=_relay, args=(near, port, limit, then), daemon=True).start()


def _relay(near, port, limit, then):
    with near, contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)) as far:
        back = threading.Thread(target=_copy, args=(near, far, None), daemon=True)
        back.start()
        _copy(far, near, limit)
        if limit is not None:
            then()
        near.shutdown(socket.SHUT_RDWR)
        back.join()


def _copy(source, target, limit):
    """Until the source ends, or so many bytes have passed."""
    passed = 0
    try:
        while data := source.recv(65536):
            data = data if limit is None else data[: limit - passed]
            target.sendall(data)
            passed += len(data)
            if limit is not None and passed >= limit:
                return
    except OSError:
        return


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A working directory of one's own."""
    monkeypatch.chdir(tmp_path)
    return Path(tmp_path)
