"""Train one fresh network on a set of images and test it: the protocol that a score stands for."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import mean, stdev

import torch
from torch import Tensor, nn

from dream_core import networks
from dream_core.datasets import Dataset, LabeledImages
from dream_core.images import Normalize, to_unit
from dream_core.randomness import Shuffle, stream
from dream_core.recipes import EvaluationRecipe, convnet_depth
from dream_core.training import sgd, training_step

_TEST_BATCH = 256


@dataclass(frozen=True)
class Epoch:
    """A pass over the training images: its number from 1, and the test accuracy in percent where it was taken."""

    number: int
    epochs: int
    accuracy: float | None


@dataclass(frozen=True)
class NetworkScore:
    """Top-1 test accuracy in percent of one network: after the last epoch, and the best of those looked at."""

    last: float
    best: float


@dataclass(frozen=True)
class Score:
    """Accuracy in percent over `n` networks. `mean` and `std` are of the last epochs, `best_mean` of the best looks.

    The best is chosen on the test set, as the papers do; it flatters, and is marked for what it is. `std` is the
    sample deviation, 0 for a single network.
    """

    mean: float
    std: float
    n: int
    best_mean: float
    per_run: tuple[NetworkScore, ...]


def summarize(runs: list[NetworkScore]) -> Score:
    """The score of several networks trained on the same kind of set."""
    last = [run.last for run in runs]
    spread = stdev(last) if len(last) > 1 else 0.0
    return Score(mean(last), spread, len(runs), mean(run.best for run in runs), tuple(runs))


def protocol_hash(recipe: EvaluationRecipe, fingerprint: str, size: int) -> str:
    """Twelve hexadecimal digits that two scores share only if they were measured alike (the number of runs apart).

    `fingerprint` is the dataset's, `size` its images' side in pixels.
    """
    protocol = recipe.model_dump(exclude={"repeats", "baselines", "ceiling", "ceiling_epochs"})
    protocol |= {"dataset": fingerprint, "depth": convnet_depth(size)}
    return hashlib.sha256(json.dumps(protocol, sort_keys=True).encode()).hexdigest()[:12]


def train_and_test(
    images: Tensor,
    labels: Tensor,
    dataset: Dataset,
    recipe: EvaluationRecipe,
    seed: int,
    key: tuple[str | int, ...],
    device: torch.device,
    epochs: int | None = None,
) -> Iterator[Epoch]:
    """Train a fresh network on images (uint8, or float in [0, 1]: [N, C, H, W]) and labels (int64 [N]).

    Yields after every epoch, with the test accuracy after each `recipe.tests`-th part of them and after the last.
    SGD; the learning rate falls to a fifth at 2/3 and at 5/6 of the epochs. `key` names the random streams, so that
    runs with different keys are independent; `epochs` replaces the recipe's.
    """
    epochs = epochs or recipe.epochs
    size = images.shape[-1]
    normalize = Normalize(dataset.mean, dataset.std)
    network = networks.evaluation_network(
        images.shape[1], len(dataset.class_names), size, stream(seed, "network", *key), device
    )
    optimizer = sgd(network, recipe.lr, recipe.momentum, recipe.weight_decay)
    falls = [max(1, 2 * epochs // 3), max(1, 5 * epochs // 6)]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, falls, gamma=0.2)
    looks = {-(-epochs * look // recipe.tests) for look in range(1, recipe.tests + 1)}
    batches = Shuffle(len(images), recipe.batch_size, seed, "batches", *key, drop_last=False)
    for epoch in range(epochs):
        for number in range(epoch * batches.per_pass, (epoch + 1) * batches.per_pass):
            batch = batches[number]
            x, y = normalize(to_unit(images[batch], device)), labels[batch].to(device)
            generator = stream(seed, "train", *key, number)
            training_step(network, optimizer, x, y, recipe.augmentation, recipe.mix_p, generator)
        schedule.step()
        due = epoch + 1 in looks
        yield Epoch(epoch + 1, epochs, accuracy(network, dataset.test, normalize, device) if due else None)


@torch.no_grad()
def accuracy(network: nn.Module, test: LabeledImages, normalize: Normalize, device: torch.device) -> float:
    """Top-1 accuracy in percent on a split."""
    network.eval()
    right = 0
    for images, labels in zip(test.images.split(_TEST_BATCH), test.labels.split(_TEST_BATCH), strict=True):
        logits = network(normalize(to_unit(images, device)))
        right += int((logits.argmax(1).cpu() == labels).sum())
    network.train()
    return 100 * right / len(test)
