"""Train one fresh network on a set of images and test it: the protocol that a score stands for."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from statistics import mean, stdev

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dream_core import loader, networks
from dream_core.computing import PLAIN, Computing, choose_computing, filled_up
from dream_core.datasets import Dataset, LabeledImages
from dream_core.images import Transform, Unchanged, to_unit
from dream_core.networks import Network
from dream_core.randomness import Shuffle, stream
from dream_core.recipes import Computed, EvaluationRecipe, work_to_compile
from dream_core.recipes.protocols import KEPT_INPUTS, TEST_BATCH
from dream_core.subject import Replay, SoftLabels, TrainingSet
from dream_core.training import Augmentation, fetcher, train_epoch, warm_cosine

_WORTH_COMPILING = 2**40
"""Multiplications of the largest layer, forward, in a network's training: a minute or so on two cores."""


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
    how_often = {"repeats", "baselines", "ceiling", "ceiling_epochs"}
    protocol = recipe.model_dump(exclude=how_often | Computed.model_fields.keys())
    protocol |= {"dataset": fingerprint, "size": size}
    return hashlib.sha256(json.dumps(protocol, sort_keys=True).encode()).hexdigest()[:12]


def train_and_test(
    training: TrainingSet,
    dataset: Dataset,
    recipe: EvaluationRecipe,
    seed: int,
    key: tuple[str | int, ...],
    device: torch.device,
    epochs: int | None = None,
) -> Iterator[Epoch]:
    """Train a fresh network on a training set, in the way that the recipe's `mode` says.

    Yields after every epoch, with the test accuracy after each `recipe.tests`-th part of them and after the last.
    `key` names the random streams, so that runs with different keys are independent; `epochs` replaces the recipe's.
    """
    channels, size = training.images.shape[1], training.images.shape[-1]
    replay = training.replay if recipe.mode == "replay" else None
    generator = stream(seed, "network", *key)
    if replay and replay.init_seed is not None:
        generator = torch.Generator().manual_seed(replay.init_seed)
    initialization = replay.initialization if replay else "default"
    classes = len(dataset.class_names)
    network = networks.evaluation_network(recipe, channels, classes, size, generator, device, initialization)
    epochs = epochs or recipe.epochs
    worth = work_to_compile(recipe, epochs * len(training.images), size) >= _WORTH_COMPILING
    computing = choose_computing(recipe, worth, device)
    if replay:
        passes, epochs = _replayed(network, training, replay, device), 1
    elif recipe.mode == "soft" and training.soft:
        passes = _taught(network, training, training.soft, recipe, seed, key, device, epochs)
    else:
        passes = _trained(network, training, recipe, seed, key, device, epochs, computing)
    looks = {-(-epochs * look // recipe.tests) for look in range(1, recipe.tests + 1)}
    for epoch, _ in enumerate(passes, start=1):
        due = epoch in looks
        tested = accuracy(network, dataset.test, training.transform, device, computing) if due else None
        yield Epoch(epoch, epochs, tested)


# ---------------------------------------------------------------- three ways to train


def _trained(
    network: Network, training: TrainingSet, recipe: EvaluationRecipe, seed: int, key: tuple[str | int, ...],
    device: torch.device, epochs: int, computing: Computing,
) -> Iterator[None]:  # fmt: skip
    """On hard labels, in shuffled minibatches: as nearly all papers do."""
    lr = training.lr if recipe.lr == "learned" else recipe.lr
    assert lr is not None, "the recipe's check lets only methods that learn a rate ask for it"
    how = Augmentation(recipe.augmentation, recipe.composition, recipe.mix_p)
    batches = Shuffle(len(training.images), recipe.batch_size, seed, "batches", *key, drop_last=False)
    # whitening is a large matrix product: done once where the set is small enough to be kept as inputs
    if len(training.images) <= KEPT_INPUTS:
        inputs = training.transform(to_unit(training.images, device))
        training = replace(training, images=inputs, labels=training.labels.to(device), transform=Unchanged())
    fetch, logits = fetcher(training, training.transform, device), partial(computing.logits, network)
    optimizer = _optimizer(network, recipe, lr)
    for epoch in range(epochs):
        if recipe.schedule == "tenth" and epoch == (epochs - 1) // 2 + 1:
            optimizer = _optimizer(network, recipe, lr)  # its momentum is forgotten
        _set_rate(optimizer, lr * _share(recipe, epoch, epochs))
        train_epoch(logits, optimizer, batches, epoch, fetch, how, seed, ("train", *key))
        yield


def _taught(
    network: nn.Module, training: TrainingSet, soft: SoftLabels, recipe: EvaluationRecipe, seed: int,
    key: tuple[str | int, ...], device: torch.device, epochs: int,
) -> Iterator[None]:  # fmt: skip
    """On what a teacher said of the views of every epoch (SRe2L)."""
    assert isinstance(recipe.lr, float)
    optimizer = _optimizer(network, recipe, recipe.lr)
    inputs = training.transform(to_unit(training.images))
    batches = Shuffle(len(inputs), recipe.batch_size, seed, "batches", *key, drop_last=False)
    network.train()
    for epoch in range(epochs):
        _set_rate(optimizer, recipe.lr * _share(recipe, epoch, epochs))
        labelled = epoch % len(soft.seeds)
        seen = loader.views(inputs, soft.seeds[labelled], **soft.view)
        for number in range(epoch * batches.per_pass, (epoch + 1) * batches.per_pass):
            batch = batches[number]
            logits, taught = network(seen[batch].to(device)), soft.logits[labelled][batch].to(device, seen.dtype)
            optimizer.zero_grad()
            soft_loss(logits, taught, recipe.temperature, recipe.temperature_squared).backward()
            optimizer.step()
        yield


def _replayed(network: nn.Module, training: TrainingSet, replay: Replay, device: torch.device) -> Iterator[None]:
    """By exactly the gradient steps that the set was learned for (DD)."""
    inputs, labels = training.transform(to_unit(training.images, device)), training.labels.to(device)
    network.train()
    for indices, rate in zip(replay.order, replay.rates.tolist(), strict=True):
        loss = F.cross_entropy(network(inputs[indices.to(device)]), labels[indices.to(device)])
        gradients = torch.autograd.grad(loss, list(network.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(network.parameters(), gradients, strict=True):
                parameter.sub_(gradient, alpha=rate)
    yield


def soft_loss(student: Tensor, teacher: Tensor, temperature: float, squared: bool = False) -> Tensor:
    """KL divergence of the teacher's softened distribution from the student's, mean over the batch; logits [N, C].

    `squared` multiplies it by the temperature's square (Hinton et al. 2015), which SRe2L does on TinyImageNet alone.
    """
    target, found = F.softmax(teacher / temperature, 1), F.log_softmax(student / temperature, 1)
    return F.kl_div(found, target, reduction="batchmean") * (temperature**2 if squared else 1)


def _optimizer(network: nn.Module, recipe: EvaluationRecipe, lr: float) -> torch.optim.Optimizer:
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(network.parameters(), lr, weight_decay=recipe.weight_decay)
    return torch.optim.SGD(network.parameters(), lr, recipe.momentum, weight_decay=recipe.weight_decay)


def _share(recipe: EvaluationRecipe, epoch: int, epochs: int) -> float:
    """What remains of the learning rate in an epoch, counted from 0."""
    match recipe.schedule:
        case "fifths":
            return 0.2 ** sum(epoch >= max(1, fall) for fall in (2 * epochs // 3, 5 * epochs // 6))
        case "tenth":
            return 0.1 if epoch > (epochs - 1) // 2 else 1.0
    return warm_cosine(epoch, epochs, min(recipe.warmup, epochs - 1))


def _set_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr


@torch.no_grad()
def accuracy(
    network: Network, test: LabeledImages, transform: Transform, device: torch.device, computing: Computing = PLAIN
) -> float:
    """Top-1 accuracy in percent on a split."""
    network.eval()
    right = 0
    for images, labels in zip(test.images.split(TEST_BATCH), test.labels.split(TEST_BATCH), strict=True):
        inputs = transform(to_unit(images, device))
        if computing.compiled:
            inputs = filled_up(inputs, TEST_BATCH)
        logits = computing.logits(network, inputs)[: len(labels)]
        right += int((logits.argmax(1).cpu() == labels).sum())
    network.train()
    return 100 * right / len(test)
