"""What "matching" means: distances between the gradients, the mean features, or both, of real and synthetic images.

Source: DC (Zhao et al. 2021), section 3.3; DM (Zhao & Bilen 2023), section 3.2; IDC (Kim et al. 2022), section 4;
DREAM+ (Liu et al. 2023b); their codes.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from dream_core.networks import Network

Tensors = list[Tensor]


def squared(real: Tensor, synthetic: Tensor) -> Tensor:
    """Sum (not mean) of squared differences."""
    return (real - synthetic).square().sum()


def absolute(real: Tensor, synthetic: Tensor) -> Tensor:
    """Sum (not mean) of absolute differences."""
    return (real - synthetic).abs().sum()


def mean_absolute(real: Tensor, synthetic: Tensor) -> Tensor:
    """Sum over outputs of the mean absolute difference of their weights' gradients."""
    return (real - synthetic).abs().reshape(len(real), -1).mean(1).sum()


def cosine(real: Tensor, synthetic: Tensor) -> Tensor:
    """Sum over outputs of one minus the cosine of their weights' gradients. Vectors (biases, norms) do not count."""
    if real.dim() < 2:
        return synthetic.new_zeros(())
    a, b = real.flatten(1), synthetic.flatten(1)
    return (1 - (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1) + 1e-6)).sum()


def summed(distance: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensors, Tensors], Tensor]:
    """A distance of tensors as one of lists of tensors."""
    return lambda real, synthetic: torch.stack([distance(a, b) for a, b in zip(real, synthetic, strict=True)]).sum()


def cosine_of_all(real: Tensors, synthetic: Tensors) -> Tensor:
    """One minus the cosine of everything in one vector."""
    a, b = (torch.cat([tensor.flatten() for tensor in tensors]) for tensors in (real, synthetic))
    return 1 - (a * b).sum() / (a.norm() * b.norm() + 1e-6)


DISTANCES: dict[str, Callable[[Tensors, Tensors], Tensor]] = {
    "mse": summed(squared),
    "l1": summed(absolute),
    "l1_mean": summed(mean_absolute),
    "cosine": summed(cosine),
    "cosine_all": cosine_of_all,
}

LEAST_DIMENSIONS = {"convolutions": 3, "matrices": 2, "all": 1}
"""Of the weights whose gradients are matched: no linear layer for IDC, no bias and no norm for DC."""


class Matching:
    """Distance of what a network says of real and of synthetic images of one class.

    Losses are mean cross-entropies and features are means, so batches of different size compare. Only the synthetic
    side keeps a graph, and only back to its pixels.

    Args:
        objective: `gradient` compares the gradients of the loss, `feature` the mean of `network.embed`, `both` both.
        metric: a name of DISTANCES.
        matched: a name of LEAST_DIMENSIONS.
    """

    def __init__(self, network: Network, objective: str, metric: str, matched: str):
        self.network = network
        self.features, self.gradients = objective != "gradient", objective != "feature"
        self.weights = [weight for weight in network.parameters() if weight.dim() >= LEAST_DIMENSIONS[matched]]
        self.distance = DISTANCES[metric]

    def loss(self, real: Tensor, synthetic: Tensor, label: int) -> Tensor:
        """Match two batches of one class: network inputs [N, C, H, W] and [M, C, H, W]; a scalar."""
        target = self.describe(real, label, keep_graph=False)
        matched = self.describe(synthetic, label, keep_graph=True)
        return self.distance(target, matched)

    def loss_together(self, real: Tensors, synthetic: Tensors) -> Tensors:
        """Match the mean features of every class, all classes in one batch: what batch normalisation wants."""
        with torch.no_grad():
            target = self.network.embed(torch.cat(real)).split([len(images) for images in real])
        matched = self.network.embed(torch.cat(synthetic)).split([len(images) for images in synthetic])
        return [self.distance([_mean(a)], [_mean(b)]) for a, b in zip(target, matched, strict=True)]

    def describe(self, images: Tensor, label: int, keep_graph: bool) -> Tensors:
        """What is compared of a batch of one class: mean feature, gradients of the matched weights, or both."""
        with torch.set_grad_enabled(keep_graph or self.gradients):
            features = self.network.embed(images)
            found = [_mean(features) if keep_graph else _mean(features.detach())] if self.features else []
            if self.gradients:
                labels = torch.full((len(images),), label, dtype=torch.int64, device=images.device)
                loss = F.cross_entropy(self.network.classifier(features), labels)
                found += torch.autograd.grad(loss, self.weights, create_graph=keep_graph)
        return found


def _mean(features: Tensor) -> Tensor:
    """The mean feature as one row, which the row-wise distances take for one output."""
    return features.mean(0, keepdim=True)
