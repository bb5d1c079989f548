"""ZCA, SRe2L and two protocols of evaluation a second time: slow, plain, every random decision an argument.

Written from the papers and the published behaviour of their codes, not from `dream_core`, so that the two can be
held against each other. Use float64 and tiny images.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tests.dream_core.reference import cross_entropy, network_sgd
from tests.dream_core.reference_unrolled import Batch, adam, adam_start, batch_loss, leaves

# ---- ZCA


def fit_zca(images: Tensor, eps: float = 0.1, *, unbiased: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    """Mean [d], whitening matrix [d, d] and its inverse, from images [N, ...] in [0, 1].

    The covariance is over N - 1, or over N if not `unbiased`; eps is part of the inverse too.
    """
    rows = images.reshape(len(images), -1)
    mean = sum(rows) / len(rows)
    covariance = torch.zeros(rows.shape[1], rows.shape[1], dtype=rows.dtype)
    for row in rows:
        covariance += torch.outer(row - mean, row - mean)
    covariance /= len(rows) - 1 if unbiased else len(rows)
    eigenvalues, U = torch.linalg.eigh(covariance)
    W, W_inverse = torch.zeros_like(covariance), torch.zeros_like(covariance)
    for n, eigenvalue in enumerate(eigenvalues.tolist()):
        direction = torch.outer(U[:, n], U[:, n])
        W += direction / math.sqrt(eigenvalue + eps)
        W_inverse += direction * math.sqrt(eigenvalue + eps)
    return mean, W, W_inverse


def whiten(images: Tensor, mean: Tensor, W: Tensor) -> Tensor:
    return torch.stack([((image.reshape(-1) - mean) @ W).reshape(image.shape) for image in images])


def unwhiten(images: Tensor, mean: Tensor, W_inverse: Tensor) -> Tensor:
    return torch.stack([(image.reshape(-1) @ W_inverse + mean).reshape(image.shape) for image in images])


# ---- SRe2L: weights are a list [conv w, conv b, gamma, beta, running mean, running variance] for each block, then
# [linear w, linear b]


def bn_network(weights: Sequence[Tensor], images: Tensor) -> tuple[Tensor, list[Tensor]]:
    """In evaluation mode: the logits, and what goes into every batch norm."""
    x, inputs = images, []
    for block in range((len(weights) - 2) // 6):
        w, b, gamma, beta, mean, variance = weights[6 * block : 6 * block + 6]
        padding = 3 if block == 0 and images.shape[-1] == 28 else 1  # to 32 pixels
        x = torch.nn.functional.conv2d(x, w, b, padding=padding)
        inputs.append(x)
        x = (x - mean.reshape(1, -1, 1, 1)) / torch.sqrt(variance.reshape(1, -1, 1, 1) + 1e-5)
        x = x * gamma.reshape(1, -1, 1, 1) + beta.reshape(1, -1, 1, 1)
        x = torch.where(x > 0, x, torch.zeros_like(x))
        h, v = x.shape[2] // 2 * 2, x.shape[3] // 2 * 2
        x = (x[:, :, 0:h:2, 0:v:2] + x[:, :, 1:h:2, 0:v:2] + x[:, :, 0:h:2, 1:v:2] + x[:, :, 1:h:2, 1:v:2]) / 4
    return x.reshape(len(x), -1) @ weights[-2].T + weights[-1], inputs


def l2(x: Tensor) -> Tensor:
    return torch.sqrt((x**2).sum())


def recover_loss(
    x: Tensor, labels: list[int], weights: Sequence[Tensor], r_bn: float, first_multiplier: float = 10
) -> Tensor:
    """Cross-entropy, and how far the batch's statistics are from the running ones: lengths, not their squares."""
    scores, inputs = bn_network(weights, x)
    distance = torch.zeros((), dtype=x.dtype)
    for layer, seen in enumerate(inputs):
        running_mean, running_variance = weights[6 * layer + 4], weights[6 * layer + 5]
        mean = seen.mean((0, 2, 3))
        variance = ((seen - mean.reshape(1, -1, 1, 1)) ** 2).mean((0, 2, 3))
        multiplier = first_multiplier if layer == 0 else 1
        distance = distance + multiplier * (l2(mean - running_mean) + l2(variance - running_variance))
    return cross_entropy(scores, labels) + r_bn * distance


