"""DC, DSA, DM, DREAM+ and the coresets written a second time: slow, plain, every random decision an argument.

Written from the papers and the published behaviour of their codes, not from `dream_core`, so that the two can be
held against each other. One image and one row at a time, explicit sums; use float64 and tiny images.

DC, DSA and DM keep their synthetic images normalised and never clamp them; DREAM+ keeps them in [0, 1].
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tests.dream_core.reference import (
    DECODERS,
    Draw,
    Match,
    Minibatch,
    Settings,
    Trace,
    augment,
    cross_entropy,
    features,
    image_sgd,
    kmeans_lloyd,
    logits,
    match_distance,
    network_sgd,
    network_step,
    normalize,
)
from tests.dream_core.reference import Inner as RealInner

PUBLISHED_LOOPS = {1: (1, 1), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10)}
"""DC's table: images per class to image steps per network and epochs of the network after each but the last."""


# ---- DC's distances between two lists of gradients


def dc_distance(real: list[Tensor], synthetic: list[Tensor]) -> Tensor:
    """One minus cosine for every output row of every tensor of two or more dimensions; the others count nothing."""
    total = torch.zeros((), dtype=real[0].dtype)
    for a, b in zip(real, synthetic, strict=True):
        if a.dim() < 2:
            continue
        for row_a, row_b in zip(a, b, strict=True):  # O x I, O x (I k k), or C x (h w)
            product = (row_a.flatten() * row_b.flatten()).sum()
            total = total + 1 - product / (row_a.flatten().norm() * row_b.flatten().norm() + 1e-6)
    return total


def dc_mse(real: list[Tensor], synthetic: list[Tensor]) -> Tensor:
    """Sum of squares over everything, biases and norms too."""
    total = torch.zeros((), dtype=real[0].dtype)
    for a, b in zip(real, synthetic, strict=True):
        total = total + ((a - b) ** 2).sum()
    return total


def dc_cos(real: list[Tensor], synthetic: list[Tensor]) -> Tensor:
    """One minus the cosine of everything in one vector, biases and norms too."""
    a = torch.cat([g.flatten() for g in real])
    b = torch.cat([g.flatten() for g in synthetic])
    return 1 - (a * b).sum() / (a.norm() * b.norm() + 1e-6)


DC_METRICS = {"ours": dc_distance, "mse": dc_mse, "cos": dc_cos}


# ---- DC and DSA


@dataclass
class SyntheticBatch:
    """What chance decides for one step of the network on synthetic images."""

    images: list[int]
    """Positions among all synthetic images, in the order of S."""
    draws: list[Draw] | None = None
    """One augmentation per image; None without augmentation (DC)."""


Epoch = list[SyntheticBatch]


@dataclass
class Inner:
    matches: list[Match]
    """One per class, in order; an empty `draw` is DC, a draw of one operator DSA. `subsample` is not used."""
    epochs: list[Epoch] = field(default_factory=list)
    """Training of the network on S after the image step; none after the last inner iteration, and none in DM."""


@dataclass
class Outer:
    weights: list[Tensor]
    """A fresh network."""
    inner: list[Inner]


@dataclass
class CondenseSettings:
    ipc: int
    lr_img: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    metric: str = "ours"
    momentum_img: float = 0.5
    lr_net: float = 0.01
    momentum_net: float = 0.0
    decay_net: float = 0.0
    batch_norm: bool = False
    """For `distribution_match` alone: the network has batch norm, all classes go through it together."""


def siamese_batches(
    S: Tensor, images: Tensor, labels: list[int], matches: list[Match], settings: CondenseSettings
) -> list[tuple[Tensor, Tensor]]:
    """For every class the real and the synthetic batch, normalised, under one augmentation."""
    batches = []
    for c, match in enumerate(matches):
        of_class = [i for i, label in enumerate(labels) if label == c]
        real = normalize(images[[of_class[i] for i in match.real]], settings.mean, settings.std)
        synthetic = S[c * settings.ipc : (c + 1) * settings.ipc]
        batches.append(
            (
                torch.stack([augment(image, match.draw) for image in real]),
                torch.stack([augment(image, match.draw) for image in synthetic]),
            )
        )
    return batches


