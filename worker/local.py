"""`dream run` and `dream evaluate`: the worker's own runner and judges, without a service."""

import fcntl
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from client import console
from client.errors import ClientError
from client.resources import Event, Job
from client.watching import View, line_printer, screen
from dream_core.errors import DreamError, InvalidRecipe
from dream_core.recipes import OF_THE_SPEC, Recipe, check_divides, make_recipe
from jobs.processes import Process, signal_group, spawn

_POLL_S = 0.1


@dataclass(frozen=True)
class Run:
    """A distillation into a directory. What is unfinished lies beside it, until the same command finishes it."""

    recipe: Recipe
    output: Path
    data_dir: Path
    download: bool
    device: str
    cache: Path
    gpus: int = 1

    @property
    def workdir(self) -> Path:
        """Events, checkpoints and staged files."""
        return self.output.parent / f".{self.output.name}.unfinished"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Make the working directory and keep other runs out of it. Raises ClientError where one is in it."""
        if self.output.exists() and (not self.output.is_dir() or any(self.output.iterdir())):
            raise ClientError(f"{self.output} exists and is not empty", advice="name another --output, or remove it")
        try:
            self.workdir.mkdir(parents=True, exist_ok=True)
            lock = (self.workdir / "lock").open("w")
        except OSError as error:
            raise ClientError(f"cannot write beside {self.output}: {error.strerror}") from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise ClientError(f"another `dream run` is writing to {self.output}") from None
            yield

    def prepare(self) -> None:
        """Clean the working directory, keeping the checkpoints of an interrupted run.

        Raises ClientError where the disk does not let it.
        """
        try:
            for name in ("events.jsonl", "error.json", "result.json"):
                (self.workdir / name).unlink(missing_ok=True)
            shutil.rmtree(self.workdir / "staged", ignore_errors=True)
            (self.workdir / "job.json").write_text(json.dumps(self._job()), encoding="utf-8")
        except OSError as error:
            raise ClientError(f"cannot write beside {self.output}: {error.strerror}") from error

    def _job(self) -> dict[str, Any]:
        where = {
            "cache": self.cache,
            "data_dir": self.data_dir,
            "checkpoints": self.workdir / "checkpoints",
            "output": self.workdir / "staged",
        }
        told = {"job_id": "local", "recipe": self.recipe.model_dump(), "download": self.download}
        told |= {"device": self.device, "gpus": self.gpus}
        return told | {name: str(path.absolute()) for name, path in where.items()}

    def publish(self) -> dict[str, Any]:
        """Move the finished files to their place in one rename; return the result's summary."""
        result = json.loads((self.workdir / "result.json").read_text(encoding="utf-8"))
        if self.output.exists():
            self.output.rmdir()
        (self.workdir / "staged").rename(self.output)
        shutil.rmtree(self.workdir, ignore_errors=True)
        return {"output": str(self.output.absolute()), **result}


def recipe_for(
    method: str, dataset: str, ipc: int, seed: int, params: dict[str, Any], evaluation: dict[str, Any], gpus: int = 1
) -> Recipe:
    """The recipe, or a ClientError that names each field that is wrong."""
    try:
        recipe = make_recipe(method, dataset, ipc, seed, params, evaluation)
        check_divides(recipe, gpus, classes=None)
        return recipe
    except InvalidRecipe as error:
        told = "".join(f"\n  {field}: {message}" for field, message in error.problems)
        raise ClientError(f"the run cannot start{told}") from None


def run(job: Run, as_json: bool) -> int:
    """Do it, showing how it goes; return the exit code."""
    with job.alone():
        return _run(job, as_json)


def _run(job: Run, as_json: bool) -> int:
    job.prepare()
    with (job.workdir / "runner.log").open("wb") as output:
        command = [sys.executable, "-m", "worker.runner", str(job.workdir)]
        child = spawn(command, signal.SIGTERM, stdout=output, stderr=subprocess.STDOUT)
    try:
        follow(job, child, as_json)
    except KeyboardInterrupt:
        signal_group(child, signal.SIGTERM)
        child.wait()
        console.note("\nStopped. The same command goes on from here.")
        return console.EXIT_DETACHED
    if child.returncode != 0:
        _fail(job, child.returncode)
    result = job.publish()
    if as_json:
        console.print_json(result)
    else:
        console.out.print(shown(job.recipe, result))
        console.say(f"In {job.output}: train on it with load.py, look at gallery.png")
    return 0


def follow(job: Run, child: Process, as_json: bool) -> None:
    """Show the runner's events until it ends."""
    events = tail(job.workdir / "events.jsonl", lambda: child.poll() is not None)
    if as_json:
        for event in events:
            console.print_json(event.raw)
    elif console.fancy():
        _draw(job.recipe, events)
    else:
        show = line_printer()
        for event in events:
            show(event)


