"""Runs that several processes share. They are forked from one that has imported torch: seconds saved."""

import multiprocessing
import os
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dream_core.datasets import load_dataset
from dream_core.distillation import Distillation
from dream_core.host import use_threads_for
from dream_core.ranks import RankLost, Ranks, joined
from dream_core.recipes import make_recipe

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["torch._dynamo", "sklearn.datasets", "tests.dream_core.ranked"])

TINY = {"outer_iterations": 2, "inner_iterations": 3, "width": 6, "batch_real": 8}
STEPS = 6
WAIT_S = 60
LOST = 9
"""What a rank ends with that has lost another."""

State = dict[str, Tensor]
Work = Callable[[Ranks], State]


def start(count: int, directory: Path, work: Work) -> list[BaseProcess]:
    """Have so many ranks do some work. What each returns is left in `rank-<number>`."""
    directory.mkdir(parents=True)
    processes = [_forks.Process(target=_run, args=(rank, count, directory, work), daemon=True) for rank in range(count)]
    for process in processes:
        process.start()
    return processes


def ends(processes: list[BaseProcess]) -> list[int | None]:
    """Their exit codes, once all have ended."""
    end = time.monotonic() + WAIT_S
    for process in processes:
        process.join(max(0.0, end - time.monotonic()))
    return [process.exitcode for process in processes]


def results(count: int, directory: Path, work: Work) -> list[State]:
    """What so many ranks return of some work."""
    assert ends(start(count, directory, work)) == [0] * count
    return [load_file(directory / f"rank-{rank}") for rank in range(count)]


def _run(rank: int, count: int, directory: Path, work: Work) -> None:
    use_threads_for(8)
    try:
        with joined(rank, count, directory / "meeting", torch.device("cpu")) as ranks:
            save_file(work(ranks), directory / f"rank-{rank}")
    except RankLost:
        os._exit(LOST)


class Distil:
    """Distils digits up to a step, from a state on; returns the state, and the losses on the way."""

    def __init__(self, method: str, params: dict[str, Any], until: int = STEPS, state: State | None = None):
        self.method, self.params, self.until, self.state = method, TINY | params, until, state

    def __call__(self, ranks: Ranks) -> State:
        recipe = make_recipe(self.method, "digits", 2, 3, self.params)
        dataset = load_dataset("digits", Path("nowhere"), recipe.image_size)
        distillation = Distillation(recipe, dataset, "cpu", self.state, ranks=ranks)
        losses = [distillation.step().loss for _ in range(distillation.step_number, self.until)]
        return distillation.state_dict() | {"losses": torch.tensor(losses, dtype=torch.float64)}


class Gather:
    """Gathers tensors of classes that differ in length: of class c, c % 3 rows that say so."""

    def __init__(self, classes: int):
        self.classes = classes

    def __call__(self, ranks: Ranks) -> State:
        mine = [torch.full((label % 3, 2), label) for label in ranks.own(self.classes)]
        found = ranks.gather(mine, self.classes)
        scalars = ranks.gather([torch.tensor(label / 7) for label in ranks.own(self.classes)], self.classes)
        return {str(label): tensor.clone() for label, tensor in enumerate(found)} | {"scalars": torch.stack(scalars)}


class Diverge:
    """Pixels of rank 1's class become infinite; tells who noticed, and at which step."""

    def __call__(self, ranks: Ranks) -> State:
        from dream_core.errors import Diverged

        recipe = make_recipe("dsa", "digits", 1, 3, TINY)
        distillation = Distillation(recipe, load_dataset("digits", Path("nowhere"), 8), "cpu", ranks=ranks)
        distillation.step()
        if ranks.rank == 1:
            distillation.synthetic.of_class(1).fill_(torch.inf)
        try:
            distillation.step()
        except Diverged:
            return {"noticed_after": torch.tensor(distillation.step_number)}
        return {}


class Dawdle:
    """Gathers until it is killed."""

    def __init__(self, directory: Path):
        self.directory = directory

    def __call__(self, ranks: Ranks) -> State:
        while True:
            ranks.gather([torch.zeros(1)], ranks.count)
            (self.directory / f"begun-{ranks.rank}").touch()
            time.sleep(0.01)
