"""A tiny dataset and recipes on it, for tests of whole runs that take a second."""

from typing import Any

import torch

from dream_core.datasets import Dataset
from dream_core.datasets.store import fingerprint, from_counts
from dream_core.recipes.schema import EvaluationRecipe, Recipe

# exact in float32 and float64 alike, so that comparisons at 1e-8 are of the algorithm and not of the constants
MEAN, STD = (0.5, 0.375, 0.4375), (0.25, 0.3125, 0.1875)


def tiny_dataset(channels: int = 3, size: int = 8, counts: tuple[int, ...] = (14, 11, 9), seed: int = 0) -> Dataset:
    """Classes that differ in their mean image, imbalanced, with noise."""
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.rand(len(counts), channels, size, size, generator=generator)

    def split(numbers: tuple[int, ...]):
        mean = patterns.repeat_interleave(torch.tensor(numbers), 0)
        noise = torch.rand(mean.shape, generator=generator)
        return from_counts(((mean + noise) * 127.5).to(torch.uint8), list(numbers))

    train, test = split(counts), split((6,) * len(counts))
    names = tuple("abcdefgh"[: len(counts)])
    return Dataset("tiny", train, test, names, MEAN[:channels], STD[:channels], "none", fingerprint(train, test))


def tiny_recipe(method: str = "dream", **changes: Any) -> Recipe:
    evaluation = {"epochs": 4, "repeats": 1, "batch_size": 8, "baselines": False, "ceiling": "none"}
    of_method = {"init": "representative", "selection": "representative"}
    if method == "idc":
        of_method = {"init": "first", "selection": "random"}
    values = {
        "method": method,
        "dataset": "folder:tiny",
        "ipc": 2,
        "seed": 3,
        "image_size": 8,
        "depth": 2,
        "width": 6,
        "factor": 2,
        "interval": 2,
        "metric": "mse",
        "batch_real": 5,
        "lr_img": 0.05,
        "outer_iterations": 2,
        "inner_iterations": 3,
        "n_data": 12,
        "clustering": "torch",
        "evaluation": EvaluationRecipe.model_validate(evaluation | changes.pop("evaluation", {})),
    }
    return Recipe.model_validate(values | of_method | changes)
