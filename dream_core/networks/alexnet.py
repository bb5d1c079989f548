"""AlexNet cut down to small images, in the two versions that distillation knows."""

import torch.nn.functional as F
from torch import Tensor, nn

from dream_core.networks.base import Network, normalisation, padded
from dream_core.networks.initialization import XAVIER


class AlexNet(Network):
    """Five convolutions, three poolings, one linear layer. Features: 192 · (size/8)², 3072 for 28 and 32 pixels.

    `norm` follows every convolution: `instance`, `batch`, or `none` as it is in the original.

    Source: DC (Zhao et al. 2021), its cross-architecture table.
    """

    def __init__(self, channels: int, classes: int, size: int, norm: str = "instance"):
        def convolution(inputs: int, outputs: int, kernel: int, padding: int) -> list[nn.Module]:
            layer = nn.Conv2d(inputs, outputs, kernel, padding=padding)
            return [layer, *normalisation(norm, outputs), nn.ReLU(inplace=True)]

        side, padding = padded(size, 2)
        features = nn.Sequential(
            *convolution(channels, 128, 5, padding),
            nn.MaxPool2d(2),
            *convolution(128, 192, 5, 2),
            nn.MaxPool2d(2),
            *convolution(192, 256, 3, 1),
            *convolution(256, 192, 3, 1),
            *convolution(192, 192, 3, 1),
            nn.MaxPool2d(2),
        )
        super().__init__(features, 192 * (side // 8) ** 2, classes)


class AlexCifarNet(Network):
    """Two convolutions with overlapping poolings and local response normalisation, three linear layers. Features: 192.

    Source: DD (Wang et al. 2018), its network for CIFAR-10; weights start Xavier-normal, biases at 0.
    """

    def __init__(self, channels: int, classes: int, size: int):
        side = -(-size // 4)
        features = nn.Sequential(
            nn.Conv2d(channels, 64, 5, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, padding=1),
            LocalResponseNorm(),
            nn.Conv2d(64, 64, 5, padding=2),
            nn.ReLU(inplace=True),
            LocalResponseNorm(),
            nn.MaxPool2d(3, stride=2, padding=1),
            nn.Flatten(),
            nn.Linear(64 * side * side, 384),
            nn.ReLU(inplace=True),
            nn.Linear(384, 192),
            nn.ReLU(inplace=True),
        )
        super().__init__(features, 192, classes, XAVIER)


class LocalResponseNorm(nn.Module):
    """Divides by (1 + α · mean of 4 neighbouring channels' squares)^0.75, α = 0.001/9."""

    def forward(self, x: Tensor) -> Tensor:
        # PyTorch's takes views that channels-last tensors do not have
        return F.local_response_norm(x.contiguous(), 4, alpha=0.001 / 9, beta=0.75, k=1)
