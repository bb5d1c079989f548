"""The methods: one file per family, each a short loop that reads like its papers' algorithm."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from dream_core.computing import Computing
from dream_core.subject import TrainingSet
from dream_core.synthetic import SyntheticSet


@dataclass(frozen=True)
class Progress:
    """What one step did: its number from 1, the loss, where its seconds went, and what it was part of.

    `phase` is `pretraining` (experts, a teacher), `distilling` or `relabelling`.
    """

    step: int
    steps: int
    loss: float
    seconds: dict[str, float]
    phase: str = "distilling"


class Method(Protocol):
    """A run of one method, a step at a time. The same recipe and data give the same bytes, resumed or not.

    A step that raises Diverged has left images and networks as they were before it.
    """

    synthetic: SyntheticSet
    step_number: int
    computing: Computing

    def step(self) -> Progress:
        """Do one step. Raises Diverged where the loss is no longer finite."""
        ...

    def training_set(self, images: Tensor | None = None, labels: Tensor | None = None) -> TrainingSet:
        """What networks are trained on when the result is judged; or the same made of other images (uint8 or float in
        [0, 1], sorted by class), to be judged alike."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """All that the next step depends on, as copies. Random streams are keyed by the step and need no saving."""
        ...

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from `state_dict()` of a run with the same recipe and dataset."""
        ...
