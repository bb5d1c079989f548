"""The jobs of a soak, and what each makes where nothing disturbs it."""

import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dream_core.recipes import make_recipe
from tests.fixtures.cluster import TINY, digests_in, draw_pictures
from tests.worker import runners

_SMALL: dict[str, Any] = {"width": 8, "image_size": 8}
_MATCHING = _SMALL | {"outer_iterations": 3, "inner_iterations": 15, "batch_real": 16}
METHODS: dict[str, dict[str, Any]] = {
    "dream": _MATCHING | {"n_data": 32},
    "dm": _SMALL | {"outer_iterations": 60, "batch_real": 16},
    "mtt": _SMALL | {"experts": 2, "max_start_epoch": 2, "expert_epochs": 2, "student_steps": 5, "iterations": 30},
    "random": _SMALL,
}
SEEDS = (0, 1)
EVALUATION: dict[str, Any] = {"epochs": 20, "repeats": 2, "tests": 1, "baselines": False, "ceiling": "none", "width": 8}


@dataclass(frozen=True, slots=True)
class Work:
    """What a job is to do: a few seconds, most of them imports."""

    method: str
    seed: int

    def spec(self) -> dict[str, Any]:
        """As it is submitted."""
        about = {"dataset": f"folder:{TINY}", "method": self.method, "ipc": 1, "seed": self.seed}
        return about | {"params": METHODS[self.method], "evaluation": EVALUATION}


class Undisturbed:
    """The digests of each work's files, from runs without any service: one each, begun at once, in this order."""

    def __init__(self, works: Iterable[Work]) -> None:
        self._pool = ThreadPoolExecutor(1, "undisturbed")
        self._runs = {work: self._pool.submit(_run, work) for work in dict.fromkeys(works)}

    def digests(self, work: Work) -> dict[str, str]:
        """SHA-256 by file name."""
        return self._runs[work].result()


def _run(work: Work) -> dict[str, str]:
    spec = work.spec()
    recipe = make_recipe(*(spec[name] for name in ("method", "dataset", "ipc", "seed", "params", "evaluation")))
    with tempfile.TemporaryDirectory() as directory:
        draw_pictures(Path(directory) / "data_dir" / TINY)
        run = runners.job(Path(directory), recipe=recipe.model_dump())
        if code := run.run():
            raise RuntimeError(f"an undisturbed run of {work} ends with exit code {code}")
        return digests_in(run.output)
