"""The two oldest networks: a multilayer perceptron, and LeNet."""

from torch import nn

from dream_core.networks.base import Network, padded


class MLP(Network):
    """Two hidden layers of 128 units. Features: 128.

    Source: DC (Zhao et al. 2021), its cross-architecture table.
    """

    def __init__(self, channels: int, classes: int, size: int):
        hidden = 128
        features = nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels * size * size, hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, hidden),
            nn.ReLU(inplace=True),
        )
        super().__init__(features, hidden, classes)


class LeNet(Network):
    """Two 5x5 convolutions, each with a pooling, and three linear layers. Features: 84. 28 pixels are padded to 32.

    Source: LeCun et al. 1998, with rectifiers and max pooling as in DD and DC.
    """

    def __init__(self, channels: int, classes: int, size: int):
        side, padding = padded(size, 0)
        side = ((side - 4) // 2 - 4) // 2
        features = nn.Sequential(
            nn.Conv2d(channels, 6, 5, padding=padding),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(16 * side * side, 120),
            nn.ReLU(inplace=True),
            nn.Linear(120, 84),
            nn.ReLU(inplace=True),
        )
        super().__init__(features, 84, classes)
