"""What a score is to be held against: random real images below, the whole training set above."""

from torch import Tensor

from dream_core.catalog import DATASETS
from dream_core.datasets import Dataset, LabeledImages, random_of_each
from dream_core.recipes import EvaluationRecipe

AFFORDABLE_PIXELS = 2e8
"""Pixels that may be trained on to measure a ceiling unasked: minutes on two cores, nothing on a GPU."""


def random_real(train: LabeledImages, ipc: int, seed: int, run: int) -> tuple[Tensor, Tensor]:
    """`ipc` random real images of each class, a fresh choice for every run: uint8 [M, C, H, W], int64 [M]."""
    chosen = random_of_each(train, ipc, seed, "random_real", run)
    return train.images[chosen], train.labels[chosen]


def ceiling_epochs(recipe: EvaluationRecipe, dataset: Dataset) -> int | None:
    """Epochs to measure the whole training set's accuracy with, or None where it is not to be measured.

    `auto` measures it where the protocol's own number of epochs is affordable.
    """
    epochs = recipe.ceiling_epochs or recipe.epochs
    affordable = len(dataset.train) * dataset.train.images[0, 0].numel() * epochs <= AFFORDABLE_PIXELS
    return epochs if recipe.ceiling == "measure" or (recipe.ceiling == "auto" and affordable) else None


def published_ceiling(recipe: EvaluationRecipe, dataset: Dataset) -> float | None:
    """The published accuracy in percent of the whole training set, where it is wanted and known."""
    facts = DATASETS.get(dataset.name)
    return facts.whole_accuracy if facts and recipe.ceiling in ("auto", "published") else None
