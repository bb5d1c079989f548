"""ConvNet-D, the network that nearly all of dataset distillation is done with."""

from torch import Tensor, nn

ACTIVATIONS = {
    "relu": lambda: nn.ReLU(inplace=True),
    "sigmoid": nn.Sigmoid,
    "leaky_relu": lambda: nn.LeakyReLU(0.01),
    "swish": nn.SiLU,
}
POOLINGS = {"average": nn.AvgPool2d, "max": nn.MaxPool2d}


class ConvNet(nn.Module):
    """`depth` blocks of 3x3 convolution, normalisation, activation and 2x2 pooling, then one linear layer.

    Images of 28 pixels are padded to 32 by the first convolution, as in all codes of the field.

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
        super().__init__()
        side = 32 if size == 28 else size
        layers: list[nn.Module] = []
        for block in range(depth):
            padding = 3 if size == 28 and block == 0 else 1
            layers.append(nn.Conv2d(channels if block == 0 else width, width, kernel_size=3, padding=padding))
            layers += _normalisation(norm, width, side)
            layers.append(ACTIVATIONS[activation]())
            if pooling != "none":
                layers.append(POOLINGS[pooling](2))
                side //= 2
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(width * side * side, classes)

    def embed(self, x: Tensor) -> Tensor:
        """Features φ(x) before the classifier: [N, width · side²], 2048 for 28 and 32 pixels at depth 3."""
        return self.features(x).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, classes]."""
        return self.classifier(self.embed(x))


def _normalisation(norm: str, width: int, side: int) -> list[nn.Module]:
    match norm:
        case "instance":
            return [nn.GroupNorm(width, width)]
        case "group":
            return [nn.GroupNorm(4, width)]
        case "layer":
            return [nn.LayerNorm([width, side, side])]
        case "batch":
            return [nn.BatchNorm2d(width)]
        case _:
            return []
