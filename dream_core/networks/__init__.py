"""Networks: each gives `.embed(x)` (features before the classifier) and `.forward(x)` (logits)."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from dream_core.catalog import NETWORKS, TORCHVISION_PREFIX
from dream_core.errors import InvalidRecipe
from dream_core.networks.alexnet import AlexCifarNet, AlexNet
from dream_core.networks.base import Network
from dream_core.networks.convnet import ACTIVATIONS, POOLINGS, ConvNet
from dream_core.networks.densenet import DenseNet
from dream_core.networks.initialization import HE, initialize
from dream_core.networks.plain import MLP, LeNet
from dream_core.networks.resnet import ResNet
from dream_core.networks.vgg import VGG11
from dream_core.networks.vision import Torchvision
from dream_core.recipes import EvaluationRecipe, Recipe, convnet_depth

__all__ = [
    "ConvNet",
    "Embedding",
    "Network",
    "build_network",
    "evaluation_network",
    "initialize",
    "matched_network",
]

FACTORIES: dict[str, Callable[..., Network]] = {
    "convnet": ConvNet,
    "mlp": MLP,
    "lenet": LeNet,
    "alexnet": AlexNet,
    "vgg11": VGG11,
    "resnet18": partial(ResNet, blocks=2),
    "resnet18_ap": partial(ResNet, blocks=2, halving="average", head="flatten"),
    "resnet10": partial(ResNet, blocks=1, stem="sized", scheme=HE),
    "resnet10_narrow": partial(ResNet, blocks=1, width=32, scheme=HE),
    "resnet18_narrow": partial(ResNet, blocks=2, width=32, scheme=HE),
    "resnetap10": partial(ResNet, blocks=1, halving="average", stem="sized", scheme=HE),
    "densenet": DenseNet,
    "alexcifarnet": AlexCifarNet,
    **{
        name: partial(Torchvision, model=name.removeprefix(TORCHVISION_PREFIX))
        for name in NETWORKS
        if name.startswith(TORCHVISION_PREFIX)
    },
}
"""What makes each network of the catalog from (channels, classes, size), and from `norm` where it has a choice."""


class Embedding(Protocol):
    """What selection needs of a network."""

    def embed(self, x: Tensor) -> Tensor:
        """Features [N, d] of normalised or raw images [N, C, H, W]."""
        ...


def build_network(
    name: str,
    channels: int,
    classes: int,
    size: int,
    generator: torch.Generator,
    device: torch.device,
    *,
    depth: int | None = None,
    width: int = 128,
    norm: str | None = None,
    activation: str = "relu",
    pooling: str = "average",
    initialization: str = "default",
) -> Network:
    """A freshly initialised network for images [N, channels, size, size], its weights drawn from `generator` alone.

    Args:
        name: of `dream_core.catalog.NETWORKS`.
        channels, size: of the images.
        classes: logits returned.
        generator: on the CPU, so that a seed gives the same weights on every device.
        device: where the network goes, in channels-last layout.
        depth, width, activation, pooling: of `convnet`, see ConvNet; the other networks ignore them. No depth means
            3 blocks for 28 and 32 pixels, 4 for 64, 5 for 128.
        norm: one of the network's `norms` in the catalog; None means the first of them.
        initialization: `default` is the published one of the network; `xavier` is that of DD, for any network.

    Raises InvalidRecipe for an unknown name, a norm or option that the network does not have, an image too small.
    """
    options: dict[str, Any] = {}
    if name == "convnet":
        depth = convnet_depth(size) if depth is None else depth
        options = {"depth": depth, "width": width, "activation": activation, "pooling": pooling}
    if problems := _problems(name, size, norm, initialization, options):
        raise InvalidRecipe(problems)
    norms = NETWORKS[name].norms
    if len(norms) > 1:
        options["norm"] = norm or norms[0]
    with torch.device("meta"):
        network = FACTORIES[name](channels, classes, size, **options)
    return _materialize(network, generator, device, initialization)


def matched_network(
    recipe: Recipe,
    channels: int,
    classes: int,
    generator: torch.Generator,
    device: torch.device,
    initialization: str = "default",
) -> Network:
    """A freshly initialised network of the kind that a recipe distils with."""
    return build_network(
        recipe.network, channels, classes, recipe.image_size, generator, device,
        depth=recipe.depth, width=recipe.width, norm=recipe.norm, activation=recipe.activation,
        pooling=recipe.pooling, initialization=initialization,
    )  # fmt: skip


def evaluation_network(
    recipe: EvaluationRecipe,
    channels: int,
    classes: int,
    size: int,
    generator: torch.Generator,
    device: torch.device,
    initialization: str = "default",
) -> Network:
    """A freshly initialised network of the kind that a set is judged with."""
    return build_network(
        recipe.network, channels, classes, size, generator, device,
        depth=recipe.depth, width=recipe.width, norm=recipe.norm, initialization=initialization,
    )  # fmt: skip


def _problems(
    name: str, size: int, norm: str | None, initialization: str, options: dict[str, Any]
) -> list[tuple[str, str]]:
    """What does not fit together, as (field, what to do)."""
    if name not in NETWORKS:
        return [("params.network", f"there is no network {name!r}; known: {', '.join(NETWORKS)}")]
    facts, problems = NETWORKS[name], []
    if norm is not None and norm not in facts.norms:
        problems.append(("params.network", f"{name} has no norm {norm!r}; use {' or '.join(facts.norms)}"))
    if size < facts.smallest:
        fitting = ", ".join(other.name for other in NETWORKS.values() if other.smallest <= size) or "larger images"
        told = f"{name} takes images of {facts.smallest} pixels or more, not {size}; use {fitting}"
        problems.append(("params.network", told))
    elif options and options["pooling"] != "none" and size >> options["depth"] < 1:
        told = f"{options['depth']} poolings leave nothing of {size} pixels; use at most {int(math.log2(size))}"
        problems.append(("params.depth", told))
    choices = {"activation": [*ACTIVATIONS], "pooling": [*POOLINGS, "none"], "initialization": ["default", "xavier"]}
    for option, value in {**options, "initialization": initialization}.items():
        if option in choices and value not in choices[option]:
            told = f"there is no {option} {value!r}; use {' or '.join(choices[option])}"
            problems.append((f"params.{option}", told))
    return problems


def _materialize(network: Network, generator: torch.Generator, device: torch.device, initialization: str) -> Network:
    """Give a network made on the meta device its memory and its initial weights.

    Channels last is the faster layout on CPUs and on tensor cores; it does not change the mathematics.
    """
    network.to_empty(device="cpu")
    initialize(network, generator, initialization)
    return network.to(device=device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