def roll(x: Tensor, down: int, right: int) -> Tensor:
    """What leaves on one side comes in on the other."""
    rows = [(i - down) % x.shape[-2] for i in range(x.shape[-2])]
    columns = [(j - right) % x.shape[-1] for j in range(x.shape[-1])]
    return x[..., rows, :][..., columns]


def clamp_channels(x: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """To what black and white are after normalisation."""
    return torch.stack([x[:, c].clamp(-mean[c] / std[c], (1 - mean[c]) / std[c]) for c in range(len(mean))], 1)


def recover(
    x: Tensor,
    labels: list[int],
    weights: Sequence[Tensor],
    shifts: list[tuple[int, int]],
    lr: float,
    iterations: int,
    r_bn: float,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    first_multiplier: float = 10,
) -> tuple[Tensor, list[float]]:
    """The last iterate, and every iteration's loss before its step. `shifts` are (down, right), of the whole batch."""
    state, losses = adam_start(x), []
    for i in range(iterations):
        (x,) = leaves([x])
        loss = recover_loss(roll(x, *shifts[i]), labels, weights, r_bn, first_multiplier)
        (gradient,) = torch.autograd.grad(loss, [x])
        rate = lr * 0.5 * (1 + math.cos(math.pi * i / iterations))
        x, state = adam(x.detach(), state, gradient, rate, betas=(0.5, 0.9), eps=1e-8)
        x = clamp_channels(x, mean, std)
        losses.append(loss.item())
    return x, losses


def kd_loss(student_logits: Tensor, teacher_logits: Tensor, temperature: float, squared: bool = False) -> Tensor:
    """KL(teacher || student) of the softened distributions, mean over the batch, times T² if `squared`."""
    total = torch.zeros((), dtype=student_logits.dtype)
    for student, teacher in zip(student_logits / temperature, teacher_logits / temperature, strict=True):
        log_student = student - torch.logsumexp(student, 0)
        log_teacher = teacher - torch.logsumexp(teacher, 0)
        total = total + (torch.exp(log_teacher) * (log_teacher - log_student)).sum()
    return total / len(student_logits) * (temperature**2 if squared else 1)


# ---- DC's evaluation


def dc_drop(epochs_plus_one: int) -> int:
    """The first epoch, counted from 0, at the lower rate."""
    return (epochs_plus_one - 1) // 2 + 1


def dc_learning_rates(epochs_plus_one: int, lr: float) -> list[float]:
    """One rate for each of the E + 1 epochs 0..E."""
    return [lr if epoch < dc_drop(epochs_plus_one) else lr * 0.1 for epoch in range(epochs_plus_one)]


def dc_train(
    weights: list[Tensor],
    images: Tensor,
    labels: list[int],
    epochs: list[list[Batch]],
    lr: float,
    momentum: float = 0.9,
    decay: float = 5e-4,
) -> list[Tensor]:
    """SGD by that schedule; the lower rate comes with a new optimiser, so without momentum."""
    weights = leaves(weights)
    velocity = [torch.zeros_like(w) for w in weights]
    rates = dc_learning_rates(len(epochs), lr)
    for epoch, (rate, batches) in enumerate(zip(rates, epochs, strict=True)):
        if epoch == dc_drop(len(epochs)):
            velocity = [torch.zeros_like(w) for w in weights]
        for batch in batches:
            loss = batch_loss(weights, images, labels, batch)
            weights, velocity = network_sgd(weights, velocity, loss, lr=rate, momentum=momentum, decay=decay)
    return [w.detach() for w in weights]
