"""What must be seen of the containers, in this order: each step stands on the ones before."""

import hashlib
import json
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx2
import pytest

from client.resources import Job
from client.sdk import Client
from dream_core.inventory import find
from tests.containers.beside import NO_CAPABILITY, SERVICES, Beside
from tests.containers.engine import Failed, run
from tests.containers.report import Report, Step
from tests.containers.stack import ROOT, SECRETS, Stack, checkpointed
from tests.fixtures.cluster import digests_in
from tests.fixtures.serving import JUDGED, SHORT

JOB: dict[str, Any] = {"params": SHORT | {"outer_iterations": 16}, "evaluation": JUDGED}
"""DREAM on real digits, long enough to be disturbed."""
SHORTEST: dict[str, Any] = {
    "method": "random",
    "ipc": 1,
    "params": {"width": 8},
    "evaluation": {"epochs": 1, "repeats": 1, "tests": 1, "baselines": False, "ceiling": "none", "width": 8},
}
MANY = 100
OTHERS = ("cifar10", "mnist")
WAIT_S = 600
_BLOCKS = re.findall(r"```console\n(.*?)```", (ROOT / "docs" / "deploy.md").read_text(), re.DOTALL)
DOCUMENTED = {
    name: next([line[2:] for line in block.splitlines()] for block in _BLOCKS if word in block)
    for name, word in (("backup", "pg_dump"), ("restore", "pg_restore"))
}
"""The commands of docs/deploy.md."""


