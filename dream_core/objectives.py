"""What "matching" means: distances between the gradients, the mean features, or both, of real and synthetic images.

Source: DC (Zhao et al. 2021), section 3.3; DM (Zhao & Bilen 2023), section 3.2; IDC (Kim et al. 2022), section 4;
DREAM+ (Liu et al. 2023b); their codes.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from dream_core.computing import PLAIN, Computing, embed
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
        computing: how.
    """

    def __init__(self, network: Network, objective: str, metric: str, matched: str, computing: Computing = PLAIN):
        self.network, self.computing = network, computing
        self.features, self.gradients = objective != "gradient", objective != "feature"
        self.weights = [weight for weight in network.parameters() if weight.dim() >= LEAST_DIMENSIONS[matched]]
        self.distance = DISTANCES[metric]

    def match(self, real: Tensor, synthetic: Tensor, label: int) -> tuple[Tensor, Tensor]:
        """Match two batches of one class: network inputs [N, C, H, W] and [M, C, H, W].

        Returns the loss, a scalar, and its gradient with respect to `synthetic`, both detached.
        """
        labels = torch.tensor(label, device=real.device)
        target = self.computing.run(Matching.target, self, real, labels)
        return self.computing.run(Matching.pull, self, synthetic, labels, target)

    def target(self, real: Tensor, label: Tensor) -> Tensors:
        """What synthetic images should look like to the network. `label` is int64 []."""
        return self.describe(real, label, keep_graph=False)

    def pull(self, synthetic: Tensor, label: Tensor, target: Tensors) -> tuple[Tensor, Tensor]:
        """The loss, and its gradient with respect to the pixels, both detached."""
        synthetic = synthetic.detach().requires_grad_()
        loss = self.loss(target, synthetic, label)
        (gradient,) = torch.autograd.grad(loss, synthetic)
        return loss.detach(), gradient

    def loss(self, target: Tensors, synthetic: Tensor, label: Tensor) -> Tensor:
        """How far synthetic images are from a target: a scalar."""
        return self.distance(target, self.describe(synthetic, label, keep_graph=True))

    def describe(self, images: Tensor, label: Tensor, keep_graph: bool) -> Tensors:
        """What is compared of a batch of one class: mean feature, gradients of the matched weights, or both."""
        with torch.set_grad_enabled(keep_graph or self.gradients):
            features = embed(self.network, images, self.computing.bfloat16)
            found = [_mean(features) if keep_graph else _mean(features.detach())] if self.features else []
            if self.gradients:
                loss = F.cross_entropy(self.network.classifier(features), label.expand(len(images)))
                found += torch.autograd.grad(loss, self.weights, create_graph=keep_graph)
        return found

    def loss_together(self, real: Tensors, synthetic: Tensors) -> Tensors:
        """Match the mean features of every class, all classes in one batch: what batch normalisation wants."""
        with torch.no_grad():
            target = self.network.embed(torch.cat(real)).split([len(images) for images in real])
        matched = self.network.embed(torch.cat(synthetic)).split([len(images) for images in synthetic])
        return [self.distance([_mean(a)], [_mean(b)]) for a, b in zip(target, matched, strict=True)]


def _mean(features: Tensor) -> Tensor:
    """The mean feature as one row, which the row-wise distances take for one output."""
    return features.mean(0, keepdim=True)
