"""DenseNet for small images."""

import torch
from torch import Tensor, nn

from dream_core.networks.base import Network, can_halve

BLOCKS = (6, 12, 24, 16)
GROWTH = 12


class DenseNet(Network):
    """Four dense blocks of 6, 12, 24 and 16 layers, each adding 12 channels; between them channels and side halve.

    Batch normalisation. Features: 384. Source: Huang et al. 2017 with bottlenecks and compression, as IDC (Kim et al.
    2022) judges CIFAR with; 1.0 million parameters, not the 7 million of DenseNet-121 for ImageNet.
    """

    def __init__(self, channels: int, classes: int, size: int):
        width, side = 2 * GROWTH, size
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1, bias=False)]
        for block, depth in enumerate(BLOCKS):
            if block > 0:
                layers += _normalised(width, width // 2, 1)
                width //= 2
                if can_halve(side):
                    layers.append(nn.AvgPool2d(2))
                    side //= 2
            layers += [DenseLayer(width + GROWTH * layer) for layer in range(depth)]
            width += GROWTH * depth
        layers += [nn.BatchNorm2d(width), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1)]
        super().__init__(nn.Sequential(*layers), width, classes)


class DenseLayer(nn.Module):
    """12 new channels, computed from all `width` channels so far and laid beside them."""

    def __init__(self, width: int):
        super().__init__()
        self.new = nn.Sequential(*_normalised(width, 4 * GROWTH, 1), *_normalised(4 * GROWTH, GROWTH, 3))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.new(x)], dim=1)


def _normalised(inputs: int, outputs: int, kernel: int) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    return [nn.BatchNorm2d(inputs), nn.ReLU(inplace=True), convolution]