def condense_losses(
    S: Tensor,
    images: Tensor,
    labels: list[int],
    weights: list[Tensor],
    matches: list[Match],
    settings: CondenseSettings,
    scores: Callable[[Sequence[Tensor], Tensor], Tensor] = logits,
) -> list[Tensor]:
    """Every class's distance between the real and the synthetic gradient; `scores` is the network."""
    losses = []
    for c, (real, synthetic) in enumerate(siamese_batches(S, images, labels, matches, settings)):
        loss_real = cross_entropy(scores(weights, real), [c] * len(real))
        g_real = [g.detach() for g in torch.autograd.grad(loss_real, weights)]
        loss_synthetic = cross_entropy(scores(weights, synthetic), [c] * len(synthetic))
        g_synthetic = torch.autograd.grad(loss_synthetic, weights, create_graph=True)
        losses.append(DC_METRICS[settings.metric](g_real, list(g_synthetic)))
    return losses


def train_on_synthetic(
    weights: list[Tensor], velocity: list[Tensor], S: Tensor, epoch: Epoch, settings: CondenseSettings
) -> tuple[list[Tensor], list[Tensor]]:
    """One epoch of the network on the synthetic images as they are now."""
    for batch in epoch:
        draws: list[Draw] = [[]] * len(batch.images) if batch.draws is None else batch.draws
        inputs = torch.stack([augment(S[i].detach(), draw) for i, draw in zip(batch.images, draws, strict=True)])
        loss = cross_entropy(logits(weights, inputs), [i // settings.ipc for i in batch.images])
        weights, velocity = network_sgd(
            weights, velocity, loss, lr=settings.lr_net, momentum=settings.momentum_net, decay=settings.decay_net
        )
    return weights, velocity


def condense(
    S: Tensor, images: Tensor, labels: list[int], plan: list[Outer], settings: CondenseSettings
) -> tuple[Tensor, Trace]:
    """Run DC or DSA. S is [classes · ipc, C, H, W], normalised, sorted by class; images are real, in [0, 1]."""
    velocity, trace = torch.zeros_like(S), Trace()
    for outer in plan:
        weights = [w.detach().clone().requires_grad_() for w in outer.weights]
        net_velocity = [torch.zeros_like(w) for w in weights]
        for inner in outer.inner:
            variable = S.clone().requires_grad_()
            losses = condense_losses(variable, images, labels, weights, inner.matches, settings)
            (gradient,) = torch.autograd.grad(torch.stack(losses).sum(), [variable])
            S, velocity = image_sgd(S, velocity, gradient, settings.lr_img, settings.momentum_img)
            for epoch in inner.epochs:
                weights, net_velocity = train_on_synthetic(weights, net_velocity, S, epoch, settings)
            trace.images.append(S)
            trace.weights.append([w.detach() for w in weights])
            trace.losses.append([loss.item() for loss in losses])
    return S, trace


# ---- a network with batch norm: weights as in `reference`, statistics (mean, variance) for each block

Statistics = list[tuple[Tensor, Tensor]]


def bn_pass(weights: Sequence[Tensor], x: Tensor, statistics: Statistics | None) -> tuple[Tensor, Statistics]:
    """The features of images normalised with the given statistics, or, with None, with those of the batch itself;
    and the mean and UNBIASED variance of what every normalisation was given."""
    seen, size = [], x.shape[-1]
    for block in range((len(weights) - 2) // 4):
        w, b, gamma, beta = weights[4 * block : 4 * block + 4]
        x = torch.nn.functional.conv2d(x, w, b, padding=3 if block == 0 and size == 28 else 1)
        n = x.shape[0] * x.shape[2] * x.shape[3]
        batch_mean = x.sum((0, 2, 3)) / n
        squares = ((x - batch_mean.reshape(1, -1, 1, 1)) ** 2).sum((0, 2, 3))
        seen.append((batch_mean, squares / (n - 1)))
        mean, variance = (batch_mean, squares / n) if statistics is None else statistics[block]
        x = (x - mean.reshape(1, -1, 1, 1)) / torch.sqrt(variance.reshape(1, -1, 1, 1) + 1e-5)
        x = x * gamma.reshape(1, -1, 1, 1) + beta.reshape(1, -1, 1, 1)
        x = torch.where(x > 0, x, torch.zeros_like(x))
        h, v = x.shape[2] // 2 * 2, x.shape[3] // 2 * 2
        x = (x[:, :, 0:h:2, 0:v:2] + x[:, :, 1:h:2, 0:v:2] + x[:, :, 0:h:2, 1:v:2] + x[:, :, 1:h:2, 1:v:2]) / 4
    return x.reshape(len(x), -1), seen


def bn_features(weights: Sequence[Tensor], x: Tensor, statistics: Statistics | None) -> Tensor:
    """Statistics as given (a network in evaluation), or of the batch (None: a network in training)."""
    return bn_pass(weights, x, statistics)[0]


def bn_logits(weights: Sequence[Tensor], x: Tensor, statistics: Statistics | None) -> Tensor:
    return bn_features(weights, x, statistics) @ weights[-2].T + weights[-1]


def bn_statistics(
    weights: Sequence[Tensor], images: Tensor, momentum: float = 0.1, running: Statistics | None = None
) -> Statistics:
    """Running statistics after one pass of normalised images in training mode; before it `running`, or 0 and 1.

    DC passes 16 real images of every class, then uses the result as constants for the matching.
    """
    result = []
    for block, (mean, variance) in enumerate(bn_pass(weights, images, None)[1]):
        old_mean, old_variance = (torch.zeros_like(mean), torch.ones_like(mean)) if running is None else running[block]
        new_mean = (1 - momentum) * old_mean + momentum * mean
        new_variance = (1 - momentum) * old_variance + momentum * variance
        result.append((new_mean.detach(), new_variance.detach()))
    return result


# ---- DM


def dm_losses(weights: Sequence[Tensor], batches: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
    """Every class's squared distance between mean features, one class's images at a time."""
    losses = []
    for real, synthetic in batches:
        target = (features(weights, real).sum(0) / len(real)).detach()
        losses.append(((target - features(weights, synthetic).sum(0) / len(synthetic)) ** 2).sum())
    return losses


def dm_bn_losses(weights: Sequence[Tensor], batches: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
    """The same with batch norm: the real images of all classes in one pass, the synthetic ones in another."""
    all_real = bn_features(weights, torch.cat([real for real, _ in batches]), None).detach()
    all_synthetic = bn_features(weights, torch.cat([synthetic for _, synthetic in batches]), None)
    losses, r, s = [], 0, 0
    for real, synthetic in batches:
        target = all_real[r : r + len(real)].sum(0) / len(real)
        losses.append(((target - all_synthetic[s : s + len(synthetic)].sum(0) / len(synthetic)) ** 2).sum())
        r, s = r + len(real), s + len(synthetic)
    return losses


def distribution_match(
    S: Tensor, images: Tensor, labels: list[int], plan: list[Outer], settings: CondenseSettings
) -> tuple[Tensor, Trace]:
    """Run DM: one inner iteration for every network, none is trained. S and images as in `condense`."""
    velocity, trace = torch.zeros_like(S), Trace()
    for outer in plan:
        (inner,) = outer.inner
        weights = [w.detach() for w in outer.weights]
        variable = S.clone().requires_grad_()
        batches = siamese_batches(variable, images, labels, inner.matches, settings)
        losses = (dm_bn_losses if settings.batch_norm else dm_losses)(weights, batches)
        (gradient,) = torch.autograd.grad(torch.stack(losses).sum(), [variable])
        S, velocity = image_sgd(S, velocity, gradient, settings.lr_img, settings.momentum_img)
        trace.images.append(S)
        trace.weights.append(weights)
        trace.losses.append([loss.item() for loss in losses])
    return S, trace


# ---- DREAM+


@dataclass
class PlusOuter:
    weights: list[Tensor]
    """A fresh network."""
    inner: list[RealInner]
    warmup: list[Minibatch] = field(default_factory=list)
    """Steps of the network on real images before the first inner iteration."""


def feature_distance(metric: str, real: Tensor, synthetic: Tensor) -> Tensor:
    """Summed over the dimensions of two vectors, never averaged."""
    if metric == "mse":
        return ((real - synthetic) ** 2).sum()
    if metric == "l1":
        return (real - synthetic).abs().sum()
    raise ValueError(metric)


def plus_loss(
    S: Tensor, c: int, of_class: Tensor, weights: list[Tensor], match: Match, *, settings: Settings
) -> Tensor:
    """One class's loss: mean features and gradients of the convolutions, in one metric, weighted alike."""
    decoded = DECODERS[settings.formation](S[c * settings.ipc : (c + 1) * settings.ipc], settings.factor)
    if match.subsample is not None:
        decoded = decoded[match.subsample]
    means, gradients = [], []
    for images in (of_class[match.real], decoded):
        normalized = normalize(images, settings.mean, settings.std)
        embedded = features(weights, torch.stack([augment(image, match.draw) for image in normalized]))
        loss = cross_entropy(embedded @ weights[-2].T + weights[-1], [c] * len(images))
        means.append(embedded.sum(0) / len(images))
        gradients.append(list(torch.autograd.grad(loss, weights, create_graph=True)))
    target, wanted = means[0].detach(), [g.detach() for g in gradients[0]]
    return feature_distance(settings.metric, target, means[1]) + match_distance(settings.metric, wanted, gradients[1])


def dream_plus(
    S: Tensor, images: Tensor, labels: list[int], plan: list[PlusOuter], settings: Settings
) -> tuple[Tensor, Trace]:
    """Run DREAM+. S is [classes · ipc, C, H, H] in [0, 1], sorted by class; images are real, in [0, 1]."""
    positions = {c: [i for i, label in enumerate(labels) if label == c] for c in sorted(set(labels))}
    velocity, trace = torch.zeros_like(S), Trace()
    for outer in plan:
        weights = [w.detach().clone().requires_grad_() for w in outer.weights]
        net_velocity = [torch.zeros_like(w) for w in weights]
        for batch in outer.warmup:
            weights, net_velocity = network_step(weights, net_velocity, images, labels, batch, settings=settings)
        S = S.clamp(0, 1)
        for inner in outer.inner:
            losses = []
            for c, match in enumerate(inner.matches):
                variable = S.clone().requires_grad_()
                loss = plus_loss(variable, c, images[positions[c]], weights, match, settings=settings)
                (gradient,) = torch.autograd.grad(loss, [variable])
                S, velocity = image_sgd(S, velocity, gradient, settings.lr_img, settings.momentum_img)
                losses.append(loss.item())
            for batch in inner.minibatches:
                weights, net_velocity = network_step(weights, net_velocity, images, labels, batch, settings=settings)
            trace.images.append(S)
            trace.weights.append([w.detach() for w in weights])
            trace.losses.append(losses)
    return S, trace


# ---- coresets: the features E [n, d] of one class


def herding(E: Tensor, k: int) -> list[int]:
    """Each pick brings the mean of the picks closest to the mean of all; no row twice, of equals the first."""
    mean = E.sum(0) / len(E)
    chosen: list[int] = []
    for _ in range(k):
        distances = {}
        for i in range(len(E)):
            if i not in chosen:
                of_chosen = torch.stack([E[j] for j in [*chosen, i]]).sum(0) / (len(chosen) + 1)
                distances[i] = float(((of_chosen - mean) ** 2).sum())
        chosen.append(min(distances, key=lambda i: distances[i]))
    return chosen


def k_center(E: Tensor, k: int, first: int) -> list[int]:
    """Each pick is the row farthest from the nearest of the picks; no row twice, of equals the first."""
    chosen = [first]
    while len(chosen) < k:
        nearest = {}
        for i in range(len(E)):
            if i not in chosen:
                nearest[i] = min(float(((E[i] - E[j]) ** 2).sum()) for j in chosen)
        chosen.append(max(nearest, key=lambda i: nearest[i]))
    return chosen


def kmeans_representatives(E: Tensor, start: list[int], k: int) -> list[int]:
    """For every centre, in order, the nearest row of all that is not taken yet."""
    assert len(start) == k
    picks: list[int] = []
    for center in kmeans_lloyd(E, start):
        distances = {i: float(((row - center) ** 2).sum()) for i, row in enumerate(E) if i not in picks}
        picks.append(min(distances, key=lambda i: distances[i]))
    return picks
