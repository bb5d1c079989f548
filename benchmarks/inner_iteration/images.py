"""The images that are measured on."""

from pathlib import Path

import torch

from dream_core.catalog import DatasetFacts, find_dataset
from dream_core.datasets import Dataset, LabeledImages, load_dataset
from dream_core.datasets.store import from_counts
from dream_core.errors import DatasetMissing


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
    generator = torch.Generator().manual_seed(0)
    train, test = (_noise(facts, count, generator) for count in (facts.train, facts.classes))
    names = tuple(str(label) for label in range(facts.classes))
    return Dataset(name, train, test, names, facts.mean, facts.std, "none", ""), "random pixels of the same shape"


def _noise(facts: DatasetFacts, count: int, generator: torch.Generator) -> LabeledImages:
    of_class = count // facts.classes
    shape = (of_class * facts.classes, facts.channels, facts.size, facts.size)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    return from_counts(pixels, [of_class] * facts.classes)
