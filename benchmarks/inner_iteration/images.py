"""The images that are measured on."""

from pathlib import Path

import torch

from dream_core.catalog import DatasetFacts, find_dataset
from dream_core.datasets import Dataset, LabeledImages, load_dataset
from dream_core.datasets.store import from_counts
from dream_core.errors import DatasetMissing

_DRAWN = 50_000


def dataset_or_noise(name: str, data_dir: Path) -> tuple[Dataset, str]:
    """The dataset, and what its images are in words: random pixels where the files of a built-in one are not here.

    Raises DatasetMissing for a folder that is not there.
    """
    try:
        return load_dataset(name, data_dir), "its own images"
    except DatasetMissing:
        facts = find_dataset(name)
        if facts is None:
            raise
    return noise_dataset(facts), "random pixels of the same shape"


def noise_dataset(facts: DatasetFacts) -> Dataset:
    """Random pixels, as many images of each class, whatever the smallest has. After 50,000 the images come again."""
    generator = torch.Generator().manual_seed(0)
    train, test = (_noise(facts, count, generator) for count in (facts.train, facts.test))
    names = tuple(str(label) for label in range(facts.classes))
    return Dataset(facts.name, train, test, names, facts.mean, facts.std, "none", "")


def _noise(facts: DatasetFacts, count: int, generator: torch.Generator) -> LabeledImages:
    of_class = count // facts.classes
    count = of_class * facts.classes
    pixels = torch.empty(count, facts.channels, facts.size, facts.size, dtype=torch.uint8)
    drawn = pixels[:_DRAWN].random_(0, 256, generator=generator)
    for start in range(_DRAWN, count, _DRAWN):
        part = pixels[start : start + _DRAWN]
        part.copy_(drawn[: len(part)])
    return from_counts(pixels, [of_class] * facts.classes)
