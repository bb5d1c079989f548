"""Coresets: real images, chosen and not learned.

    random:    any
    herding:   one after another, each the one that brings the mean of the chosen nearest to the mean of the class
    k-center:  one after another, each the one farthest from all chosen
    kmeans:    the ones nearest to the centres of k-means

Distances are of features, of a network that is trained on the real images for `pretrain_epochs`.

Source: herding (Welling 2009), as Rebuffi et al. 2017 select exemplars; k-center (Sener & Savarese 2018), greedy;
k-means representatives (Liu et al. 2023).
"""

from pathlib import Path

import torch
from torch import Tensor

from dream_core import networks
from dream_core.clustering import choose_engine
from dream_core.computing import PLAIN
from dream_core.datasets import Dataset
from dream_core.images import Normalize, to_unit
from dream_core.methods import Progress
from dream_core.randomness import Shuffle, stream
from dream_core.recipes import CoresetRecipe
from dream_core.selection import Representatives, embed
from dream_core.subject import TrainingSet
from dream_core.synthetic import SyntheticSet
from dream_core.timing import Stopwatch
from dream_core.training import (
    Augmentation,
    fetcher,
    load_network_state,
    network_state,
    pretrain_epoch,
    saved,
    sgd,
)


def herding(features: Tensor, count: int) -> list[int]:
    """Rows of features [n, d] whose running mean stays nearest to the mean of all, none twice."""
    mean, total = features.mean(0), torch.zeros_like(features[0])
    chosen: list[int] = []
    for size in range(1, count + 1):
        distance = ((total + features) / size - mean).square().sum(1)
        distance[chosen] = torch.inf
        chosen.append(int(distance.argmin()))
        total = total + features[chosen[-1]]
    return chosen


def k_center(features: Tensor, count: int, first: int) -> list[int]:
    """Rows of features [n, d], from `first` on each the farthest from the nearest of those before it."""
    chosen = [first]
    nearest = (features - features[first]).square().sum(1)
    while len(chosen) < count:
        nearest[chosen] = -1
        chosen.append(int(nearest.argmax()))
        nearest = torch.minimum(nearest, (features - features[chosen[-1]]).square().sum(1))
    return chosen


class Coreset:
    """An epoch of the network whose features are used at a time, then one step that chooses."""

    computing = PLAIN

    def __init__(
        self,
        recipe: CoresetRecipe,
        dataset: Dataset,
        device: torch.device,
        state: dict[str, Tensor] | None = None,
        synchronize: bool = False,
        cache: Path | None = None,
    ):
        self.recipe, self.dataset, self.device = recipe, dataset, device
        self.normalize, self.watch = Normalize(dataset.mean, dataset.std), Stopwatch(device, synchronize)
        self.step_number, self.classes, channels = 0, len(dataset.class_names), dataset.train.images.shape[1]
        self.network = networks.matched_network(
            recipe, channels, self.classes, stream(recipe.seed, "network", 0), device
        )
        self.network_sgd = sgd(self.network, recipe.lr_net, recipe.momentum_net, recipe.weight_decay_net)
        engine = choose_engine(recipe.clustering, device)
        self.representatives = Representatives(recipe, engine, self.normalize, device, self.watch)
        images = torch.zeros(recipe.ipc * self.classes, *dataset.train.images.shape[1:], device=device)
        self.synthetic = SyntheticSet(images, self.classes, recipe.ipc)
        if state is not None:
            self.load_state_dict(state)

    def step(self) -> Progress:
        """An epoch of the network, or the choice. Raises Diverged where the loss is no longer finite."""
        choosing = self.step_number == self.recipe.pretrain_epochs
        if choosing:
            loss = self.choose()
        else:
            with self.watch("network"):
                loss = self.train(self.step_number)
        self.step_number += 1
        phase = "distilling" if choosing else "pretraining"
        return Progress(self.step_number, self.recipe.steps, loss, self.watch.take(), phase)

    def choose(self) -> float:
        """Take the images of every class; return the mean squared distance of a class's mean to that of its chosen."""
        missed = []
        # batch normalisation that has learned uses what it has seen; without any training it has seen nothing
        self.network.train(self.recipe.pretrain_epochs == 0)
        for label in range(self.classes):
            images = self.dataset.train.of_class(label)
            chosen = self.chosen(images, label)
            pixels = to_unit(images, self.device)
            self.synthetic.of_class(label).copy_(pixels[chosen])
            missed.append((pixels[chosen].mean(0) - pixels.mean(0)).square().mean())
        return float(torch.stack(missed).mean())

    def chosen(self, images: Tensor, label: int) -> Tensor:
        """Indices into the images of one class: int64 [ipc]."""
        count, generator = self.recipe.ipc, stream(self.recipe.seed, "choose", label)
        match self.recipe.method:
            case "random":
                return torch.randperm(len(images), generator=generator)[:count]
            case "kmeans":
                return self.representatives(images, self.network, count, ("init", label))
        with self.watch("embedding"):
            features = embed(self.network, images, self.recipe.embedding_chunk, self.device, self.normalize)
        if self.recipe.method == "herding":
            return torch.tensor(herding(features, count))
        first = int(torch.randint(len(images), (1,), generator=generator))
        return torch.tensor(k_center(features, count, first))

    def train(self, epoch: int) -> float:
        """An epoch on the real images, without augmentation."""
        train, key = self.dataset.train, ("pretrain",)
        fetch = fetcher(train, self.normalize, self.device)
        recipe, network = self.recipe, (self.network, self.network_sgd)
        batches = Shuffle(len(train), recipe.batch_net, recipe.seed, "pretrain", "order", drop_last=False)
        self.network.train()
        told = "the network's loss became {loss}; lower lr_net"
        return pretrain_epoch(*network, batches, epoch, fetch, Augmentation(), recipe.seed, key, told)

    def training_set(self, images: Tensor | None = None, labels: Tensor | None = None) -> TrainingSet:
        """The chosen images, normalised for training."""
        if images is None or labels is None:
            images, labels = self.synthetic.decoded()
        return TrainingSet(images, labels, self.normalize)

    def state_dict(self) -> dict[str, Tensor]:
        """All that the next step depends on, as copies."""
        state = {"step": torch.tensor(self.step_number), "images": self.synthetic.images}
        return saved(state | network_state(self.network, self.network_sgd))

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from `state_dict()` of a run with the same recipe and dataset."""
        self.step_number = int(state["step"])
        self.synthetic.images.copy_(state["images"])
        load_network_state(self.network, self.network_sgd, state)
