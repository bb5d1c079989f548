"""VGG-11 for small images."""

from torch import nn

from dream_core.networks.base import Network, can_halve, normalisation, padded

STAGES = ((64,), (128,), (256, 256), (512, 512), (512, 512))


class VGG11(Network):
    """Eight 3x3 convolutions in five stages with a max pooling after each, one linear layer. Features: 512.

    Source: Simonyan and Zisserman 2015, with normalisation and without the hidden linear layers as in DC. What the
    last pooling leaves of images larger than 32 pixels is averaged.
    """

    def __init__(self, channels: int, classes: int, size: int, norm: str = "instance"):
        side, padding = padded(size, 1)
        layers: list[nn.Module] = []
        for stage in STAGES:
            if layers and can_halve(side):
                layers.append(nn.MaxPool2d(2))
                side //= 2
            for width in stage:
                layers.append(nn.Conv2d(channels, width, 3, padding=padding))
                layers += [*normalisation(norm, width), nn.ReLU(inplace=True)]
                channels, padding = width, 1
        layers += [nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1)]
        super().__init__(nn.Sequential(*layers), channels, classes)
