"""DD: its hyperparameters and the published values."""

import math
from typing import Any, ClassVar, Literal

from dream_core.recipes.choice import Choice
from dream_core.recipes.schema import Positive, Probability, Rate, Recipe


class UnrolledRecipe(Recipe, frozen=True):
    """Learn images and step sizes: a fresh network that takes these very steps should do well on real images."""

    length_field: ClassVar[str | None] = "iterations"
    whole_because: ClassVar[str] = "a network is stepped through images of all classes at once"

    method: Literal["dd"]
    initialization: Literal["xavier", "default"] = "xavier"
    """How the networks' weights are drawn."""
    fixed_init: bool = False
    """One initialisation for every iteration and for the evaluation (`known_init`), instead of a fresh one each."""
    networks: Positive = 1
    """Initialisations whose gradients are averaged in an iteration."""

    distill_steps: Positive
    """The images are split over so many gradient steps, as many of each class in each."""
    distill_epochs: Positive = 3
    """How often these steps are repeated. Every repetition has rates of its own."""
    lr_steps: Rate = 0.02
    """What the learned rates start from. They stay positive (softplus)."""

    iterations: Positive
    """Steps of the images and rates."""
    batch_real: Positive = 1024
    """Real images that the stepped network is tested on in an iteration."""
    crop_and_flip: bool = False
    """Augment real images by a reflected margin of 4 pixels, a random crop and a mirror (CIFAR)."""
    lr: Rate = 0.01
    """Adam's, for images and rates."""
    beta1: Probability = 0.5
    """Adam's decay of the mean gradient."""
    beta2: Probability = 0.999
    """Adam's decay of the mean squared gradient."""
    decay_every: Positive
    """Iterations until `lr` is multiplied by `decay`, and again."""
    decay: Probability = 0.5
    """What `lr` is multiplied by."""

    @property
    def steps(self) -> int:
        return self.iterations

    @property
    def images_per_step(self) -> int:
        """Synthetic images of each class in a gradient step."""
        return self.ipc // self.distill_steps

    def problems(self) -> list[tuple[str, str]]:
        found = []
        if self.ipc % self.distill_steps:
            told = f"{self.ipc} images per class cannot be split over {self.distill_steps} steps; use a divisor of ipc"
            found.append(("params.distill_steps", told))
        if self.norm == "batch":
            found.append(("params.norm", "steps cannot be unrolled through batch statistics; use instance or none"))
        return found


SOURCE = "DD (Wang et al. 2018) and its code, unknown initialisation"
PUBLISHED = {"dd": {"mnist": (10,), "cifar10": (10,)}}

_EPOCHS, _DECAY_EPOCHS, _BATCH = 400, 40, 1024
_NETWORKS = {"mnist": "lenet", "fashion_mnist": "lenet", "cifar10": "alexcifarnet", "cifar100": "alexcifarnet"}


def settings(choice: Choice) -> dict[str, Any]:
    """Values of `UnrolledRecipe`: 400 passes over the real images, the rate halved every 40."""
    per_epoch = math.ceil((choice.facts.train if choice.facts else 50_000) / choice.whole("batch_real", _BATCH))
    cifar = choice.dataset.startswith("cifar")
    network = {"network": _NETWORKS.get(choice.dataset, "convnet")}
    return {
        **network,
        "distill_steps": max(n for n in range(1, 11) if choice.ipc % n == 0),
        "lr_steps": 0.001 if cifar else 0.02,
        "iterations": _EPOCHS * per_epoch,
        "decay_every": _DECAY_EPOCHS * per_epoch,
        "crop_and_flip": cifar,
        "evaluation": network
        | choice.of_the_network()
        | {"mode": "replay", "epochs": 1, "tests": 1, "ceiling_epochs": 100},
    }
