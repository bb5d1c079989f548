"""`Distillation`: start, step, save, resume. The one door to every method.

distillation = Distillation(recipe, dataset, device="cuda")
for progress in distillation:
    ...                                 # report, checkpoint, stop: the caller decides
images, labels = distillation.synthetic.decoded()
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from dream_core.computing import Computing
from dream_core.datasets import Dataset
from dream_core.errors import DevicesMissing, DreamError
from dream_core.methods import Method, Progress
from dream_core.methods.coresets import Coreset
from dream_core.methods.matching import MatchingLoop
from dream_core.methods.recovery import Recovery
from dream_core.methods.trajectory import TrajectoryMatching
from dream_core.methods.unrolled import Unrolled
from dream_core.ranks import ALONE, Ranks
from dream_core.recipes import (
    CoresetRecipe,
    MatchingRecipe,
    Recipe,
    RecoveryRecipe,
    TrajectoryRecipe,
    UnrolledRecipe,
    check_divides,
    check_fits,
)
from dream_core.subject import TrainingSet
from dream_core.synthetic import SyntheticSet

_METHODS: dict[type[Recipe], Callable[..., Method]] = {
    MatchingRecipe: MatchingLoop,
    TrajectoryRecipe: TrajectoryMatching,
    UnrolledRecipe: Unrolled,
    RecoveryRecipe: Recovery,
    CoresetRecipe: Coreset,
}


def choose_device(device: str = "auto") -> torch.device:
    """The device of that name; `auto` is the first CUDA device where there is one, else the CPU.

    Raises DreamError for a device that is not here.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise DreamError(f"there is no device {device!r}; use auto, cpu, cuda or cuda:N") from None
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise DreamError(
            f"{device} is not here: PyTorch sees {torch.cuda.device_count()} CUDA devices; use auto or cpu"
        )
    return chosen


def choose_devices(device: str, count: int) -> list[torch.device]:
    """As many devices of that kind, one for each rank of a run: CUDA devices, or the CPU with at most a rank a core.

    Raises DevicesMissing where there are not as many here.
    """
    first = choose_device(device)
    if count == 1:
        return [first]
    if first.type == "cuda" and first.index is None:
        if count > torch.cuda.device_count():
            raise DevicesMissing(
                f"{count} GPUs are wanted, and PyTorch sees {torch.cuda.device_count()} here; ask for fewer"
            )
        return [torch.device("cuda", number) for number in range(count)]
    if first.type == "cpu":
        if count > (cores := os.cpu_count() or 1):
            raise DevicesMissing(
                f"{count} devices are wanted, and there is no GPU and {cores} cores here; ask for fewer"
            )
        return [first] * count
    raise DevicesMissing(f"{count} devices are wanted, and only {device} may be used here; let it be auto, cuda or cpu")


class Distillation:
    """A run of a recipe on a dataset that can be stepped through, saved after any step, and resumed.

    The same recipe and dataset give the same bytes on the same device, resumed or not.

    Args:
        recipe: what to do; see `make_recipe`.
        dataset: real images, see `load_dataset`.
        device: a torch device name or `auto`.
        state: continue from the `state_dict()` of a Distillation of the same recipe and dataset.
        synchronize: wait for a GPU when timing the parts of a step (for benchmarks; slows the run).
        cache: where networks trained beforehand (MTT's experts, SRe2L's teacher) are kept for later runs of the same
            settings; None keeps them for this run alone.
        ranks: the processes that share the run. Each makes a Distillation of the same recipe, dataset and state, does
            all of its steps, and has the whole result.

    Raises InvalidRecipe where the dataset as loaded is too small for the recipe, or ranks cannot share it.
    """

    def __init__(
        self,
        recipe: Recipe,
        dataset: Dataset,
        device: str | torch.device = "auto",
        state: dict[str, Tensor] | None = None,
        synchronize: bool = False,
        cache: Path | None = None,
        ranks: Ranks = ALONE,
    ):
        check_fits(recipe, min(dataset.train.counts))
        check_divides(recipe, ranks.count, len(dataset.class_names))
        self.recipe = recipe
        self.device = device if isinstance(device, torch.device) else choose_device(device)
        shared = {"ranks": ranks} if ranks.count > 1 else {}
        self._method = _METHODS[type(recipe)](recipe, dataset, self.device, state, synchronize, cache, **shared)

    @property
    def synthetic(self) -> SyntheticSet:
        """The synthetic set as it stands."""
        return self._method.synthetic

    @property
    def step_number(self) -> int:
        """Steps done."""
        return self._method.step_number

    @property
    def computing(self) -> Computing:
        """How networks are computed here."""
        return self._method.computing

    def step(self) -> Progress:
        """Do one step. Raises Diverged where the loss is no longer finite."""
        return self._method.step()

    def __iter__(self) -> Iterator[Progress]:
        """Do the steps that remain."""
        while self.step_number < self.recipe.steps:
            yield self.step()

    def training_set(self, images: Tensor | None = None, labels: Tensor | None = None) -> TrainingSet:
        """What networks are trained on when the synthetic set is judged; or the same made of other images.

        `images` uint8 or float in [0, 1], [N, C, H, W], with int64 `labels` [N], sorted by class: as a baseline they
        get what the method gives its own (whitening, soft labels, learned rates).
        """
        return self._method.training_set(images, labels)

    def state_dict(self) -> dict[str, Tensor]:
        """Everything the rest of the run depends on, as CPU tensors."""
        return self._method.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from a state that a Distillation of the same recipe and dataset saved."""
        self._method.load_state_dict(state)
