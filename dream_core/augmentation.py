"""Differentiable siamese augmentation and CutMix.

Parameters are drawn first, as data, and applied after: the same draw serves the real and the synthetic images of a
class, whatever their numbers. Images are float [N, C, H, W], already normalised, so that the zeros that crop,
cutout, scale and rotate fill in are the dataset's mean colour. A draw holds one row of parameters per image, or one
row for all images of a batch (siamese). Gradients flow through every operator.

Source: DSA (Zhao & Bilen 2021), section 3.2; the composition of IDC (Kim et al. 2022).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

# ---------------------------------------------------------------- operators: images and parameters in, images out


def brightness(x: Tensor, u: Tensor) -> Tensor:
    """x + (u − 0.5); u in [0, 1), [n]."""
    return x + (_each(u) - 0.5)


def saturation(x: Tensor, u: Tensor) -> Tensor:
    """Distance of every pixel to its grey, times 2u."""
    grey = x.mean(1, keepdim=True)
    return (x - grey) * (_each(u) * 2) + grey


def contrast(x: Tensor, u: Tensor) -> Tensor:
    """Distance to the image's mean, times u + 0.5."""
    mean = x.mean((1, 2, 3), keepdim=True)
    return (x - mean) * (_each(u) + 0.5) + mean


def color(x: Tensor, u: Tensor) -> Tensor:
    """Brightness, saturation and contrast, each with its own u: [n, 3]."""
    return contrast(saturation(brightness(x, u[:, 0]), u[:, 1]), u[:, 2])


def crop(x: Tensor, shift: Tensor) -> Tensor:
    """Shift by whole pixels (down, right), zeros coming in: int64 [n, 2], up to an eighth of the side."""
    n, _, height, width = x.shape
    if len(shift) == 1:  # one shift for all: a slice instead of a gather
        down, right = (int(s) for s in shift[0])
        return F.pad(x, (max(right, 0), max(-right, 0), max(down, 0), max(-down, 0)))[
            ..., max(-down, 0) : max(-down, 0) + height, max(-right, 0) : max(-right, 0) + width
        ]
    reach = int(shift.abs().max())
    rows = torch.arange(height, device=x.device) + reach - shift[:, :1]
    columns = torch.arange(width, device=x.device) + reach - shift[:, 1:]
    padded = F.pad(x, (reach, reach, reach, reach))
    every = torch.arange(n, device=x.device)[:, None, None, None]
    channels = torch.arange(x.shape[1], device=x.device)[None, :, None, None]
    return padded[every, channels, rows[:, None, :, None], columns[:, None, None, :]]


def cutout(x: Tensor, centre: Tensor) -> Tensor:
    """Zero a square of half the side around `centre` (row, column), clipped at the border: int64 [n, 2]."""
    side = int(x.shape[2] * 0.5 + 0.5)

    def covered(position: Tensor, extent: int) -> Tensor:
        first = position - side // 2
        pixels = torch.arange(extent, device=x.device)
        return (pixels >= first[:, None]) & (pixels < first[:, None] + side)

    hole = covered(centre[:, 0], x.shape[2])[:, None, :, None] & covered(centre[:, 1], x.shape[3])[:, None, None, :]
    return x * ~hole


def flip(x: Tensor, mirrored: Tensor) -> Tensor:
    """Mirror left and right where `mirrored`: bool [n]."""
    return torch.where(_each(mirrored), x.flip(3), x)


def scale(x: Tensor, factors: Tensor) -> Tensor:
    """Sample the image at (sx, sy) times its coordinates, bilinear, zeros outside: [n, 2]."""
    theta = torch.zeros(len(factors), 2, 3, dtype=x.dtype, device=x.device)
    theta[:, 0, 0], theta[:, 1, 1] = factors[:, 0], factors[:, 1]
    return _affine(x, theta)


def rotate(x: Tensor, degrees: Tensor) -> Tensor:
    """Sample the image on a grid turned by an angle, bilinear, zeros outside: [n]."""
    angle = torch.deg2rad(degrees)
    theta = torch.zeros(len(angle), 2, 3, dtype=x.dtype, device=x.device)
    theta[:, 0, 0], theta[:, 0, 1] = torch.cos(angle), -torch.sin(angle)
    theta[:, 1, 0], theta[:, 1, 1] = torch.sin(angle), torch.cos(angle)
    return _affine(x, theta)


def _affine(x: Tensor, theta: Tensor) -> Tensor:
    grid = F.affine_grid(theta.expand(len(x), 2, 3), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)


def _each(parameter: Tensor) -> Tensor:
    return parameter.view(-1, 1, 1, 1)


# ---------------------------------------------------------------- draws: how many, how large, and from where


def _uniform(n: int, columns: int, generator: torch.Generator) -> Tensor:
    return torch.rand(n, columns, generator=generator)


