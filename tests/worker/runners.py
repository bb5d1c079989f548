"""Jobs for `worker.runner`, and processes that run it. They are forked from one that has imported it: seconds saved."""

import contextlib
import json
import multiprocessing
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

from dream_core.recipes import make_recipe
from worker.stopping import Stop, tell

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["worker.runner", "sklearn.datasets", "tests.worker.runners"])

TINY = {"outer_iterations": 1, "inner_iterations": 3, "width": 8, "batch_real": 16, "n_data": 32}
JUDGED = {"epochs": 2, "repeats": 1, "tests": 1, "baselines": False, "ceiling": "none"}
WAIT_S = 60


@dataclass(frozen=True)
class Work:
    """A working directory of the runner, and what the runner leaves there."""

    directory: Path

    @property
    def output(self) -> Path:
        return self.directory / "output"

    @property
    def checkpoints(self) -> Path:
        return self.directory / "checkpoints"

    @property
    def result(self) -> dict:
        return json.loads((self.directory / "result.json").read_text())

    @property
    def error(self) -> dict:
        return json.loads((self.directory / "error.json").read_text())

    def events(self, kind: str) -> list[dict]:
        """The data of the events of a kind, of all attempts so far."""
        path = self.directory / "events.jsonl"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        events = [json.loads(line) for line in lines if line.endswith("\n")]
        return [event["data"] for event in events if event["type"] == kind]

    def files(self, *names: str) -> list[bytes]:
        return [(self.output / name).read_bytes() for name in names]

    def run(self) -> int:
        """Run it to its end; return the exit code."""
        return self.ends(self.start())

    def start(self) -> BaseProcess:
        (self.directory / "stop").unlink(missing_ok=True)  # every attempt has a directory of its own
        process = _forks.Process(target=_run, args=(str(self.directory),), daemon=True)
        process.start()
        return process

    def ends(self, process: BaseProcess) -> int:
        process.join(WAIT_S)
        assert process.exitcode is not None, "the runner does not end"
        return process.exitcode

    def interrupt(self, number: signal.Signals, kind: str, count: int = 1, why: Stop | None = None) -> int:
        """Start it, send it a signal once it has told so many events of a kind, and return the exit code."""
        return self.interrupt_when(number, lambda: len(self.events(kind)) >= count, f"{count} {kind}", why)

    def interrupt_when(
        self, number: signal.Signals, come: Callable[[], bool], moment: str, why: Stop | None = None
    ) -> int:
        """Start it, send it a signal once the moment has come, and return the exit code."""
        process = self.start()
        end = time.monotonic() + WAIT_S
        while not come():
            assert process.is_alive(), f"ended with {process.exitcode} before {moment}"
            assert time.monotonic() < end, f"no {moment}"
            time.sleep(0.001)
        if why:
            tell(self.directory, why)
        with contextlib.suppress(ProcessLookupError):  # the moment was its last
            os.kill(process.pid, number)
        return self.ends(process)


def job(directory: Path, dataset="digits", method="dream", ipc=1, params={}, evaluation={}, **fields) -> Work:  # noqa: B006
    """A job that takes a second, unless it is told otherwise."""
    directory.mkdir(parents=True, exist_ok=True)
    tiny, little = (TINY, JUDGED) if method == "dream" else ({}, {})
    recipe = make_recipe(method, dataset, ipc, 0, tiny | params, little | evaluation)
    where = {name: str(directory / name) for name in ("data_dir", "checkpoints", "output")}
    told = {"job_id": "job_0", "recipe": recipe.model_dump(), "device": "cpu"} | where | fields
    (directory / "job.json").write_text(json.dumps(told))
    return Work(directory)


def _run(directory: str) -> None:
    from worker import runner

    resource.setrlimit(resource.RLIMIT_AS, (64 * 2**30,) * 2)  # so that too much is refused, whatever the machine has
    with (Path(directory) / "runner.log").open("a") as log:
        os.dup2(log.fileno(), 2)
        sys.exit(runner.main(Path(directory)))
