"""Networks: each gives `.embed(x)` (features before the classifier) and `.forward(x)` (logits)."""

import math
from typing import Protocol

import torch
from torch import Tensor, nn

from dream_core.networks.convnet import ConvNet
from dream_core.recipes import Recipe, convnet_depth

__all__ = ["ConvNet", "Embedding", "evaluation_network", "initialize", "matched_network"]


class Embedding(Protocol):
    """What selection needs of a network."""

    def embed(self, x: Tensor) -> Tensor:
        """Features [N, d] of normalised or raw images [N, C, H, W]."""
        ...


def matched_network(
    recipe: Recipe, channels: int, classes: int, generator: torch.Generator, device: torch.device
) -> ConvNet:
    """A freshly initialised network of the kind that a recipe distils with."""
    with torch.device("meta"):
        network = ConvNet(
            channels,
            classes,
            recipe.image_size,
            recipe.depth,
            recipe.width,
            recipe.norm,
            recipe.activation,
            recipe.pooling,
        )
    return _materialize(network, generator, device)


def evaluation_network(
    channels: int, classes: int, size: int, generator: torch.Generator, device: torch.device
) -> ConvNet:
    """A freshly initialised network of the kind that a set is judged with: ConvNet of width 128, instance norm."""
    with torch.device("meta"):
        network = ConvNet(channels, classes, size, convnet_depth(size))
    return _materialize(network, generator, device)


def _materialize(network: ConvNet, generator: torch.Generator, device: torch.device) -> ConvNet:
    """Give a network made on the meta device its memory and its initial weights.

    Channels last is the faster layout on CPUs and on tensor cores; it does not change the mathematics.
    """
    network.to_empty(device="cpu")
    initialize(network, generator)
    return network.to(device=device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


@torch.no_grad()
def initialize(network: nn.Module, generator: torch.Generator) -> None:
    """PyTorch's default initialisation, drawn from `generator` and from nothing else.

    Convolution and linear weights are kaiming-uniform with a = √5, which is U(±1/√fan_in), and so are the biases;
    normalisations start at scale 1, shift 0.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            bound = 1 / math.sqrt(module.weight[0].numel())
            module.weight.uniform_(-bound, bound, generator=generator)
            if module.bias is not None:
                module.bias.uniform_(-bound, bound, generator=generator)
        elif isinstance(module, nn.GroupNorm | nn.LayerNorm | nn.BatchNorm2d):
            module.reset_parameters()
