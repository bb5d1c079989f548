"""What a loaded dataset is: one block of bytes per split, sorted by class."""

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dream_core.errors import DatasetInvalid
from dream_core.randomness import stream


@dataclass(frozen=True, eq=False, slots=True)
class LabeledImages:
    """Images of one split, class by class.

    `images` is uint8 [N, C, H, W] and contiguous, `labels` int64 [N] and ascending. Class `c` is
    `images[offsets[c] : offsets[c + 1]]`, in the order of the dataset. Conversion to float is the caller's.
    """

    images: Tensor
    labels: Tensor
    offsets: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def classes(self) -> int:
        return len(self.offsets) - 1

    @property
    def counts(self) -> tuple[int, ...]:
        """Images of each class. They may differ: nothing is cut to the smallest."""
        return tuple(end - start for start, end in zip(self.offsets, self.offsets[1:], strict=False))

    def of_class(self, c: int) -> Tensor:
        """All images of class `c`, a view."""
        return self.images[self.offsets[c] : self.offsets[c + 1]]


@dataclass(frozen=True, eq=False, slots=True)
class Dataset:
    """A dataset in memory. `mean` and `std` normalise images in [0, 1], one number per channel.

    `fingerprint` is the SHA-256, in hexadecimal, of the shapes, images and labels of both splits.
    """

    name: str
    train: LabeledImages
    test: LabeledImages
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    licence: str
    fingerprint: str


def random_of_each(images: LabeledImages, count: int, seed: int, *key: str | int) -> Tensor:
    """Indices of `count` random images of each class, class by class, or of all where there are fewer: int64 [M].

    Class `c` is drawn from the stream `(*key, c)`.
    """
    drawn = [
        images.offsets[c] + torch.randperm(size, generator=stream(seed, *key, c))[:count]
        for c, size in enumerate(images.counts)
    ]
    return torch.cat(drawn)


def from_counts(images: Tensor, counts: list[int]) -> LabeledImages:
    """Images that are already sorted by class, `counts[c]` of class `c`."""
    offsets = [0, *np.cumsum(counts).tolist()]
    return LabeledImages(images, torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)), tuple(offsets))


def sort_by_class(images: np.ndarray, labels: np.ndarray, classes: int, where: str) -> LabeledImages:
    """Sort uint8 images [N, C, H, W] by label, stably.

    Raises DatasetInvalid, naming `where`, when labels are out of range or not as many as the images.
    """
    labels = np.asarray(labels)
    if images.dtype != np.uint8 or images.ndim != 4 or labels.shape != (len(images),):
        raise DatasetInvalid(
            f"{where}: {labels.size} labels do not fit images of shape {images.shape} and type {images.dtype}"
        )
    if labels.size and not (labels.min() >= 0 and labels.max() < classes):
        raise DatasetInvalid(f"{where}: labels go from {labels.min()} to {labels.max()}, expected 0 to {classes - 1}")
    order = np.argsort(labels, kind="stable")
    return from_counts(
        torch.from_numpy(np.ascontiguousarray(images[order])), np.bincount(labels, minlength=classes).tolist()
    )


def require_every_class(name: str, split: str, images: LabeledImages, class_names: tuple[str, ...]) -> None:
    """Raise DatasetInvalid where a class has no images."""
    empty = [class_names[c] for c, count in enumerate(images.counts) if count == 0]
    if empty:
        raise DatasetInvalid(f"{name}: no {split} images of class {', '.join(empty[:8])}")


def fingerprint(*splits: LabeledImages) -> str:
    """SHA-256 of shapes, images and labels."""
    digest = hashlib.sha256()
    for split in splits:
        digest.update(repr(tuple(split.images.shape)).encode())
        digest.update(split.images.numpy())  # type: ignore[arg-type]
        digest.update(split.labels.numpy())  # type: ignore[arg-type]
    return digest.hexdigest()


def channel_statistics(images: Tensor, chunk: int = 1024) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel on the scale [0, 1], exact: taken from counts of the 256 values.

    A channel without contrast gets the deviation of one grey level, so that it can be divided by.
    """
    counts = torch.zeros(images.shape[1], 256, dtype=torch.float64)
    for part in images.split(chunk):
        for channel in range(len(counts)):
            counts[channel] += torch.bincount(part[:, channel].flatten(), minlength=256)
    values = torch.arange(256, dtype=torch.float64) / 255
    total = counts.sum(1)
    mean = counts @ values / total
    std = (counts * (values - mean[:, None]).square()).sum(1).div(total).sqrt().clamp_min(1 / 255)
    return tuple(mean.tolist()), tuple(std.tolist())
