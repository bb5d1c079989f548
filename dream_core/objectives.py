"""What "matching" means: the distance between the gradients of real and of synthetic images.

Source: DC (Zhao et al. 2021), section 3.3; IDC (Kim et al. 2022), section 4 and its code.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def squared(real: Tensor, synthetic: Tensor) -> Tensor:
    """Sum (not mean) of squared differences."""
    return (real - synthetic).square().sum()


def absolute(real: Tensor, synthetic: Tensor) -> Tensor:
    """Sum (not mean) of absolute differences."""
    return (real - synthetic).abs().sum()


def cosine(real: Tensor, synthetic: Tensor) -> Tensor:
    """Sum over output channels of one minus the cosine of their weights' gradients."""
    a, b = real.flatten(1), synthetic.flatten(1)
    return (1 - (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1) + 1e-6)).sum()


DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"mse": squared, "l1": absolute, "cosine": cosine}


class GradientMatching:
    """Distance of the loss gradients of convolution weights; linear layers, biases and norms do not count.

    Both losses are mean cross-entropies, so batches of different size compare. Only the synthetic side keeps a
    graph, and only back to its pixels.
    """

    def __init__(self, network: nn.Module, metric: str):
        self.network = network
        self.weights = [weight for weight in network.parameters() if weight.dim() > 2]
        self.distance = DISTANCES[metric]

    def loss(self, real: Tensor, synthetic: Tensor, label: int) -> Tensor:
        """Match two batches of one class: normalised, augmented float [N, C, H, W] and [M, C, H, W]; a scalar."""
        target = self._gradients(real, label, keep_graph=False)
        matched = self._gradients(synthetic, label, keep_graph=True)
        return torch.stack([self.distance(a, b) for a, b in zip(target, matched, strict=True)]).sum()

    def _gradients(self, images: Tensor, label: int, keep_graph: bool) -> tuple[Tensor, ...]:
        labels = torch.full((len(images),), label, dtype=torch.int64, device=images.device)
        loss = F.cross_entropy(self.network(images), labels)
        return torch.autograd.grad(loss, self.weights, create_graph=keep_graph)