def _draw_crop(n: int, size: int, generator: torch.Generator) -> Tensor:
    reach = int(size * 0.125 + 0.5)
    return torch.randint(-reach, reach + 1, (n, 2), generator=generator)


def _draw_cutout(n: int, size: int, generator: torch.Generator) -> Tensor:
    even = int(size * 0.5 + 0.5) % 2 == 0
    return torch.randint(0, size + even, (n, 2), generator=generator)


def _draw_scale(n: int, _: int, generator: torch.Generator) -> Tensor:
    return _uniform(n, 2, generator) * (1.2 - 1 / 1.2) + 1 / 1.2


def _draw_rotate(n: int, _: int, generator: torch.Generator) -> Tensor:
    return (_uniform(n, 1, generator)[:, 0] * 2 - 1) * 15


@dataclass(frozen=True)
class Operator:
    """An operator and how its parameters are drawn: `draw(n, size, generator)` gives n rows of them."""

    apply: Callable[[Tensor, Tensor], Tensor]
    draw: Callable[[int, int, torch.Generator], Tensor]


OPERATORS: dict[str, Operator] = {
    "color": Operator(color, lambda n, _, generator: _uniform(n, 3, generator)),
    "crop": Operator(crop, _draw_crop),
    "cutout": Operator(cutout, _draw_cutout),
    "flip": Operator(flip, lambda n, _, generator: _uniform(n, 1, generator)[:, 0] < 0.5),
    "scale": Operator(scale, _draw_scale),
    "rotate": Operator(rotate, _draw_rotate),
}

# ---------------------------------------------------------------- composition

Draw = list[tuple[str, Tensor]]
"""Operator names with their parameters, in the order of application."""


def draw_one(strategy: str, n: int, size: int, generator: torch.Generator) -> Draw:
    """Rule A, of DSA, DM and MTT: one operator of the strategy, drawn for the whole call, and nothing else."""
    names = [] if strategy == "none" else strategy.split("_")
    return _parameters([_pick(names, generator)] if names else [], n, size, generator)


def draw_stack(strategy: str, n: int, size: int, generator: torch.Generator) -> Draw:
    """Rule B, of IDC and DREAM: flip, color, one of the rest, cutout; each only where the strategy names it."""
    names = [] if strategy == "none" else strategy.split("_")
    rest = [name for name in names if name not in ("flip", "color", "cutout")]
    chosen = [name for name in ("flip", "color") if name in names]
    chosen += [_pick(rest, generator)] if rest else []
    chosen += ["cutout"] if "cutout" in names else []
    return _parameters(chosen, n, size, generator)


def augment(x: Tensor, draw: Draw) -> Tensor:
    """Apply a draw. Its parameters hold one row for each image of x, or one row for all."""
    for name, parameters in draw:
        dtype = x.dtype if parameters.is_floating_point() else parameters.dtype
        x = OPERATORS[name].apply(x, parameters.to(x.device, dtype))
    return x


def _pick(names: list[str], generator: torch.Generator) -> str:
    return names[int(torch.randint(len(names), (1,), generator=generator))]


def _parameters(names: list[str], n: int, size: int, generator: torch.Generator) -> Draw:
    return [(name, OPERATORS[name].draw(n, size, generator)) for name in names]


# ---------------------------------------------------------------- CutMix


@dataclass(frozen=True)
class CutMix:
    """One box for a whole minibatch, pasted from the batch permuted (Yun et al. 2019; p and λ ~ U(0, 1) as in IDC)."""

    order: Tensor
    top: int
    bottom: int
    left: int
    right: int
    size: int

    def paste(self, x: Tensor) -> Tensor:
        """The batch with every image's box replaced by that of its partner."""
        mixed = x.clone()
        mixed[..., self.top : self.bottom, self.left : self.right] = x[
            self.order.to(x.device), :, self.top : self.bottom, self.left : self.right
        ]
        return mixed

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy with both labels, weighed by the area that the clipped box left and took."""
        share = 1 - (self.bottom - self.top) * (self.right - self.left) / self.size**2
        partner = labels[self.order.to(labels.device)]
        return share * F.cross_entropy(logits, labels) + (1 - share) * F.cross_entropy(logits, partner)


def draw_cutmix(n: int, size: int, probability: float, generator: torch.Generator) -> CutMix | None:
    """A box of area 1 − λ with its centre anywhere, clipped to the image; or None with probability 1 − p."""
    if float(torch.rand(1, generator=generator)) >= probability:
        return None
    kept = float(torch.rand(1, generator=generator))
    half = int(size * (1 - kept) ** 0.5) // 2
    row, column = torch.randint(size, (2,), generator=generator).tolist()
    order = torch.randperm(n, generator=generator)
    clip = lambda position: min(max(position, 0), size)  # noqa: E731
    return CutMix(order, clip(row - half), clip(row + half), clip(column - half), clip(column + half), size)
