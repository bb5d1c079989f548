"""The whole service as one command: API, workers and broker as children, health-gated, stopped together."""

import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import httpx2
from alembic.util import CommandError
from kombu.exceptions import OperationalError
from pydantic import ValidationError
from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from jobs import repository
from jobs.advice import Advised
from jobs.database import make_engine, make_sessions, migrate
from jobs.embedded import STEP_S, Children, ServeError, locked, start_broker
from jobs.keys import check_administrator
from jobs.network import listening_on
from jobs.queue import make_app
from jobs.settings import Settings, complaint
from jobs.stores import open_store

START_S = 60.0
API_STOP_S = 5.0
CELERY = [
    "celery",
    "-A",
    "worker.app",
    "worker",
    "--pool",
    "threads",
    "-c",
    "1",
    "--without-mingle",
    "--without-gossip",
    "--loglevel",
    "INFO",
]
WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}


@dataclass(frozen=True, slots=True)
class Options:
    """What `dream serve` was asked for. None means what the environment says."""

    host: str = "127.0.0.1"
    port: int = 8000
    home: Path | None = None
    data_dir: Path | None = None
    workers: int = 1
    insecure_no_auth: bool = False


def serve(options: Options, announce: Callable[[dict[str, Any]], None]) -> None:
    """Run until SIGTERM, SIGINT or SIGHUP; a second one ends it without waiting for checkpoints.

    `announce` is called once, when everything answers. Raises ServeError if it cannot start, or if a part of it dies.
    """
    settings = read_settings(options)
    try:
        settings.home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ServeError(f"cannot use {settings.home}: {error.strerror}", "choose another with --home") from None
    with locked(settings.home) as directory:
        port = _free_port(options.host, options.port)
        for leftovers in (settings.scratch, settings.staging):  # of one that was killed: the home is ours alone
            shutil.rmtree(leftovers, ignore_errors=True)
        children = Children(settings.home)
        stopping = _on_signals(children)
        workers: dict[str, str] = {}
        try:
            prepare_database(settings)
            _require_administrator_and_store(settings, options.host)
            redis_url = _broker(settings, children, directory)
            workers = _start(options, port, _environment(settings, redis_url), children)
            url = _url(options.host, port)
            _wait_for_all(url, redis_url, {*workers.values()}, children, stopping)
            if not stopping.is_set():
                announce({"url": url, "home": str(settings.home), "pid": os.getpid()})
            while not stopping.wait(STEP_S):
                children.check()
        finally:
            _stop(children, [*workers], settings.grace_s)


def read_settings(options: Options) -> Settings:
    """The environment's settings with what was asked for in their place. Raises ServeError where they make no sense."""
    given: dict[str, Any] = {"home": options.home, "data_dir": options.data_dir}
    try:
        settings = Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise ServeError(complaint(error), "correct it in the environment") from None
    settings = settings.model_copy(update={"database_url": _absolute(settings.database_url)})
    return listening_on(options.host, settings, insecure=options.insecure_no_auth)


def prepare_database(settings: Settings, revision: str = "head") -> None:
    """Bring the database up to date. Raises ServeError where there is none to be had, or no such revision."""
    try:
        migrate(settings.database_url, revision)
    except CommandError as error:
        raise ServeError(f"cannot go to {revision!r}: {error}", "name one of jobs/migrations/versions") from None
    except (SQLAlchemyError, OSError) as error:
        raise ServeError(f"cannot use the database: {error}", "look at DATABASE_URL, or at --home") from None


def _require_administrator_and_store(settings: Settings, host: str) -> None:
    try:
        check_administrator(settings, host)
        open_store(settings).check()
    except Advised as error:
        raise ServeError(str(error), error.advice) from None


