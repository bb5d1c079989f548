"""The service as compose starts it, and what can be done to it."""

import json
import shlex
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx2

from client.resources import Job
from client.sdk import Client
from tests.containers.engine import Engine, run
from tests.fixtures.broker import free_port
from tests.fixtures.cluster import until

ROOT = Path(__file__).parents[2]
PROJECT = "dream-containers"
SECRETS = ("DREAM_ADMIN_KEY", "DREAM_SECRET", "POSTGRES_PASSWORD", "REDIS_PASSWORD")
BUILT = {"migrate": "api", "api": "api", "worker": "worker", "worker-gpu": "cuda"}
# So that a lost worker is missed, and a job checkpointed, within seconds.
HURRIED = {
    "DREAM_LEASE_S": "15",
    "DREAM_HEARTBEAT_S": "2",
    "DREAM_CHECKPOINT_INTERVAL_S": "0.5",
    "DREAM_RATE_LIMIT": "100000/minute",
}


class Stack:
    """A project of compose's with settings, volumes and a port of its own."""

    def __init__(self, engine: Engine, directory: Path, bases: Mapping[str, str], torch: Mapping[str, str]):
        self._engine, self._directory = engine, directory
        self.base = bases["PYTHON_IMAGE"]
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._env_file = directory / "env"
        run(["sh", str(ROOT / "docker" / "make-env.sh"), str(self._env_file)], engine.environment)
        self.settings = dict(
            line.split("=", 1) for line in self._env_file.read_text().splitlines() if line[:1].isalpha()
        )
        self._override = directory / "override.json"
        self._said = ""
        self._set_up_builds(bases, torch)

    def configure(self, **settings: str) -> None:
        """Change lines of the .env."""
        self.settings |= settings
        self._env_file.write_text("".join(f"{name}={value}\n" for name, value in self.settings.items()))

    def _set_up_builds(self, bases: Mapping[str, str], torch: Mapping[str, str]) -> None:
        """What .env has no line for, since it is of this machine: base images, and the network to build in."""
        images = {name: bases[name] for name in ("PYTHON_IMAGE", "BUILD_IMAGE")}
        arguments = {"api": images, "worker": images | dict(torch), "cuda": images}
        network = {"network": "host"} if self._engine.own else {}
        services: dict[str, Any] = {
            name: {"build": {"args": arguments[kind]} | network} for name, kind in BUILT.items()
        }
        services["worker"]["environment"] = {"OMP_NUM_THREADS": "1"}  # the bytes are of a number of threads
        self._override.write_text(json.dumps({"services": services}))
        servers = {name: image for name, image in bases.items() if name not in images}
        self.configure(DREAM_PORT=str(self.port), DREAM_TAG="containers", **HURRIED, **servers)

    def compose(self, *arguments: str, seconds: float = 600, files: tuple[str, ...] = ()) -> str:
        """`docker compose ...`, and what it says. Raises Failed."""
        return run([*self._command(files), *arguments], self._engine.environment, seconds)

    def _command(self, files: tuple[str, ...] = ()) -> list[str]:
        paths = [str(ROOT / file) for file in ("docker-compose.yml", *files, self._override)]
        place = ["--project-directory", str(ROOT), "--project-name", PROJECT, "--env-file", str(self._env_file)]
        return [*self._engine.compose, *place, *(word for path in paths for word in ("--file", path))]

    def typed(self, line: str) -> None:
        """A command as the documentation has it, in a folder for its files."""
        line = line.replace("docker compose", shlex.join(self._command()))
        run(["sh", "-c", f"cd {self._directory} && {line}"], self._engine.environment)

    def docker(self, *arguments: str) -> str:
        return self._engine.run(*arguments)

    def image(self, service: str) -> str:
        return f"dream-{BUILT[service]}:containers" if service != "worker-gpu" else "dream-worker:containers-cuda"

    def container(self, service: str) -> str:
        """Its id, whether it runs or not."""
        return self.compose("ps", "--all", "--quiet", service).splitlines()[-1]

    def inspect(self, service: str) -> dict[str, Any]:
        return json.loads(self.docker("inspect", self.container(service)))[0]

    def shell(self, service: str, script: str) -> str:
        """What a command in the container says."""
        return self.docker("exec", self.container(service), "sh", "-c", script)

    def sql(self, query: str) -> str:
        return self.docker(
            "exec", self.container("db"), "psql", "-U", "dream", "-h", "/var/run/postgresql", "-tAc", query
        )

    def up(self, *services: str) -> None:
        """These, or all, and wait until they are well."""
        self.compose("up", "--detach", "--no-build", "--wait", "--wait-timeout", "120", *services)

    def scale(self, service: str, number: int) -> None:
        """So many containers of it."""
        scaled = ("--scale", f"{service}={number}", service)
        self.compose("up", "--detach", "--no-build", "--no-recreate", "--wait", "--wait-timeout", "120", *scaled)

    def logs(self) -> str:
        """All that was said, by containers that are gone, too."""
        return self._said + self.compose("logs", "--no-color")

    def down(self, *options: str) -> None:
        self._said = self.logs()
        self.compose("--profile", "*", "down", "--timeout", "120", *options)

    def client(self) -> Client:
        return Client(self.url, self.settings["DREAM_ADMIN_KEY"])

    def answers(self) -> bool:
        try:
            return httpx2.get(f"{self.url}/livez", trust_env=False, timeout=2).status_code == httpx2.codes.OK
        except httpx2.TransportError:
            return False

    def started(self, service: str, action: str = "start") -> float:
        """Seconds from the command until the API answers."""
        began = time.monotonic()
        self.compose(action, service)
        until(self.answers, "the API answers", every=0.02)
        return time.monotonic() - began

    def last_words(self) -> str:
        try:
            return self.compose("logs", "--tail", "15", "--no-color")
        except (subprocess.SubprocessError, OSError) as error:
            return str(error)


def checkpointed(client: Client, job: Job, seconds: float = 120) -> Job:
    """The running job, once there is a checkpoint that it can go on from."""

    def found() -> Job | None:
        now = client.jobs.get(job.id)
        assert not now.finished, f"{job.id} was over before anything could happen to it: {now.status} {now.error}"
        return now if client.jobs.checkpoints(job.id) else None

    return until(found, f"{job.id} has a checkpoint", seconds)
