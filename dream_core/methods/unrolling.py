"""Gradients through a network's own training steps, with the memory of one step (DD, MTT).

A network takes plain gradient steps on synthetic images: θ_k = θ_{k−1} − η_k ∇_θ loss(S_k; θ_{k−1}). `unroll` walks
forward and keeps the θ's alone; `backward` walks back and does every step once more, this time with its graph, for one
product with the step's second derivatives. The gradients are those of the whole unrolled graph.

Source: DD (Wang et al. 2018), section 3.4; the recomputation is ours.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

Parameters = list[Tensor]
Batch = Callable[[], tuple[Tensor, Tensor, Tensor]]
"""The synthetic images of a step, as a leaf; what the network is shown of them, with its graph to the leaf; labels."""


class Unroller:
    """Runs a network's training steps on parameters that it is given."""

    def __init__(self, network: nn.Module):
        self.network, self.names = network, [name for name, _ in network.named_parameters()]

    def loss(self, parameters: Sequence[Tensor], inputs: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy of network inputs under these parameters."""
        named = dict(zip(self.names, parameters, strict=True))
        return F.cross_entropy(functional_call(self.network, named, (inputs,)), labels)

    def unroll(self, start: Sequence[Tensor], steps: Sequence[Batch], rates: Sequence[float]) -> list[Parameters]:
        """The parameters before the first step and after each: K + 1 lists."""
        path = [[p.detach() for p in start]]
        for batch, rate in zip(steps, rates, strict=True):
            leaves = [p.requires_grad_() for p in path[-1]]
            _, inputs, labels = batch()
            gradients = torch.autograd.grad(self.loss(leaves, inputs.detach(), labels), leaves)
            path.append([(p - rate * g).detach() for p, g in zip(leaves, gradients, strict=True)])
        return path

    def backward(
        self, path: list[Parameters], steps: Sequence[Batch], rates: Sequence[float], final: Sequence[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Gradients of a loss with respect to every step's images and every step's rate.

        `final` is the loss's gradient with respect to the last parameters of `path`.
        """
        images: list[Tensor] = []
        of_rates: list[Tensor] = []
        adjoint = list(final)
        for k in reversed(range(len(steps))):
            leaf, inputs, labels = steps[k]()
            parameters = [p.requires_grad_() for p in path[k]]
            gradients = torch.autograd.grad(self.loss(parameters, inputs, labels), parameters, create_graph=True)
            of_rates.append(-sum_of_products(adjoint, [g.detach() for g in gradients]))
            weighted = [-rates[k] * a for a in adjoint]
            *second, of_leaf = torch.autograd.grad(gradients, [*parameters, leaf], weighted)
            images.append(of_leaf)
            adjoint = [a + s for a, s in zip(adjoint, second, strict=True)]
        return images[::-1], of_rates[::-1]


def sum_of_products(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """The inner product of two lists of tensors."""
    return torch.stack([(x * y).sum() for x, y in zip(a, b, strict=True)]).sum()
