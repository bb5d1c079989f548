"""Smaller datasets, for budgets of CPUs."""

from dataclasses import replace

import torch

from dream_core.datasets import Dataset
from dream_core.datasets.store import fingerprint, from_counts


def cut(dataset: Dataset, per_class: int) -> Dataset:
    """The dataset with the first training images of each class alone."""
    counts = [min(count, per_class) for count in dataset.train.counts]
    images = torch.cat([dataset.train.of_class(label)[:count] for label, count in enumerate(counts)])
    train = from_counts(images, counts)
    return replace(dataset, train=train, fingerprint=fingerprint(train, dataset.test))
