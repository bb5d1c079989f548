"""`SyntheticSet`: the images that are learned, and how each stored image decodes to several (multi-formation).

Source: IDC (Kim et al. 2022), section 3; its code for the order of cells and the treatment of sizes that do not divide.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from dream_core.images import Transform

BOUND = 128
"""Most decoded images per class under the formation `bound`."""


class SyntheticSet:
    """`ipc` stored images for each class, ordered by class.

    Attributes:
        images: float [classes · ipc, C, H, W]; the pixels as they are learned, a leaf that gradients are taken of by
            class. In [0, 1], or in the space that `space` maps to (normalised, whitened), where they are not bounded.
        labels: int64 [classes · ipc].
        bounded: whether the method keeps pixels in [0, 1].
    """

    def __init__(
        self,
        images: Tensor,
        classes: int,
        ipc: int,
        factor: int = 1,
        formation: str = "single",
        space: Transform | None = None,
        bounded: bool | None = None,
    ):
        self.images, self.classes, self.ipc, self.factor, self.formation = images, classes, ipc, factor, formation
        self.space, self.bounded = space, space is None if bounded is None else bounded
        self.labels = torch.arange(classes).repeat_interleave(ipc)

    def of_class(self, label: int) -> Tensor:
        """The stored images of a class: a view [ipc, C, H, W]."""
        return self.images[label * self.ipc : (label + 1) * self.ipc]

    def decode(self, stored: Tensor) -> Tensor:
        """Training images [M, C, H, W] that stored images [n, C, H, W] stand for; M = n · factor² for `single`."""
        return decode(stored, self.factor, self.formation)

    @torch.no_grad()
    def pixels(self) -> Tensor:
        """The stored images as they are published: mapped back from their space, and clamped where they are bounded."""
        pixels = self.space.inverse(self.images) if self.space else self.images
        return pixels.clamp(0, 1) if self.bounded else pixels.clone()

    @torch.no_grad()
    def decoded(self) -> tuple[Tensor, Tensor]:
        """All training images as pixels, and their labels: float [M, C, H, W], int64 [M], by class."""
        pixels = self.pixels()
        images = [self.decode(pixels[label * self.ipc : (label + 1) * self.ipc]) for label in range(self.classes)]
        labels = torch.arange(self.classes).repeat_interleave(len(images[0]))
        return torch.cat(images), labels


# ---------------------------------------------------------------- formation


def decode(stored: Tensor, factor: int, formation: str = "single") -> Tensor:
    """Decode by formation: `single` at one factor, `multi` at every factor up to it, `bound` at most 128 in all."""
    match formation:
        case "single":
            return decode_single(stored, factor)
        case "multi":
            return torch.cat([decode_single(stored, f) for f in range(1, factor + 1)])
        case "bound":
            return _decode_bound(stored, factor)
    raise ValueError(f"unknown formation {formation!r}")


def decode_single(stored: Tensor, factor: int) -> Tensor:
    """Cut each image [n, C, H, H] into factor x factor cells and enlarge each to H x H, bilinear.

    Returns [n · factor², C, H, H]: the first cell of all images, then the second of all, row by row. Sides that
    the factor does not divide are padded right and bottom with 0.5.
    """
    if factor == 1:
        return stored
    side = stored.shape[-1]
    cell = -(-side // factor)
    missing = cell * factor - side
    padded = F.pad(stored, (0, missing, 0, missing), value=0.5)
    cells = [
        padded[..., row : row + cell, column : column + cell]
        for row in range(0, cell * factor, cell)
        for column in range(0, cell * factor, cell)
    ]
    return F.interpolate(torch.cat(cells), size=(side, side), mode="bilinear", align_corners=False)


def _decode_bound(stored: Tensor, factor: int) -> Tensor:
    """As many images as possible at the full factor, the rest at smaller ones, together at most BOUND."""
    parts, room = [], BOUND - len(stored)  # room beyond the one place that every image has in any case
    for f in range(factor, 0, -1):
        count = len(stored) if f == 1 else min(len(stored), max(room, 0) // (f * f - 1))
        parts.append(decode_single(stored[:count], f))
        stored, room = stored[count:], room - count * (f * f - 1)
    return torch.cat(parts)


# ---------------------------------------------------------------- initialisation


def noise(n: int, shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Grey noise: N(0.5, 1/16) clamped to [0, 1], float [n, C, H, W]."""
    return (torch.randn(n, *shape, generator=generator) / 4 + 0.5).clamp(0, 1)


def tile(images: Tensor, factor: int) -> Tensor:
    """Shrink images [n · factor², C, H, H] into the cells of n images: [n, C, H, H].

    Cell k holds images k·n .. (k+1)·n − 1, shrunk by nearest neighbour. Where the factor does not divide the side,
    the first cells of a row or column are one pixel larger (so 28 pixels at factor 3 are 10, 9 and 9).
    """
    if factor == 1:
        return images.clone()
    side, n = images.shape[-1], len(images) // factor**2
    edges = [0]
    for cell in range(factor):
        edges.append(edges[-1] + side // factor + (cell < side % factor))
    tiled = torch.empty_like(images[:n])
    for k in range(factor**2):
        rows = slice(edges[k // factor], edges[k // factor + 1])
        columns = slice(edges[k % factor], edges[k % factor + 1])
        cell = tiled[..., rows, columns]
        cell.copy_(F.interpolate(images[k * n : (k + 1) * n], size=cell.shape[-2:]))
    return tiled
