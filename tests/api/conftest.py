"""The API as users meet it: a uvicorn server on a port, SQLite, a real broker, and artifacts on the disk."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from threading import Thread

import httpx2
import pytest
from fastapi import FastAPI
from sqlalchemy import delete
from sqlalchemy.orm import Session, sessionmaker

from api.app import create_app
from api.server import Server
from jobs import repository
from jobs.artifacts import ArtifactStore, verify, write_manifest
from jobs.database import migrate
from jobs.lifecycle import Status
from jobs.settings import Settings
from jobs.tables import Job, JobEvent
from tests.fixtures.broker import free_port
from tests.fixtures.database import new_database


@dataclass(frozen=True)
class Service:
    """A running API, with the doors that a worker would use."""

    url: str
    settings: Settings
    sessions: sessionmaker[Session]
    store: ArtifactStore

    def call(self, function: Callable, *args, **kwargs):
        """A repository function in a transaction of its own."""
        with self.sessions.begin() as session:
            return function(session, *args, **kwargs)

    def claim(self, job_id: str) -> None:
        assert self.call(repository.claim, job_id, "worker-1", 60)

    def succeed(self, job_id: str, files: dict[str, bytes]) -> None:
        """Do what a worker does in the end."""
        self.claim(job_id)
        staged = self.store.stage()
        for path, content in files.items():
            (staged / path).parent.mkdir(parents=True, exist_ok=True)
            (staged / path).write_bytes(content)
        write_manifest(staged, {"schema_version": 1, "job_id": job_id})
        self.store.upload(staged, verify(staged), job_id, 1)
        summary = {"accuracy": {"mean": 61.0, "std": 1.0, "n": 3, "best_mean": 62.0}}
        with self.sessions.begin() as session:
            assert repository.settle(session, job_id, 1, Status.SUCCEEDED, result_summary=summary)
            self.store.publish(staged, job_id)


@contextmanager
def serving(settings: Settings, app: FastAPI | None = None) -> Iterator[Service]:
    """The API on a free port of the loopback."""
    app = app or create_app(settings)
    port = free_port()
    server = Server(app, port=port)
    thread = Thread(target=server.run)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.005)
    try:
        yield Service(f"http://127.0.0.1:{port}", settings, app.state.sessions, app.state.store)
    finally:
        server.should_exit = True
        thread.join(20)


@pytest.fixture(scope="module")
def settings(
    tmp_path_factory: pytest.TempPathFactory, redis_server: str, request: pytest.FixtureRequest
) -> Iterator[Settings]:
    home = tmp_path_factory.mktemp("home") / "with space"
    with ExitStack() as stack:
        url = f"sqlite:///{home}/db.sqlite3"
        if request.config.getoption("--postgresql"):
            url = stack.enter_context(new_database(request.getfixturevalue("postgres_server")))
        settings = Settings(home=home, database_url=url, redis_url=redis_server)
        migrate(url)
        yield settings


@pytest.fixture(scope="module")
def service(settings: Settings) -> Iterator[Service]:
    with serving(settings) as running:
        yield running


@pytest.fixture
def empty(service: Service) -> None:
    """No jobs yet: the tests of a module share a service."""
    with service.sessions.begin() as session:
        session.execute(delete(JobEvent))
        session.execute(delete(Job))


@pytest.fixture
def http(service: Service) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=service.url) as client:
        yield client


@pytest.fixture
def submit(http: httpx2.Client) -> Callable[..., str]:
    """Submit a small job; its id."""

    def submit(**spec) -> str:
        body = {"spec": {"dataset": "digits", "method": "dream", "ipc": 1} | spec}
        response = http.post("/v1/jobs", json=body)
        assert response.status_code == 202, response.text
        return response.json()["id"]

    return submit


def problem(response: httpx2.Response, status: int, code: str) -> dict:
    """The document of a problem, after checking what every problem has."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document = response.json()
    assert document["code"] == code
    assert document["status"] == status
    assert document["instance"] == response.headers["x-request-id"]
    assert document["type"] == "/problems/" + code.lower().replace("_", "-")
    assert document["detail"]
    return document
