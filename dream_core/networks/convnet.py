"""ConvNet-D, the network that nearly all of dataset distillation is done with."""

from torch import nn

from dream_core.networks.base import Network, normalisation, padded

ACTIVATIONS = {
    "relu": lambda: nn.ReLU(inplace=True),
    "sigmoid": nn.Sigmoid,
    "leaky_relu": lambda: nn.LeakyReLU(0.01),
    "swish": nn.SiLU,
}
POOLINGS = {"average": nn.AvgPool2d, "max": nn.MaxPool2d}


class ConvNet(Network):
    """`depth` blocks of 3x3 convolution, normalisation, activation and 2x2 pooling, then one linear layer.

    Images of 28 pixels are padded to 32 by the first convolution, as in all codes of the field. Features:
    width · side², 2048 for 28 and 32 pixels at depth 3.

    Args:
        channels, size: of the input, float [N, channels, size, size].
        classes: logits returned.
        depth, width: blocks, and filters in each.
        norm: `instance` is GroupNorm with one channel a group and learned scale and shift, not nn.InstanceNorm2d;
            `group` has 4 groups; `layer` normalises channels and pixels together; `batch`; `none`.
        activation: `relu`, `sigmoid`, `leaky_relu` (slope 0.01) or `swish`.
        pooling: `average`, `max` or `none`.

    Source: DC (Zhao et al. 2021), appendix; the default of DSA, DM, MTT, IDC and DREAM.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        size: int,
        depth: int = 3,
        width: int = 128,
        norm: str = "instance",
        activation: str = "relu",
        pooling: str = "average",
    ):
        side, padding = padded(size, 1)
        layers: list[nn.Module] = []
        for block in range(depth):
            first = block == 0
            layers.append(nn.Conv2d(channels if first else width, width, 3, padding=padding if first else 1))
            layers += [nn.LayerNorm([width, side, side])] if norm == "layer" else normalisation(norm, width)
            layers.append(ACTIVATIONS[activation]())
            if pooling != "none":
                layers.append(POOLINGS[pooling](2))
                side //= 2
        super().__init__(nn.Sequential(*layers), width * side * side, classes)
