"""How weights are drawn: every published initialisation, from a generator that the caller owns."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn

Rule = Callable[[nn.Conv2d | nn.Linear, torch.Generator], object]


class Scheme(NamedTuple):
    """One rule for convolutions, one for linear layers. Normalisations always start at scale 1, shift 0."""

    convolution: Rule
    linear: Rule


def uniform(layer: nn.Conv2d | nn.Linear, generator: torch.Generator) -> None:
    """PyTorch's own: kaiming-uniform with a = √5, which is U(±1/√fan_in), for weights and biases."""
    bound = 1 / math.sqrt(_fan_in(layer))
    layer.weight.uniform_(-bound, bound, generator=generator)
    if layer.bias is not None:
        layer.bias.uniform_(-bound, bound, generator=generator)


def fan_in(layer: nn.Conv2d | nn.Linear, generator: torch.Generator) -> None:
    """N(0, √(2/fan_in)), zero bias (He et al. 2015)."""
    normal(layer, generator, math.sqrt(2 / _fan_in(layer)))


def fan_out(layer: nn.Conv2d | nn.Linear, generator: torch.Generator) -> None:
    """N(0, √(2/(k²·out))), zero bias: the ResNets of IDC and of torchvision."""
    normal(layer, generator, math.sqrt(2 / _fan_out(layer)))


def xavier(layer: nn.Conv2d | nn.Linear, generator: torch.Generator) -> None:
    """N(0, √(2/(fan_in + fan_out))), zero bias (Glorot and Bengio 2010, gain 1): DD's."""
    normal(layer, generator, math.sqrt(2 / (_fan_in(layer) + _fan_out(layer))))


def normal(layer: nn.Conv2d | nn.Linear, generator: torch.Generator, std: float) -> None:
    """N(0, std), zero bias."""
    layer.weight.normal_(0, std, generator=generator)
    zero_bias(layer)


def zero_bias(layer: nn.Conv2d | nn.Linear) -> None:
    if layer.bias is not None:
        layer.bias.zero_()


PYTORCH = Scheme(uniform, uniform)
HE = Scheme(fan_out, uniform)
XAVIER = Scheme(xavier, xavier)


@torch.no_grad()
def initialize(network: nn.Module, generator: torch.Generator, initialization: str = "default") -> None:
    """Draw every weight of `network` from `generator` and from nothing else.

    `default` is the network's own published initialisation, PyTorch's where it names none; `xavier` is DD's for any
    network. Raises RuntimeError at a parameter or buffer that no rule covers: it would keep what was in its memory.
    """
    scheme: Scheme = {"default": getattr(network, "scheme", PYTORCH), "xavier": XAVIER}[initialization]
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            scheme.convolution(module, generator)
        elif isinstance(module, nn.Linear):
            scheme.linear(module, generator)
        elif isinstance(module, nn.GroupNorm | nn.LayerNorm | nn.BatchNorm2d):
            module.reset_parameters()
        elif [*module.parameters(recurse=False), *module.buffers(recurse=False)]:
            kind = type(module).__name__
            raise RuntimeError(f"no rule initialises {name or 'the network'}, a {kind}; add one for its parameters")


def _fan_in(layer: nn.Conv2d | nn.Linear) -> int:
    return layer.weight[0].numel()


def _fan_out(layer: nn.Conv2d | nn.Linear) -> int:
    return layer.weight[:, 0].numel()
