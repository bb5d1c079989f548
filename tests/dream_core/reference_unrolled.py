"""MTT and DD a second time: slow, plain, the whole unroll one graph, every random decision an argument.

Written from the papers and the published behaviour of their codes, not from `dream_core`, so that the two can be
held against each other. Use float64 and tiny images. All images are in the network's space (normalised or whitened)
and are never clamped. Weights are lists as in `reference`; every parameter takes part, biases and norms included.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tests.dream_core.reference import Draw, augment, cross_entropy, logits, network_sgd

Batch = tuple[list[int], list[Draw]]
"""Positions of the images, and one augmentation for each of them; an empty one leaves its image as it is."""


def softplus(raw: Tensor) -> Tensor:
    return torch.log1p(torch.exp(raw))


def softplus_inverse(rate: Tensor) -> Tensor:
    return torch.log(torch.expm1(rate))


def batch_loss(weights: Sequence[Tensor], images: Tensor, labels: list[int], batch: Batch) -> Tensor:
    positions, draws = batch
    inputs = torch.stack([augment(images[i], draw) for i, draw in zip(positions, draws, strict=True)])
    return cross_entropy(logits(weights, inputs), [labels[i] for i in positions])


def unrolled_step(weights: list[Tensor], loss: Tensor, rate: Tensor) -> list[Tensor]:
    """Plain gradient descent that stays in the graph."""
    gradients = torch.autograd.grad(loss, weights, create_graph=True)
    return [w - rate * g for w, g in zip(weights, gradients, strict=True)]


def leaves(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [t.detach().clone().requires_grad_() for t in tensors]


# ---- MTT


def train_expert(
    weights: list[Tensor],
    images: Tensor,
    labels: list[int],
    epochs: list[list[Batch]],
    lr: float,
    momentum: float = 0,
    decay: float = 0,
) -> list[list[Tensor]]:
    """All parameters before training and after every epoch; the momentum lives through all epochs."""
    weights = leaves(weights)
    velocity = [torch.zeros_like(w) for w in weights]
    snapshots = [[w.detach().clone() for w in weights]]
    for batches in epochs:
        for batch in batches:
            loss = batch_loss(weights, images, labels, batch)
            weights, velocity = network_sgd(weights, velocity, loss, lr=lr, momentum=momentum, decay=decay)
        snapshots.append([w.detach().clone() for w in weights])
    return snapshots


def squared_distance(a: list[Tensor], b: list[Tensor]) -> Tensor:
    total = torch.zeros((), dtype=a[0].dtype)
    for one, other in zip(a, b, strict=True):
        total = total + ((one - other) ** 2).sum()
    return total


def mtt_loss(
    S: Tensor, alpha: Tensor, start: list[Tensor], target: list[Tensor], minibatches: list[Batch], labels: list[int]
) -> Tensor:
    """How far from the expert's end the student ends, over how far the expert went: both as squared lengths."""
    student = leaves(start)
    for batch in minibatches:
        student = unrolled_step(student, batch_loss(student, S, labels, batch), alpha)
    return squared_distance(student, target) / squared_distance(start, target)