def _draw(recipe: Recipe, events: Iterator[Event]) -> None:
    from rich.live import Live
    from rich.spinner import Spinner

    view, spinner = View("running"), Spinner("dots", style="cyan")
    job = as_job(recipe)
    with Live(screen(job, view, spinner), console=console.out, refresh_per_second=8, transient=True) as live:
        for event in events:
            view = view.after(event)
            live.update(screen(job, view, spinner))


def tail(path: Path, ended: Callable[[], bool]) -> Iterator[Event]:
    """The events of a file as they are written, until `ended` and all are read."""
    offset = number = 0
    while True:
        last = ended()
        if path.exists():
            with path.open("rb") as file:
                file.seek(offset)
                piece = file.read()
            piece = piece[: piece.rfind(b"\n") + 1]
            offset += len(piece)
            for number, line in enumerate(piece.splitlines(), start=number + 1):  # noqa: B020
                yield Event.from_json({"seq": number} | json.loads(line))
        if last:
            return
        time.sleep(_POLL_S)


def _fail(job: Run, code: int) -> None:
    path = job.workdir / "error.json"
    if not path.exists():
        words = (job.workdir / "runner.log").read_text(encoding="utf-8", errors="replace").strip()
        raise ClientError(
            f"the runner ended with code {code}", advice=f"the end of {job.workdir}/runner.log: {words[-500:]}"
        )
    error = json.loads(path.read_text(encoding="utf-8"))
    if error["class"] == "user_error" and not (job.workdir / "checkpoints").exists():  # nothing that could be resumed
        shutil.rmtree(job.workdir, ignore_errors=True)
    raise ClientError(error["message"])


def as_job(recipe: Recipe, result: dict[str, Any] | None = None) -> Job:
    """A run as the client's displays know it."""
    spec = recipe.model_dump(include={"method", "dataset", "ipc", "seed"})
    return Job.from_json({"id": "local", "status": "running", "spec": spec, "result_summary": result})


def shown(recipe: Recipe, result: dict[str, Any]) -> Any:
    """The table of accuracies."""
    from client.tables import results

    return results(as_job(recipe, result))


def evaluate(directory: Path, data_dir: Path, overrides: dict[str, Any], device: str) -> dict[str, Any]:
    """Measure a downloaded result again on its own dataset; `overrides` are fields of the evaluation.

    Raises ClientError where the directory holds no result, or its dataset is missing or another.
    """
    recipe_json, manifest, training = _read(directory)
    from dream_core import evaluation as judging
    from dream_core.datasets import load_dataset
    from dream_core.distillation import choose_device
    from dream_core.host import use_threads_for

    given = {name: recipe_json[name] for name in ("method", "dataset", "ipc", "seed")}
    params = {name: value for name, value in recipe_json.items() if name not in OF_THE_SPEC}
    recipe = recipe_for(**given, params=params, evaluation=recipe_json["evaluation"] | overrides)
    try:
        place = choose_device(device)
        dataset = load_dataset(recipe.dataset, data_dir, recipe.image_size)
    except DreamError as error:
        raise ClientError(str(error)) from error
    if dataset.fingerprint != manifest["dataset"]["fingerprint"]:
        console.note(f"The images of {recipe.dataset} here are not those that the set was made from.")
    use_threads_for(recipe.image_size)
    protocol, runs = recipe.evaluation, []
    for run in range(protocol.repeats):
        epochs = judging.train_and_test(training, dataset, protocol, recipe.seed, ("synthetic", run), place)
        looks = [epoch.accuracy for epoch in epochs if epoch.accuracy is not None]
        runs.append(judging.NetworkScore(looks[-1], max(looks)))
    digest = judging.protocol_hash(protocol, dataset.fingerprint, recipe.image_size)
    return {"output": str(directory), "accuracy": asdict(judging.summarize(runs)), "protocol_hash": digest,
            "epochs": protocol.epochs}  # fmt: skip


def _read(directory: Path) -> tuple[dict[str, Any], dict[str, Any], Any]:
    """The recipe, the manifest, and what networks are trained on, of a downloaded result."""
    try:
        recipe, manifest = (
            json.loads((directory / name).read_text(encoding="utf-8")) for name in ("recipe.json", "manifest.json")
        )
        from dream_core.formats import read_training_set  # takes seconds, for which a wrong path need not wait

        return recipe, manifest, read_training_set(directory)
    except (OSError, ValueError, KeyError, RuntimeError) as error:  # the last is PyTorch's, of too few bytes
        raise ClientError(
            f"{directory} holds no downloaded result: {error}", advice="dream download JOB -o DIR"
        ) from error
