"""IDC's and DREAM's loop written a second time: slow, plain, every random decision an argument.

Written from the papers and the published behaviour of their codes, not from `dream_core`, so that the two can be
held against each other. One image at a time, explicit sums, full `backward`; use float64 and tiny images.

An augmentation is a list of `(operator, parameters)`; a `Plan` holds all that chance decides in a run.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

Draw = list[tuple[str, tuple]]


# ---- augmentation of one normalised image [C, H, W]


def op_brightness(x: Tensor, u: float) -> Tensor:
    return x + (u - 0.5)


def op_saturation(x: Tensor, u: float) -> Tensor:
    grey = sum(x[c] for c in range(len(x))) / len(x)
    return torch.stack([(x[c] - grey) * (2 * u) + grey for c in range(len(x))])


def op_contrast(x: Tensor, u: float) -> Tensor:
    mean = x.sum() / x.numel()
    return (x - mean) * (u + 0.5) + mean


def op_color(x: Tensor, brightness: float, saturation: float, contrast: float) -> Tensor:
    return op_contrast(op_saturation(op_brightness(x, brightness), saturation), contrast)


def op_crop(x: Tensor, down: int, right: int) -> Tensor:
    """Shifted by whole pixels; what comes in is zero, the mean colour."""
    _, height, width = x.shape
    rows = []
    for i in range(height):
        for j in range(width):
            inside = 0 <= i - down < height and 0 <= j - right < width
            rows.append(x[:, i - down, j - right] if inside else torch.zeros_like(x[:, 0, 0]))
    return torch.stack(rows, 1).reshape(x.shape)


def crop_reach(size: int) -> int:
    return int(size * 0.125 + 0.5)


def op_cutout(x: Tensor, row: int, column: int) -> Tensor:
    """A zero square around (row, column), cut off at the border."""
    side = int(x.shape[-1] * 0.5 + 0.5)
    mask = torch.ones_like(x)
    for i in range(row - side // 2, row - side // 2 + side):
        for j in range(column - side // 2, column - side // 2 + side):
            if 0 <= i < x.shape[-2] and 0 <= j < x.shape[-1]:
                mask[:, i, j] = 0
    return x * mask


def op_flip(x: Tensor, flipped: bool) -> Tensor:
    return torch.stack([x[:, :, -1 - j] for j in range(x.shape[-1])], -1) if flipped else x


def op_scale(x: Tensor, sx: float, sy: float) -> Tensor:
    return _affine(x, sx, 0.0, 0.0, sy)


def op_rotate(x: Tensor, degrees: float) -> Tensor:
    angle = math.radians(degrees)
    return _affine(x, math.cos(angle), -math.sin(angle), math.sin(angle), math.cos(angle))


def _affine(x: Tensor, xx: float, xy: float, yx: float, yy: float) -> Tensor:
    """Output pixel (X, Y), on a scale where pixel edges are at -1 and 1, is read at (xx X + xy Y, yx X + yy Y)."""
    _, height, width = x.shape
    weights = torch.zeros(height * width, height * width, dtype=x.dtype)
    for i in range(height):
        for j in range(width):
            X, Y = (2 * j + 1) / width - 1, (2 * i + 1) / height - 1
            column = ((xx * X + xy * Y + 1) * width - 1) / 2
            row = ((yx * X + yy * Y + 1) * height - 1) / 2
            for r in (math.floor(row), math.floor(row) + 1):
                for c in (math.floor(column), math.floor(column) + 1):
                    if 0 <= r < height and 0 <= c < width:
                        weights[i * width + j, r * width + c] += (1 - abs(row - r)) * (1 - abs(column - c))
    return (x.reshape(len(x), -1) @ weights.T).reshape(x.shape)


_OPERATORS = {
    "color": op_color,
    "crop": op_crop,
    "cutout": op_cutout,
    "flip": op_flip,
    "scale": op_scale,
    "rotate": op_rotate,
}


def augment(x: Tensor, draw: Draw) -> Tensor:
    """One image through its operators, in the order drawn."""
    for name, parameters in draw:
        x = _OPERATORS[name](x, *parameters)
    return x


def normalize(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    channels = [(images[:, c] - mean[c]) / std[c] for c in range(len(mean))]
    return torch.stack(channels, 1)


def cutmix_box(lam: float, row: int, column: int, height: int, width: int) -> tuple[int, int, int, int]:
    """Top, bottom, left, right of a box with area 1 - lam around a centre, cut off at the border."""
    ratio = math.sqrt(1 - lam)
    half_h, half_w = int(height * ratio) // 2, int(width * ratio) // 2
    return max(row - half_h, 0), min(row + half_h, height), max(column - half_w, 0), min(column + half_w, width)


def cutmix(images: Tensor, order: list[int], box: tuple[int, int, int, int]) -> tuple[Tensor, float]:
    """Every image gets the box of the image that `order` gives it; and the share of the image that remains its own."""
    top, bottom, left, right = box
    mixed = []
    for n in range(len(images)):
        image = images[n].clone()
        image[:, top:bottom, left:right] = images[order[n], :, top:bottom, left:right]
        mixed.append(image)
    area = (bottom - top) * (right - left)
    return torch.stack(mixed), 1 - area / (images.shape[-1] * images.shape[-2])


# ---- multi-formation


def resize_bilinear(x: Tensor, size: int) -> Tensor:
    """[C, h, w] to [C, size, size], pixel centres at halves."""

    def weights(n: int) -> Tensor:
        matrix = torch.zeros(size, n, dtype=x.dtype)
        for i in range(size):
            source = max((i + 0.5) * n / size - 0.5, 0)
            low = min(math.floor(source), n - 1)
            high = min(low + 1, n - 1)
            matrix[i, low] += 1 - (source - low)
            matrix[i, high] += source - low
        return matrix

    return torch.stack([weights(x.shape[1]) @ channel @ weights(x.shape[2]).T for channel in x])


def decode_single(images: Tensor, factor: int) -> Tensor:
    """Stored images [n, C, H, H] to n · factor² images: all images' first patch, all images' second, and so on."""
    size = images.shape[-1]
    side = math.ceil(size / factor)
    padded = torch.full((*images.shape[:2], side * factor, side * factor), 0.5, dtype=images.dtype)
    padded[:, :, :size, :size] = images
    decoded = []
    for row in range(factor):
        for column in range(factor):
            for image in padded:
                patch = image[:, row * side : (row + 1) * side, column * side : (column + 1) * side]
                decoded.append(resize_bilinear(patch, size))
    return torch.stack(decoded)


def decode_multi(images: Tensor, factor: int) -> Tensor:
    return torch.cat([decode_single(images, k) for k in range(1, factor + 1)])


def decode_bound(images: Tensor, factor: int, bound: int = 128) -> Tensor:
    """As many images as possible at `factor`, then at the next smaller one, while all others fit as they are."""
    decoded, start, room = [], 0, bound
    for k in range(factor, 0, -1):
        left = len(images) - start
        n = left
        while k > 1 and n > 0 and n * k * k + (left - n) > room:
            n -= 1
        if n:
            decoded.append(decode_single(images[start : start + n], k))
        start, room = start + n, room - n * k * k
    return torch.cat(decoded)


DECODERS = {"single": decode_single, "multi": decode_multi, "bound": decode_bound}


def resize_nearest(x: Tensor, height: int, width: int) -> Tensor:
    rows = [math.floor(i * x.shape[1] / height) for i in range(height)]
    columns = [math.floor(j * x.shape[2] / width) for j in range(width)]
    return x[:, rows][:, :, columns]


def init_mix(images: Tensor, ipc: int, factor: int) -> Tensor:
    """ipc · factor² images to ipc grids: cell k of stored image i is image k · ipc + i, shrunk by nearest."""
    size = images.shape[-1]
    sides = [size // factor + (1 if n < size % factor else 0) for n in range(factor)]
    stored = torch.zeros(ipc, *images.shape[1:], dtype=images.dtype)
    for i in range(ipc):
        top = 0
        for row, height in enumerate(sides):
            left = 0
            for column, width in enumerate(sides):
                source = images[(row * factor + column) * ipc + i]
                stored[i, :, top : top + height, left : left + width] = resize_nearest(source, height, width)
                left += width
            top += height
    return stored


# ---- network: weights are a list [conv w, conv b, norm w, norm b] for each block, then [linear w, linear b]


def features(weights: Sequence[Tensor], images: Tensor) -> Tensor:
    x = images
    for block in range((len(weights) - 2) // 4):
        w, b, gamma, beta = weights[4 * block : 4 * block + 4]
        padding = 3 if block == 0 and images.shape[-1] == 28 else 1  # to 32 pixels
        x = torch.nn.functional.conv2d(x, w, b, padding=padding)
        mean = x.mean((2, 3), keepdim=True)
        variance = ((x - mean) ** 2).mean((2, 3), keepdim=True)
        x = (x - mean) / torch.sqrt(variance + 1e-5)
        x = x * gamma.reshape(1, -1, 1, 1) + beta.reshape(1, -1, 1, 1)
        x = torch.where(x > 0, x, torch.zeros_like(x))
        h, v = x.shape[2] // 2 * 2, x.shape[3] // 2 * 2
        x = (x[:, :, 0:h:2, 0:v:2] + x[:, :, 1:h:2, 0:v:2] + x[:, :, 0:h:2, 1:v:2] + x[:, :, 1:h:2, 1:v:2]) / 4
    return x.reshape(len(x), -1)


def logits(weights: Sequence[Tensor], images: Tensor) -> Tensor:
    return features(weights, images) @ weights[-2].T + weights[-1]


def cross_entropy(scores: Tensor, labels: list[int]) -> Tensor:
    """Mean over the batch."""
    total = torch.zeros((), dtype=scores.dtype)
    for row, label in zip(scores, labels, strict=True):
        total = total + torch.logsumexp(row, 0) - row[label]
    return total / len(labels)


def network_sgd(
    weights: list[Tensor], velocity: list[Tensor], loss: Tensor, *, lr: float, momentum: float, decay: float
) -> tuple[list[Tensor], list[Tensor]]:
    gradients = torch.autograd.grad(loss, weights)
    new_weights, new_velocity = [], []
    for w, v, g in zip(weights, velocity, gradients, strict=True):
        v = momentum * v + g + decay * w.detach()  # noqa: PLW2901
        new_velocity.append(v)
        new_weights.append((w.detach() - lr * v).requires_grad_())
    return new_weights, new_velocity


# ---- matching


def match_distance(metric: str, real: list[Tensor], synthetic: list[Tensor]) -> Tensor:
    """Sum over convolution weights (tensors of four dimensions) alone."""
    total = torch.zeros((), dtype=real[0].dtype)
    for a, b in zip(real, synthetic, strict=True):
        if a.dim() != 4:
            continue
        if metric == "mse":
            total = total + ((a - b) ** 2).sum()
        elif metric == "l1":
            total = total + (a - b).abs().sum()
        elif metric == "cosine":
            for row_a, row_b in zip(a.reshape(len(a), -1), b.reshape(len(b), -1), strict=True):
                total = total + 1 - (row_a * row_b).sum() / (row_a.norm() * row_b.norm() + 1e-6)
    return total


def image_sgd(S: Tensor, velocity: Tensor, gradient: Tensor, lr: float, momentum: float) -> tuple[Tensor, Tensor]:
    """One step of all stored images: those of other classes have gradient zero and move by their momentum."""
    velocity = momentum * velocity + gradient
    return S - lr * velocity, velocity


# ---- clustering


def kmeans_lloyd(E: Tensor, start: list[int], iterations: int = 100, tol: float = 1e-4) -> Tensor:
    """Lloyd from the rows `start`, as DREAM's code runs it: an empty cluster's centre becomes the zero vector."""
    centers = [E[i].clone() for i in start]
    for _ in range(iterations):
        members: list[list[int]] = [[] for _ in centers]
        for i in range(len(E)):
            distances = [float(((E[i] - center) ** 2).sum()) for center in centers]
            members[distances.index(min(distances))].append(i)
        moved = [torch.stack([E[i] for i in own]).mean(0) if own else torch.zeros_like(E[0]) for own in members]
        shift = sum(float(((a - b) ** 2).sum()) for a, b in zip(centers, moved, strict=True))
        centers = moved
        if shift <= tol:
            break
    return torch.stack(centers)


def nearest_representatives(E: Tensor, centers: Tensor) -> list[int]:
    """For every centre the nearest row of all: the official choice, in which rows may repeat."""
    picks = []
    for center in centers:
        distances = [float(((row - center) ** 2).sum()) for row in E]
        picks.append(distances.index(min(distances)))
    return picks


# ---- the loop


@dataclass
class Match:
    """What chance decides for one class in one inner iteration."""

    real: list[int]
    """Positions within the class."""
    draw: Draw
    """One augmentation for all images, real and synthetic."""
    subsample: list[int] | None = None
    """Decoded synthetic images that are matched; None for all, in order."""


@dataclass
class Minibatch:
    """What chance decides for one step of the network."""

    images: list[int]
    """Positions in the training set."""
    draws: list[Draw]
    """One augmentation per image."""
    mix: tuple[list[int], tuple[int, int, int, int]] | None = None
    """CutMix: order and box, or None."""


@dataclass
class Inner:
    matches: list[Match]
    minibatches: list[Minibatch]


@dataclass
class Outer:
    weights: list[Tensor]
    """A fresh network."""
    inner: list[Inner]


@dataclass
class Settings:
    ipc: int
    factor: int
    lr_img: float
    metric: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    formation: str = "single"
    momentum_img: float = 0.5
    lr_net: float = 0.01
    momentum_net: float = 0.9
    decay_net: float = 5e-4


@dataclass
class Trace:
    """What the loop leaves: after every inner iteration the images and the network, and every class's loss."""

    images: list[Tensor] = field(default_factory=list)
    weights: list[list[Tensor]] = field(default_factory=list)
    losses: list[list[float]] = field(default_factory=list)


