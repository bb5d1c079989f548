"""A tiny dataset and recipes on it, for tests of whole runs that take a second."""

from typing import Any

import torch
from torch import Tensor

from dream_core.datasets import Dataset
from dream_core.datasets.store import fingerprint, from_counts
from dream_core.objectives import Matching
from dream_core.recipes import EvaluationRecipe, MatchingRecipe, Recipe, make_recipe

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


def matching_loss(objective: Matching, real: Tensor, synthetic: Tensor, label: int) -> Tensor:
    """The loss of two batches of a class, with a graph back to the synthetic one."""
    labels = torch.tensor(label)
    return objective.loss(objective.target(real, labels), synthetic, labels)


OTHERS: dict[str, dict[str, Any]] = {
    "dc": {"outer_iterations": 2, "inner_iterations": 3, "epochs_net": 2, "batch_real": 5, "batch_net": 4},
    "dsa": {"outer_iterations": 2, "inner_iterations": 3, "epochs_net": 2, "batch_real": 5, "batch_net": 4},
    "dm": {"outer_iterations": 6, "batch_real": 5},
    "dream+": {"outer_iterations": 2, "inner_iterations": 3, "interval": 2, "batch_real": 5, "n_data": 12, "factor": 1,
               "lr_img": 0.05},
    "dd": {"iterations": 6, "batch_real": 16, "decay_every": 2, "networks": 2},
    "mtt": {"experts": 2, "max_start_epoch": 2, "expert_epochs": 1, "student_steps": 3, "iterations": 3,
            "batch_syn": 4, "batch_expert": 8, "lr_img": 1.0, "lr_lr": 1e-4, "zca": True},
    "sre2l": {"network": "convnet", "squeeze_epochs": 2, "iterations": 2, "label_epochs": 2, "batch_syn": 2},
    "random": {}, "herding": {"pretrain_epochs": 2}, "k-center": {"pretrain_epochs": 2}, "kmeans": {},
}  # fmt: skip
"""Values with which every method takes a second on the tiny dataset."""


def tiny_recipe_of(method: str, **changes: Any) -> Recipe:
    """A recipe of any method: the published one, made small."""
    if method in ("idc", "dream"):
        return tiny_recipe(method, **changes)
    params = {"image_size": 8, "depth": 1 if method == "sre2l" else 2, "width": 6} | OTHERS[method] | changes
    judged: dict[str, Any] = {"repeats": 1, "baselines": False, "ceiling": "none", "tests": 1, "width": 6}
    judged |= {"network": "convnet"} if method == "sre2l" else {}
    return make_recipe(method, "folder:tiny", 2, params.pop("seed", 3), params, judged)


def tiny_recipe(method: str = "dream", **changes: Any) -> MatchingRecipe:
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
    return MatchingRecipe.model_validate(values | of_method | changes)
