"""The parts of a deployment as processes of their own, each on this machine and in a new directory."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil
import psycopg
import redis

from jobs.processes import Process, spawn

ACCOUNT = "postgres"


@contextmanager
def running_redis(directory: Path) -> Iterator[str]:
    """An empty broker; its URL."""
    program = _program("redis-server", "valkey-server")
    address = directory / "redis.sock"
    options = ["--port", "0", "--unixsocket", str(address), "--save", "", "--dir", str(directory)]
    with _running([program, *options], directory / "redis.log"), redis.Redis(unix_socket_path=str(address)) as client:
        _until(lambda: bool(client.ping()), redis.ConnectionError)
        yield f"redis+socket://{address}"


@contextmanager
def running_postgres(directory: Path) -> Iterator[str]:
    """An empty PostgreSQL that writes to the disk as it does by default; its URL."""
    programs = Path(_program("initdb", *map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))))).parent
    account = ["runuser", "-u", ACCOUNT, "--"] if os.getuid() == 0 else []  # it refuses to run as root
    if account:
        pwd.getpwnam(ACCOUNT)
        shutil.chown(directory, ACCOUNT)
    data = directory / "data"
    settings = [
        programs / "initdb",
        "-D",
        data,
        "-U",
        ACCOUNT,
        "-A",
        "trust",
        "--no-instructions",
        "--encoding",
        "UTF8",
    ]
    subprocess.run([*account, *settings], check=True, stdout=subprocess.DEVNULL, cwd="/")
    command = [*account, str(programs / "postgres"), "-D", str(data), "-k", str(directory), "-c", "listen_addresses="]
    with _running(command, directory / "postgres.log", cwd="/"):
        url = f"postgresql://{ACCOUNT}@/{ACCOUNT}?host={directory}"
        _until(lambda: psycopg.connect(url).close() is None, psycopg.OperationalError)
        yield url


@contextmanager
def running_database(directory: Path, database: str) -> Iterator[str]:
    """An empty database of this kind; its URL."""
    if database == "sqlite":
        yield f"sqlite:///{directory}/db.sqlite3"
        return
    home = directory / "postgres"
    home.mkdir()
    directory.chmod(0o755)  # its account is another one
    with running_postgres(home) as url:
        yield url


@contextmanager
def running_api(directory: Path, env: Mapping[str, str]) -> Iterator[tuple[str, psutil.Process]]:
    """`python -m api` on a free port; where it is, and its process."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "api", "--port", str(port)]
    with _running(command, directory / "api.log", env=os.environ | dict(env)) as process:
        _until(lambda: urllib.request.urlopen(f"{url}/readyz").status == 200, urllib.error.URLError)
        yield url, psutil.Process(process.pid)


@contextmanager
def _running(command: list[str], log: Path, **options: object) -> Iterator[Process]:
    with log.open("ab") as output:
        process = spawn(command, signal.SIGKILL, stdout=output, stderr=subprocess.STDOUT, **options)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _program(*names: str) -> str:
    for name in names:
        if found := shutil.which(name):
            return found
    raise SystemExit(f"needs {' or '.join(names)}")


def _until(answers: Callable[[], bool], *refusals: type[Exception], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            if answers():
                return
        except refusals:
            if time.monotonic() > end:
                raise
        time.sleep(0.05)