class Checks:
    def __init__(self, stack: Stack, report: Report, downloads: Path, hadolint: Path):
        self._stack, self._report, self._downloads, self._hadolint = stack, report, downloads, hadolint
        self._undisturbed: dict[str, str] = {}
        self._first: Job | None = None

    def all(self, data: Path, *, build: bool, cuda: bool, beside_alone: bool, grafana: bool) -> None:
        """Every step; the first that fails raises. `data`: where real images are, if anywhere."""
        step = self._report.step
        with step("the Dockerfiles and the compose file, under every profile, are in order") as seen:
            self.configuration(seen)
        with step("the images are built") as seen:
            if build:
                self._stack.compose("build", seconds=3600)
            self.images(seen)
        if cuda:
            with step("the worker's image for GPUs is built") as seen:
                self.cuda(seen)
        with step("the stack comes up, and everything in it is well") as seen:
            self._stack.up()
            self.start_up(seen)
        with step("no root, no capability, nothing to write to, one port, no secret in sight") as seen:
            self.hardened(seen)
        with self._stack.client() as client:
            if not beside_alone:
                self.disturbed(client, data)
            Beside(self._stack, self._report, self._downloads, grafana=grafana).all(client)
        with step("no secret in any log") as seen:
            self.silent(seen)

    def disturbed(self, client: Client, data: Path) -> None:
        """Jobs, and what may happen to them."""
        step = self._report.step
        with step("DREAM on digits over the published port: submitted, streamed, downloaded, verified") as seen:
            self.undisturbed(client, seen)
        with step("a dataset from files of the host") as seen:
            self.mounted(client, data, seen)
        with step("the worker is killed in mid-job (SIGKILL)") as seen:
            self.killed(client, seen)
        with step("the worker is stopped in mid-job (SIGTERM)") as seen:
            self.stopped(client, seen)
        with step("the broker is away") as seen:
            self.without_broker(client, seen)
        with step("the database is away") as seen:
            self.without_database(client, seen)
        with step(f"two workers on one database, and {MANY} short jobs") as seen:
            self.shared(client, seen)
        with step("down, and up again") as seen:
            self.down_and_up(client, seen)
        with step("upgrade from the first schema, with a job done and a job waiting") as seen:
            self.upgraded(client, seen)
        with step("backup, and restore into empty volumes") as seen:
            self.restored(client, seen)

    # ------------------------------------------------------------------ the files and the images

    def configuration(self, seen: Step) -> None:
        files = sorted((ROOT / "docker").glob("*.Dockerfile"))
        run([str(self._hadolint), *map(str, files)], {})
        seen.saw(f"hadolint: {', '.join(file.name for file in files)}")
        profiles = self._stack.compose("config", "--profiles").split()
        for profile in profiles:
            self._stack.compose("--profile", profile, "config", "--quiet")
        self._stack.compose("--profile", "gpu", "config", "--quiet", files=("docker/compose.gpus.yml",))
        seen.saw(f"docker compose config: profiles {', '.join(sorted(profiles))}, and compose.gpus.yml")
        kept = dict(self._stack.settings)
        for name in SECRETS:
            self._stack.configure(**{name: ""})
            with pytest.raises(Failed, match=name):
                self._stack.compose("config", "--quiet")
            self._stack.configure(**kept)
        seen.saw("without any one of the four secrets it refuses, and names it")

    def images(self, seen: Step) -> None:
        pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
        normal = {name.lower().replace("_", "-"): version for name, version in pins.items()}
        for service in ("api", "worker"):
            image = self._stack.image(service)
            (facts,) = json.loads(self._stack.docker("image", "inspect", image))
            assert facts["Config"]["User"] == "10001:10001"
            history = self._stack.docker("history", "--no-trunc", "--format", "{{.CreatedBy}} {{.Size}}", image)
            hidden = [self._stack.settings[name] for name in SECRETS] + ["PIP_INDEX_URL"]
            assert not any(word in history + json.dumps(facts) for word in hidden)
            program = (
                "import json; from importlib.metadata import distributions as d; "
                "print(json.dumps({x.name.lower().replace('_', '-'): x.version for x in d()}))"
            )
            there = json.loads(self._stack.docker("run", "--rm", "--network", "none", image, "python", "-c", program))
            pinned = {name for name in there if name in normal} - {"torch", "torchvision"}
            assert {name: there[name] for name in pinned} == {name: normal[name] for name in pinned}
            assert ("torch" in there) is (service == "worker")
            size = f"{facts['Size'] / 1e6:,.0f} MB, of which {self._ours(facts) / 1e6:,.0f} beyond the base image"
            torch = f", torch {there['torch']}" if "torch" in there else ", no torch"
            seen.saw(f"{image}: {size}{torch}; {len(pinned)} packages as pinned")

    def cuda(self, seen: Step) -> None:
        """As far as can be seen without a GPU."""
        self._stack.compose("--profile", "gpu", "build", "worker-gpu", seconds=3600)
        image = self._stack.image("worker-gpu")
        (facts,) = json.loads(self._stack.docker("image", "inspect", image))
        program = (
            "import torch, cuml, cupy; "
            "print('torch', torch.__version__, 'cuML', cuml.__version__, 'GPU', cupy.cuda.is_available())"
        )
        home = "/var/lib/dream:uid=10001,gid=10001"  # the volume: what is compiled is kept there
        confined = ("--rm", "--network", "none", "--read-only", "--cap-drop", "ALL", "--tmpfs", "/tmp", "--tmpfs", home)
        seen.saw(f"{image}: {facts['Size'] / 1e6:,.0f} MB, {self._ours(facts) / 1e6:,.0f} beyond the base image")
        seen.saw(self._stack.docker("run", *confined, image, "python", "-c", program).splitlines()[-1])
        seen.saw(self._stack.docker("run", *confined, image, "g++", "--version").splitlines()[0])

    def _ours(self, facts: dict[str, Any]) -> int:
        base = self._stack.docker("image", "inspect", "--format", "{{.Size}}", self._stack.base)
        return facts["Size"] - int(base)

    # ------------------------------------------------------------------ the stack

    def start_up(self, seen: Step) -> None:
        for service in SERVICES:
            assert self._stack.inspect(service)["State"]["Health"]["Status"] == "healthy", service
        assert self._stack.inspect("migrate")["State"]["ExitCode"] == 0
        seen.saw(f"{', '.join(SERVICES)}: healthy; migrate: done")
        self._stack.compose("stop", "api")
        seen.saw(f"the API answers {self._stack.started('api'):.1f} s after its container is started")

    def hardened(self, seen: Step) -> None:
        for service in SERVICES:
            facts = self._stack.inspect(service)
            host = facts["HostConfig"]
            assert host["ReadonlyRootfs"]
            assert host["CapDrop"] == ["ALL"]
            assert "no-new-privileges:true" in host["SecurityOpt"]
            assert host["Init"]
            assert host["Memory"] > 0
            assert not host["Privileged"]
            assert self._stack.shell(service, "id -u") not in ("0", "")
            for kind in ("CapEff", "CapPrm", "CapBnd"):
                assert NO_CAPABILITY in self._stack.shell(service, f"grep {kind} /proc/1/status")
            said = self._stack.shell(service, "touch /probe /usr/bin/probe 2>&1 || true")
            assert said.count("Read-only file system") == 2, said
            bound = host["PortBindings"] or {}
            published = [binding["HostIp"] for bindings in bound.values() for binding in bindings]
            assert published == (["127.0.0.1"] if service == "api" else []), service
        for service in ("api", "worker"):
            assert self._stack.shell(service, "id -u") == "10001"
        assert "DREAM_ADMIN_KEY" not in self._stack.shell("worker", "env")
        assert self._stack.settings["REDIS_PASSWORD"] not in self._stack.docker("top", self._stack.container("broker"))
        assert httpx2.get(f"{self._stack.url}/v1/jobs", trust_env=False).status_code == httpx2.codes.UNAUTHORIZED
        seen.saw(f"{', '.join(SERVICES)}: by docker inspect, by /proc, and by trying to write")
        seen.saw("only the API is published, on 127.0.0.1; without a key it answers 401")

    # ------------------------------------------------------------------ jobs

    def _submit(self, client: Client, name: str) -> Job:
        return client.jobs.create("digits", "dream", 1, name=name, **JOB)

    def _downloaded(self, client: Client, job: Job, place: str) -> dict[str, str]:
        """The digests of what must be the same in every run, after a look at every file."""
        download = client.jobs.download(job.id, self._downloads / place)
        for entry in download.manifest["files"]:
            content = (download.directory / entry["path"]).read_bytes()
            assert hashlib.sha256(content).hexdigest() == entry["sha256"], entry["path"]
        return digests_in(download.directory)

    def _ends_the_same(self, client: Client, job: Job, seen: Step, attempts: tuple[int, ...]) -> None:
        done = client.jobs.wait(job.id, WAIT_S)
        assert done.status == "succeeded", done.raw
        assert done.attempt in attempts, done.attempt
        assert self._downloaded(client, done, done.id) == self._undisturbed
        seen.saw(f"{done.name}: succeeded at attempt {done.attempt}, with the bytes of the undisturbed run")

    def undisturbed(self, client: Client, seen: Step) -> None:
        job = self._submit(client, "undisturbed")
        kinds: dict[str, int] = {}
        for event in client.jobs.stream(job.id):
            kinds[event.type] = kinds.get(event.type, 0) + 1
        done = client.jobs.get(job.id)
        assert done.status == "succeeded", done.raw
        assert {"state", "metric", "checkpoint", "evaluation"} <= kinds.keys(), kinds
        self._first, self._undisturbed = done, self._downloaded(client, done, "undisturbed")
        assert len(self._undisturbed) >= 4, self._undisturbed
        seen.saw(f"streamed: {', '.join(f'{count} {kind}' for kind, count in sorted(kinds.items()))}")
        seen.saw(f"downloaded: {', '.join(self._undisturbed)}; every SHA-256 is the manifest's")

    def mounted(self, client: Client, data: Path, seen: Step) -> None:
        there = [name for name in OTHERS if find(name, data).available]
        if not there:
            seen.saw(f"left out: DREAM_DATA_DIR has neither {' nor '.join(OTHERS)}")
            return
        params = SHORT | {"outer_iterations": 1, "inner_iterations": 5}
        job = client.jobs.create(there[0], "dream", 1, params=params, evaluation=JUDGED)
        done = client.jobs.wait(job.id, WAIT_S)
        assert done.status == "succeeded", done.raw
        self._downloaded(client, done, there[0])
        seen.saw(f"DREAM on {there[0]}: succeeded, downloaded, verified")

    def killed(self, client: Client, seen: Step) -> None:
        job = checkpointed(client, self._submit(client, "killed"))
        self._stack.compose("kill", "--signal", "SIGKILL", "worker")
        at = client.jobs.checkpoints(job.id)[-1]
        seen.saw(f"killed after the checkpoint of step {at['step']} of {at['total']}")
        self._stack.compose("start", "worker")
        self._ends_the_same(client, job, seen, attempts=(2,))

    def stopped(self, client: Client, seen: Step) -> None:
        job = checkpointed(client, self._submit(client, "stopped"))
        before = client.jobs.get(job.id).raw["retries_left"]
        began = time.monotonic()
        self._stack.compose("stop", "worker")
        seconds = time.monotonic() - began
        state = self._stack.inspect("worker")["State"]
        waiting = client.jobs.get(job.id)
        assert (state["ExitCode"], waiting.status, waiting.raw["retries_left"]) == (0, "queued", before), waiting.raw
        seen.saw(f"the worker left after {seconds:.1f} s with 0, and its job is back in the queue, uncharged")
        self._stack.compose("start", "worker")
        self._ends_the_same(client, job, seen, attempts=(2,))

    def without_broker(self, client: Client, seen: Step) -> None:
        running = checkpointed(client, self._submit(client, "ran while the broker was away"))
        self._stack.compose("stop", "broker")
        began = time.monotonic()
        waiting = self._submit(client, "submitted while the broker was away")
        seen.saw(f"a job is accepted all the same, in {time.monotonic() - began:.1f} s")
        self._ends_the_same(client, running, seen, attempts=(1,))
        self._stack.compose("start", "broker")
        self._ends_the_same(client, waiting, seen, attempts=(1,))

    def without_database(self, client: Client, seen: Step) -> None:
        running = checkpointed(client, self._submit(client, "ran while the database was away"))
        waiting = self._submit(client, "waited while the database was away")
        self._stack.compose("stop", "db")
        answer = httpx2.get(
            f"{self._stack.url}/v1/jobs/{running.id}",
            headers={"Authorization": f"Bearer {self._stack.settings['DREAM_ADMIN_KEY']}"},
            trust_env=False,
            timeout=30,
        )
        assert answer.status_code == httpx2.codes.SERVICE_UNAVAILABLE, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        assert self._stack.answers()
        seen.saw(f"the API lives and answers 503 {answer.json()['code']}")
        self._stack.compose("start", "db")
        self._ends_the_same(client, running, seen, attempts=(1, 2))
        self._ends_the_same(client, waiting, seen, attempts=(1,))

    def shared(self, client: Client, seen: Step) -> None:
        self._stack.scale("worker", 2)
        began = time.monotonic()
        jobs = [client.jobs.create("digits", **SHORTEST) for _ in range(MANY)]
        done = [client.jobs.wait(job.id, WAIT_S) for job in jobs]
        seconds = time.monotonic() - began
        begun: Counter[str] = Counter()
        for job in done:
            assert (job.status, job.attempt) == ("succeeded", 1), job.raw
            (start,) = [
                event.data
                for event in client.jobs.events(job.id)
                if event.type == "state" and event.data["to"] == "running"
            ]
            begun[start["worker"]] += 1
        assert len(begun) == 2, begun
        assert len({json.dumps(self._downloaded(client, job, job.id), sort_keys=True) for job in done}) == 1
        shares = " and ".join(str(share) for share in begun.values())
        seen.saw(f"each was done exactly once, {shares} by each worker, in {seconds:.0f} s, with the same bytes")
        self._stack.scale("worker", 1)

    def down_and_up(self, client: Client, seen: Step) -> None:
        before = [(job.id, job.status, job.version) for job in client.jobs.list()]
        self._stack.down()
        assert not self._stack.compose("ps", "--all", "--quiet")
        self._stack.up()
        assert [(job.id, job.status, job.version) for job in client.jobs.list()] == before
        assert self._first
        assert self._downloaded(client, self._first, "after down and up") == self._undisturbed
        seen.saw(f"{len(before)} jobs as they were, and their files with them")

    def upgraded(self, client: Client, seen: Step) -> None:
        self._stack.compose("stop", "worker")
        job = self._submit(client, "queued before the upgrade")
        self._stack.compose("stop", "api")
        self._stack.compose("run", "--rm", "--no-deps", "migrate", "dream", "migrate", "0001")
        assert self._revision() == "0001"
        rows = self._stack.sql("SELECT count(*) FROM jobs")
        self._stack.compose("run", "--rm", "--no-deps", "migrate")
        newest = self._revision()
        self._stack.up()
        assert newest > "0001"
        assert self._stack.sql("SELECT count(*) FROM jobs") == rows
        seen.saw(f"from 0001 to {newest} with {rows} jobs")
        assert self._first
        assert self._downloaded(client, self._first, "after the upgrade") == self._undisturbed
        seen.saw(f"{self._first.name}: its files are still there")
        self._ends_the_same(client, job, seen, attempts=(1,))

    def _revision(self) -> str:
        return self._stack.sql("SELECT version_num FROM alembic_version")

    def restored(self, client: Client, seen: Step) -> None:
        before = [(job.id, job.status, job.version) for job in client.jobs.list()]
        with pytest.raises(Failed, match=r"do as docs/deploy\.md says"):
            self._stack.compose("exec", "-T", "api", "dream", "backup", "/tmp/backup")
        for line in DOCUMENTED["backup"]:
            self._stack.typed(line)
        self._stack.down("--volumes")
        for line in DOCUMENTED["restore"]:
            self._stack.typed(line)
        self._stack.up()
        assert [(job.id, job.status, job.version) for job in client.jobs.list()] == before
        assert self._first
        assert self._downloaded(client, self._first, "after the restore") == self._undisturbed
        self._ends_the_same(client, self._submit(client, "submitted after the restore"), seen, attempts=(1,))
        seen.saw(f"by the commands of docs/deploy.md: {len(before)} jobs and their files as they were")

    def silent(self, seen: Step) -> None:
        logs = self._stack.logs()
        found = [name for name in (*SECRETS, "S3_SECRET_ACCESS_KEY") if self._stack.settings[name] in logs]
        assert not found, found
        seen.saw(f"{len(logs.splitlines()):,} lines looked through")
