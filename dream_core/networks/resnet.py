"""Residual networks of basic blocks: DC's ResNet-18 and IDC's family, which differ in widths, stems and poolings."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from dream_core.networks.base import Network, can_halve, normalisation
from dream_core.networks.initialization import PYTORCH, Scheme


class ResNet(Network):
    """A stem, four stages of basic blocks, the last three at half the side of the one before, one linear layer.

    Args:
        channels, size: of the input, float [N, channels, size, size].
        classes: logits returned.
        norm: `instance` or `batch`.
        blocks: in each stage; 1 makes ResNet-10, 2 makes ResNet-18.
        width: of the first stage; every further one has twice as many.
        halving: `stride` halves by strided convolutions, `average` by average pooling behind unstrided ones.
        stem: `small` is one 3x3 convolution whatever the size; `sized` also shrinks images over 64 pixels.
        head: `average` gives 8 · width features; `flatten` gives as many for every pixel of the last stage.
        scheme: how the weights are drawn.

    Source: He et al. 2016 in its form for CIFAR. DC (Zhao et al. 2021) has width 64 and flattens where it pools by
    averages; IDC (Kim et al. 2022) has width 32 for CIFAR, and 64 with a `sized` stem for the rest.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        size: int,
        norm: str,
        blocks: int,
        width: int = 64,
        halving: Literal["stride", "average"] = "stride",
        stem: Literal["small", "sized"] = "small",
        head: Literal["average", "flatten"] = "average",
        scheme: Scheme = PYTORCH,
    ):
        layers = _stem(channels, width, size if stem == "sized" else 0, norm, halving)
        inputs, side = width, size  # where the stem shrinks, more pixels are left than the stages can use up
        for stage in range(4):
            outputs = width * 2**stage
            halve = stage > 0 and can_halve(side)
            for block in range(blocks):
                layers.append(Block(inputs, outputs, norm, halving if halve and block == 0 else None))
                inputs = outputs
            if halve:
                side = side // 2 if halving == "average" else -(-side // 2)
        if head == "average":
            layers.append(nn.AdaptiveAvgPool2d(1))
            side = 1
        super().__init__(nn.Sequential(*layers), inputs * side * side, classes, scheme)


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut, at half the side if `halving` says how."""

    def __init__(self, inputs: int, outputs: int, norm: str, halving: Literal["stride", "average"] | None):
        super().__init__()
        stride = 2 if halving == "stride" else 1
        pool = [nn.AvgPool2d(2)] if halving == "average" else []
        self.residual = nn.Sequential(
            _convolution(inputs, outputs, 3, stride),
            *normalisation(norm, outputs),
            nn.ReLU(inplace=True),
            *pool,
            _convolution(outputs, outputs, 3),
            *normalisation(norm, outputs),
        )
        self.shortcut = nn.Sequential()
        if halving or inputs != outputs:
            projection = _convolution(inputs, outputs, 1, stride)
            self.shortcut = nn.Sequential(projection, *pool, *normalisation(norm, outputs))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.residual(x) + self.shortcut(x))


def _stem(channels: int, width: int, size: int, norm: str, halving: str) -> list[nn.Module]:
    """Up to a size of 64 a 3x3 convolution alone, up to 128 one with a pooling, above that a 7x7 one with a pooling."""
    large, average = size > 128, halving == "average"
    layers: list[nn.Module] = [
        _convolution(channels, width, 7 if large else 3, stride=2 if large and not average else 1),
        *normalisation(norm, width),
        nn.ReLU(inplace=True),
    ]
    if size > 64:
        layers.append(nn.AvgPool2d(4 if large else 2) if average else nn.MaxPool2d(3, stride=2, padding=1))
    return layers


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
