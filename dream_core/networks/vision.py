"""torchvision's classifiers of larger images, untrained."""

import math
from functools import partial

import torch
from torch import nn

from dream_core.networks.base import Network
from dream_core.networks.initialization import HE, Scheme, fan_in, fan_out, normal, uniform, zero_bias


class Torchvision(Network):
    """torchvision's `model` up to its last linear layer, which is replaced by one for `classes`.

    ResNets get a 3x3 stem without stride or pooling for images of up to 64 pixels, as in SRe2L (Yin et al. 2023);
    the first convolution takes `channels`. Dropout and stochastic depth are off: they would draw from the global
    generator, and nobody could repeat the training.
    """

    def __init__(self, channels: int, classes: int, size: int, model: str):
        from torchvision.models import get_model
        from torchvision.ops import StochasticDepth

        network = get_model(model, weights=None)
        if model.startswith("resnet") and size <= 64:
            network.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
            network.maxpool = nn.Identity()
        first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
        first.in_channels = channels
        first.weight = nn.Parameter(torch.empty(first.out_channels, channels, *first.kernel_size))
        first.reset_parameters()
        name, last = [(name, module) for name, module in network.named_modules() if isinstance(module, nn.Linear)][-1]
        network.set_submodule(name, nn.Identity())
        for module in network.modules():
            if isinstance(module, nn.Dropout | StochasticDepth):
                module.p = 0.0
        super().__init__(network, last.in_features, classes, _scheme(model))


def _scheme(model: str) -> Scheme:
    """torchvision's own initialisation of each family."""
    families = {
        "resnet": HE,
        "vgg": Scheme(fan_out, partial(normal, std=0.01)),
        "mobilenet": Scheme(fan_out, partial(normal, std=0.01)),
        "densenet": Scheme(fan_in, _uniform_without_bias),
        "efficientnet": Scheme(fan_out, _uniform_by_outputs),
    }
    return next(scheme for family, scheme in families.items() if model.startswith(family))


def _uniform_without_bias(layer: nn.Conv2d | nn.Linear, generator: torch.Generator) -> None:
    uniform(layer, generator)
    zero_bias(layer)


def _uniform_by_outputs(layer: nn.Conv2d | nn.Linear, generator: torch.Generator) -> None:
    bound = 1 / math.sqrt(len(layer.weight))
    layer.weight.uniform_(-bound, bound, generator=generator)
    zero_bias(layer)
