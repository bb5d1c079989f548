"""`TrainingSet`: all that a network needs to be trained on a set as the set was meant to be used."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from dream_core.images import Transform


@dataclass(frozen=True)
class Replay:
    """A fixed sequence of gradient steps (DD).

    `order` gives for every step the indices of its images, `rates` float [K] its step size. Networks are drawn by
    `initialization`, always the same one where `init_seed` is given.
    """

    order: list[Tensor]
    rates: Tensor
    initialization: str = "default"
    init_seed: int | None = None


@dataclass(frozen=True)
class SoftLabels:
    """What a teacher said of many views of every image (SRe2L).

    `seeds` int64 [E, M] gives the views, which `loader.views` makes again from `view`; `logits` float16 [E, M, C].
    """

    seeds: Tensor
    logits: Tensor
    view: dict[str, Any]


@dataclass(frozen=True)
class TrainingSet:
    """Images uint8 or float in pixels [M, C, H, W], int64 labels [M], and how a network sees them.

    `transform` goes for real test images, too. `lr` is a learning rate that was distilled along with the images (MTT).
    """

    images: Tensor
    labels: Tensor
    transform: Transform
    lr: float | None = None
    replay: Replay | None = None
    soft: SoftLabels | None = None