def mtt_step(
    S: Tensor, alpha: Tensor, start: list[Tensor], target: list[Tensor], minibatches: list[Batch], labels: list[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss, and its gradients with respect to the images and to the step size itself."""
    S, alpha = leaves([S, alpha])
    loss = mtt_loss(S, alpha, start, target, minibatches, labels)
    grad_S, grad_alpha = torch.autograd.grad(loss, [S, alpha])
    return loss.detach(), grad_S, grad_alpha


@dataclass
class MttIteration:
    start: list[Tensor]
    """The expert at the epoch drawn."""
    target: list[Tensor]
    """The same expert some epochs later."""
    minibatches: list[Batch]
    """One for each step of the student; positions in S."""


@dataclass
class MttTrace:
    """After every iteration the images and the raw step size; the loss is the one before that update."""

    images: list[Tensor] = field(default_factory=list)
    raws: list[Tensor] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)


def mtt(
    S: Tensor,
    raw: Tensor,
    plan: list[MttIteration],
    labels: list[int],
    lr_img: float,
    lr_lr: float,
    momentum: float = 0.5,
    positive: Callable[[Tensor], Tensor] = softplus,
) -> tuple[Tensor, Tensor, MttTrace]:
    """SGD with momentum on the images and on `raw`, a scalar of which `positive` makes the step size."""
    velocity_S, velocity_raw, trace = torch.zeros_like(S), torch.zeros_like(raw), MttTrace()
    for iteration in plan:
        S, raw = leaves([S, raw])
        loss = mtt_loss(S, positive(raw), iteration.start, iteration.target, iteration.minibatches, labels)
        grad_S, grad_raw = torch.autograd.grad(loss, [S, raw])
        velocity_S = momentum * velocity_S + grad_S
        velocity_raw = momentum * velocity_raw + grad_raw
        S = S.detach() - lr_img * velocity_S
        raw = raw.detach() - lr_lr * velocity_raw
        trace.images.append(S)
        trace.raws.append(raw)
        trace.losses.append(loss.item())
    return S, raw, trace


# ---- DD


def dd_step(
    S_steps: list[Tensor],
    raw: Tensor,
    weights: list[Tensor],
    order: list[int],
    labels: list[int],
    real_images: Tensor,
    real_labels: list[int],
) -> tuple[Tensor, list[Tensor], Tensor]:
    """The real batch's loss after all steps, and its gradients. Step k uses batch order[k] at rate softplus(raw[k])."""
    S_steps, (raw,), weights = leaves(S_steps), leaves([raw]), leaves(weights)
    rates = softplus(raw)
    for rate, k in zip(rates, order, strict=True):
        loss = cross_entropy(logits(weights, S_steps[k]), labels)
        weights = unrolled_step(weights, loss, rate)
    loss = cross_entropy(logits(weights, real_images), real_labels)
    *grads_S, grad_raw = torch.autograd.grad(loss, [*S_steps, raw], materialize_grads=True)
    return loss.detach(), grads_S, grad_raw


@dataclass
class AdamState:
    first: Tensor
    second: Tensor
    steps: int = 0


def adam(
    x: Tensor, state: AdamState, gradient: Tensor, lr: float, betas: tuple[float, float], eps: float
) -> tuple[Tensor, AdamState]:
    beta1, beta2 = betas
    steps = state.steps + 1
    first = beta1 * state.first + (1 - beta1) * gradient
    second = beta2 * state.second + (1 - beta2) * gradient**2
    unbiased_first = first / (1 - beta1**steps)
    unbiased_second = second / (1 - beta2**steps)
    return x - lr * unbiased_first / (torch.sqrt(unbiased_second) + eps), AdamState(first, second, steps)


def adam_start(x: Tensor) -> AdamState:
    return AdamState(torch.zeros_like(x), torch.zeros_like(x))


@dataclass
class DdIteration:
    networks: list[list[Tensor]]
    """Initial weights of every network; losses and gradients are averaged over them."""
    real_images: Tensor
    """As the network gets them, augmentation included."""
    real_labels: list[int]
    rate_factor: float = 1
    """What the schedule makes of the learning rate in this iteration."""


@dataclass
class DdTrace:
    """After every iteration all batches and raw rates; the loss is the one before that update."""

    images: list[list[Tensor]] = field(default_factory=list)
    raws: list[Tensor] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)


def dd(
    S_steps: list[Tensor],
    raw: Tensor,
    plan: list[DdIteration],
    labels: list[int],
    lr: float,
    betas: tuple[float, float] = (0.5, 0.999),
    eps: float = 1e-8,
    order: list[int] | None = None,
) -> tuple[list[Tensor], Tensor, DdTrace]:
    """Adam on the batches and on the raw rates. Without an `order` the batches take turns until every rate is used."""
    if order is None:
        order = [k % len(S_steps) for k in range(len(raw))]
    learnt = [*S_steps, raw]
    states, trace = [adam_start(x) for x in learnt], DdTrace()
    for iteration in plan:
        mean_loss, mean_gradients = 0.0, [torch.zeros_like(x) for x in learnt]
        for weights in iteration.networks:
            loss, grads_S, grad_raw = dd_step(
                learnt[:-1], learnt[-1], weights, order, labels, iteration.real_images, iteration.real_labels
            )
            share = 1 / len(iteration.networks)
            mean_loss += share * loss.item()
            mean_gradients = [a + share * g for a, g in zip(mean_gradients, [*grads_S, grad_raw], strict=True)]
        for n, gradient in enumerate(mean_gradients):
            learnt[n], states[n] = adam(learnt[n], states[n], gradient, lr * iteration.rate_factor, betas, eps)
        trace.images.append(learnt[:-1])
        trace.raws.append(learnt[-1])
        trace.losses.append(mean_loss)
    return learnt[:-1], learnt[-1], trace


def replay(
    S_steps: list[Tensor], rates: Sequence[float] | Tensor, weights: list[Tensor], order: list[int], labels: list[int]
) -> list[Tensor]:
    """Evaluation: exactly these steps of plain gradient descent, at rates that are positive already."""
    for rate, k in zip(rates, order, strict=True):
        weights = leaves(weights)
        gradients = torch.autograd.grad(cross_entropy(logits(weights, S_steps[k]), labels), weights)
        weights = [w.detach() - float(rate) * g for w, g in zip(weights, gradients, strict=True)]
    return [w.detach().clone() for w in weights]
