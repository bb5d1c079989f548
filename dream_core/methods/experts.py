"""The experts of MTT: networks trained on the real images, and what they were after every epoch.

Source: MTT (Cazenavette et al. 2022), section 3.1; `buffer.py` of its code.
"""

from pathlib import Path

import torch
from torch import Tensor

from dream_core import networks
from dream_core.cache import NetworkCache
from dream_core.datasets import Dataset
from dream_core.images import Transform
from dream_core.randomness import Shuffle, stream
from dream_core.recipes import TrajectoryRecipe
from dream_core.training import (
    Augmentation,
    fetcher,
    load_network_state,
    network_state,
    pretrain_epoch,
    sgd,
)

_DECIDE_EXPERTS = {
    "image_size", "network", "depth", "width", "norm", "activation", "pooling", "zca", "zca_eps", "augmentation",
    "expert_seed", "lr_expert", "momentum_expert", "weight_decay_expert", "batch_expert",
}  # fmt: skip


class Experts:
    """Networks trained on the real images, with their parameters before training and after every epoch.

    Each is a file in the cache, and a pure function of the settings, the data and its number: an expert that is
    missing is trained again, with the same bytes.
    """

    def __init__(
        self, recipe: TrajectoryRecipe, dataset: Dataset, space: Transform, device: torch.device, cache: Path | None
    ):
        self.recipe, self.dataset, self.space, self.device = recipe, dataset, space, device
        self.epochs = recipe.experts * recipe.epochs_per_expert
        self.how = Augmentation(recipe.augmentation, "one")
        about = recipe.model_dump(include=_DECIDE_EXPERTS) | {"epochs": recipe.epochs_per_expert}
        about |= {"dataset": dataset.fingerprint, "kind": "expert", "device": device.type}
        self.cache = NetworkCache(cache, about)
        self.trained: list[Tensor] = []
        self.open(0)

    def step(self, number: int) -> tuple[float, int]:
        """One epoch, the `number`-th of all experts' together; return its loss and the number of the next.

        An expert that the cache has is passed over in one step.
        """
        expert, epoch = divmod(number, self.recipe.epochs_per_expert)
        if epoch == 0:
            if name_of(expert) in self.cache:
                self.trained = []
                return 0.0, (expert + 1) * self.recipe.epochs_per_expert
            self.open(expert)
        loss = self.train(expert, epoch)
        if epoch + 1 == self.recipe.epochs_per_expert:
            self.keep(expert)
        return loss, number + 1

    def stretch(self, iteration: int) -> tuple[list[Tensor], list[Tensor]]:
        """Where the student of an iteration starts and where the expert was `expert_epochs` later.

        Experts are met in a shuffled order, each once before any is met again.
        """
        recipe = self.recipe
        expert = int(Shuffle(recipe.experts, 1, recipe.seed, "experts", drop_last=False)[iteration])
        generator = stream(recipe.seed, "start epoch", iteration)
        start = int(torch.randint(recipe.max_start_epoch, (1,), generator=generator))
        epochs = [f"{epoch:03d}" for epoch in (start, start + recipe.expert_epochs)]
        path = self.cache.load(name_of(expert), epochs) or self.again(expert)
        ends = [self.split(path[epoch].to(self.device)) for epoch in epochs]
        return ends[0], ends[1]

    def open(self, expert: int) -> None:
        """Begin with an expert."""
        recipe = self.recipe
        self.network = self.fresh_network(expert)
        self.sgd = sgd(self.network, recipe.lr_expert, recipe.momentum_expert, recipe.weight_decay_expert)
        self.trained = [self.flat()]

    def fresh_network(self, expert: int) -> networks.Network:
        """The network that an expert starts as."""
        generator = stream(self.recipe.expert_seed, "expert", expert)
        channels, classes = self.dataset.train.images.shape[1], len(self.dataset.class_names)
        return networks.matched_network(self.recipe, channels, classes, generator, self.device).train()

    def train(self, expert: int, epoch: int) -> float:
        """An epoch on the real images."""
        train, key = self.dataset.train, ("expert", expert)
        fetch = fetcher(train, self.space, self.device)
        batches = Shuffle(len(train), self.recipe.batch_expert, self.recipe.expert_seed, *key, "order", drop_last=False)
        told, seed = f"expert {expert} reached a loss of {{loss}}; lower lr_expert", self.recipe.expert_seed
        loss = pretrain_epoch(self.network, self.sgd, batches, epoch, fetch, self.how, seed, key, told)
        self.trained.append(self.flat())
        return loss

    def keep(self, expert: int) -> dict[str, Tensor]:
        """Put a finished expert into the cache."""
        path = {f"{epoch:03d}": parameters for epoch, parameters in enumerate(self.trained)}
        self.cache.save(name_of(expert), path)
        self.trained = []
        return path

    def again(self, expert: int) -> dict[str, Tensor]:
        """Train an expert that the cache has lost."""
        self.open(expert)
        for epoch in range(self.recipe.epochs_per_expert):
            self.train(expert, epoch)
        return self.keep(expert)

    def flat(self) -> Tensor:
        """All parameters in one vector, a copy."""
        return torch.cat([p.detach().flatten() for p in self.network.parameters()]).cpu()

    def split(self, flat: Tensor) -> list[Tensor]:
        """A vector as parameters again."""
        shapes = [p.shape for p in self.network.parameters()]
        parts = flat.split([shape.numel() for shape in shapes])
        return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]

    def state_dict(self) -> dict[str, Tensor]:
        """The expert at work, if one is: its network and what it has been."""
        if not self.trained:
            return {}
        return network_state(self.network, self.sgd) | {"trained": torch.stack(self.trained)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on with the expert at work."""
        self.trained = list(state["trained"].clone()) if state else []
        if state:
            load_network_state(self.network, self.sgd, state)


def name_of(expert: int) -> str:
    """The file of an expert."""
    return f"expert-{expert:03d}"