def _broker(settings: Settings, children: Children, directory: Path) -> str:
    """The URL of the broker: the one that REDIS_URL names, else our own."""
    if redis_url := os.environ.get("REDIS_URL"):
        _check_broker(redis_url)
        return redis_url
    redis_url = start_broker(children, directory)
    engine = make_engine(settings.database_url)
    with make_sessions(engine).begin() as session:
        repository.nothing_rung(session)  # messages of an earlier broker went with it
    engine.dispose()
    return redis_url


def _check_broker(redis_url: str) -> None:
    try:
        with make_app(redis_url).connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, timeout=2)
    except OperationalError as error:
        raise ServeError(
            f"no broker answers at REDIS_URL: {error}", "start it; or unset REDIS_URL to use our own"
        ) from None


def _start(options: Options, port: int, environment: dict[str, str], children: Children) -> dict[str, str]:
    """Start the API and the workers. Returns the workers' names as children, and as Celery's nodes."""
    python = [sys.executable, "-m"]
    listen = ["--host", options.host, "--port", str(port)]
    trust = ["--insecure-no-auth"] if options.insecure_no_auth else []
    children.start("api", [*python, "api", *listen, *trust], environment)
    names = [f"worker-{number}" for number in range(1, options.workers + 1)] if options.workers > 1 else ["worker"]
    nodes = {name: f"{name}-{os.getpid()}@{socket.gethostname()}" for name in names}
    for name, node in nodes.items():
        children.start(name, [*python, *CELERY, "-n", node], environment)
    return nodes


def _environment(settings: Settings, redis_url: str) -> dict[str, str]:
    return os.environ | {
        "DREAM_HOME": str(settings.home),
        "DREAM_DATA_DIR": str(settings.data_dir),
        "DATABASE_URL": settings.database_url,
        "REDIS_URL": redis_url,
    }


def _absolute(database_url: str) -> str:
    """A SQLite file named relative to here, so that children find it from where they run."""
    url = make_url(database_url)
    if url.get_backend_name() == "sqlite" and url.database:
        url = url.set(database=str(Path(url.database).absolute()))
    return url.render_as_string(hide_password=False)


def _wait_for_all(url: str, redis_url: str, nodes: set[str], children: Children, stopping: Event) -> None:
    """Until the API is ready and every worker answers through the broker."""
    celery = make_app(redis_url)
    deadline = time.monotonic() + START_S
    answered: set[str] = set()
    with httpx2.Client(trust_env=False, timeout=2) as http:
        while not stopping.wait(STEP_S):
            children.check()
            if not (ready := _is_ready(http, url)):
                pass
            elif nodes <= answered:
                return
            else:
                replies = celery.control.ping(destination=[*nodes - answered], timeout=0.5)
                answered |= {node for reply in replies or () for node in reply}
            if time.monotonic() > deadline:
                what = "workers do" if ready else "API does"
                raise ServeError(
                    f"the {what} not answer after {START_S:g} s", f"see the logs in {children.log('api').parent}"
                )


def _is_ready(http: httpx2.Client, url: str) -> bool:
    try:
        return http.get(f"{url}/readyz").status_code == httpx2.codes.OK
    except httpx2.TransportError:
        return False


def _stop(children: Children, workers: list[str], grace_s: float) -> None:
    """Workers first, all at once told, so that their jobs are back in the queue before the rest goes."""
    children.terminate(workers)
    for name in workers:
        children.stop(name, grace_s + API_STOP_S)
    for name in ("api", "broker"):
        children.stop(name, API_STOP_S)


def _on_signals(children: Children) -> Event:
    stopping = Event()

    def handle(*_: Any) -> None:
        if stopping.is_set():
            children.kill()
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, handle)
    return stopping


def _free_port(host: str, port: int) -> int:
    """The port itself if it can be listened on; any free one for 0."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except (OSError, OverflowError) as error:
            message = f"cannot listen on {host} port {port}: {getattr(error, 'strerror', None) or error}"
            raise ServeError(message, "choose another with --port; 0 takes any free one") from None
        return listener.getsockname()[1]


def _url(host: str, port: int) -> str:
    reachable = WILDCARDS.get(host, host)
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"
