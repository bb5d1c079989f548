"""What all networks share: features, then one linear layer; and the choice of normalisation."""

import torch
from torch import Tensor, nn

from dream_core.networks.initialization import PYTORCH, Scheme


class Network(nn.Module):
    """Features and a linear classifier.

    Args:
        features: images float [N, C, H, W] to anything that flattens to [N, width].
        width: features of one image.
        classes: logits returned.
        scheme: how `initialize` draws the weights by default.
    """

    def __init__(self, features: nn.Module, width: int, classes: int, scheme: Scheme = PYTORCH):
        super().__init__()
        self.features = features
        self.classifier = nn.Linear(width, classes)
        self.scheme = scheme

    def embed(self, x: Tensor) -> Tensor:
        """Features φ(x) before the classifier: [N, width]."""
        return self.features(x).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, classes]."""
        return self.classifier(self.embed(x))


class GroupNorm(nn.GroupNorm):
    """PyTorch's, but around its kernel for channels-last bfloat16 on CPUs: that takes longer than two copies and the
    kernel for channels-first."""

    def forward(self, input: Tensor) -> Tensor:
        """The same as PyTorch's: [N, C, H, W] to [N, C, H, W]."""
        if input.dtype is torch.bfloat16 and input.device.type == "cpu" and not torch.compiler.is_compiling():
            return super().forward(input.contiguous()).contiguous(memory_format=torch.channels_last)
        return super().forward(input)


def normalisation(norm: str, width: int) -> list[nn.Module]:
    """The layers that normalise `width` channels: one, or none.

    `instance` is GroupNorm with one channel a group and learned scale and shift, not nn.InstanceNorm2d.
    """
    match norm:
        case "instance":
            return [GroupNorm(width, width)]
        case "group":
            return [GroupNorm(4, width)]
        case "batch":
            return [nn.BatchNorm2d(width)]
        case "none":
            return []
        case _:
            raise ValueError(f"there is no normalisation {norm!r}")


def padded(size: int, padding: int) -> tuple[int, int]:
    """Side of the images and padding of the first convolution: that one pads 28 pixels to 32, in all codes of the
    field."""
    return (32, padding + 2) if size == 28 else (size, padding)


def can_halve(side: int) -> bool:
    """Whether half the side still is two pixels: of one pixel a channel, normalisation would leave nothing.

    Networks made for 32 pixels leave out the halvings that smaller images cannot take.
    """
    return side >= 4