def match_gradient(
    S: Tensor, c: int, of_class: Tensor, weights: list[Tensor], match: Match, *, settings: Settings
) -> tuple[Tensor, float]:
    """The gradient of one class's loss with respect to all stored images, and the loss."""
    S = S.clone().requires_grad_()
    decoded = DECODERS[settings.formation](S[c * settings.ipc : (c + 1) * settings.ipc], settings.factor)
    if match.subsample is not None:
        decoded = decoded[match.subsample]
    gradients = []
    for images, create_graph in ((of_class[match.real], False), (decoded, True)):
        normalized = normalize(images, settings.mean, settings.std)
        augmented = torch.stack([augment(image, match.draw) for image in normalized])
        loss = cross_entropy(logits(weights, augmented), [c] * len(images))
        found = torch.autograd.grad(loss, weights, create_graph=create_graph)
        gradients.append(list(found) if create_graph else [g.detach() for g in found])
    loss = match_distance(settings.metric, *gradients)
    loss.backward()
    assert S.grad is not None
    for weight in weights:  # backward went into the network too; nothing of it is used
        weight.grad = None
    return S.grad, loss.item()


def network_step(
    weights: list[Tensor],
    velocity: list[Tensor],
    images: Tensor,
    labels: list[int],
    batch: Minibatch,
    *,
    settings: Settings,
) -> tuple[list[Tensor], list[Tensor]]:
    normalized = normalize(images[batch.images], settings.mean, settings.std)
    inputs = torch.stack([augment(image, draw) for image, draw in zip(normalized, batch.draws, strict=True)])
    own = [labels[i] for i in batch.images]
    if batch.mix is None:
        loss = cross_entropy(logits(weights, inputs), own)
    else:
        order, box = batch.mix
        mixed, share = cutmix(inputs, order, box)
        scores = logits(weights, mixed)
        loss = share * cross_entropy(scores, own) + (1 - share) * cross_entropy(scores, [own[i] for i in order])
    return network_sgd(
        weights, velocity, loss, lr=settings.lr_net, momentum=settings.momentum_net, decay=settings.decay_net
    )


def distil(S: Tensor, images: Tensor, labels: list[int], plan: list[Outer], settings: Settings) -> tuple[Tensor, Trace]:
    """Run the plan. S is [classes · ipc, C, H, H], sorted by class; images are real, in [0, 1]."""
    positions = {c: [i for i, label in enumerate(labels) if label == c] for c in sorted(set(labels))}
    velocity, trace = torch.zeros_like(S), Trace()
    for outer in plan:
        weights = [w.detach().clone().requires_grad_() for w in outer.weights]
        net_velocity = [torch.zeros_like(w) for w in weights]
        S = S.clamp(0, 1)
        for inner in outer.inner:
            losses = []
            for c, match in enumerate(inner.matches):
                gradient, loss = match_gradient(S, c, images[positions[c]], weights, match, settings=settings)
                S, velocity = image_sgd(S, velocity, gradient, settings.lr_img, settings.momentum_img)
                losses.append(loss)
            for batch in inner.minibatches:
                weights, net_velocity = network_step(weights, net_velocity, images, labels, batch, settings=settings)
            trace.images.append(S)
            trace.weights.append([w.detach() for w in weights])
            trace.losses.append(losses)
    return S, trace
