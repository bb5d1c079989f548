"""Datasets in memory as bytes sorted by class: `load_dataset`."""

from pathlib import Path

from dream_core.catalog import find_dataset
from dream_core.datasets.builtin import LOADERS, fetch
from dream_core.datasets.store import (
    Dataset,
    LabeledImages,
    channel_statistics,
    fingerprint,
    random_of_each,
    require_every_class,
)
from dream_core.datasets.tree import load_folder
from dream_core.errors import DatasetInvalid, DatasetMissing
from dream_core.inventory import find

__all__ = ["Dataset", "LabeledImages", "load_dataset", "random_of_each"]

_FOLDER_SIZE = 32


def load_dataset(
    dataset: str,
    data_dir: Path,
    image_size: int | None = None,
    download: bool = False,
) -> Dataset:
    """Read a built-in dataset, or `folder:PATH` (relative to `data_dir` unless absolute).

    `image_size` is the side that images of a folder are brought to, 32 when None; a built-in dataset has its own.
    Files are fetched from the internet only with `download`. Mean and deviation are the catalog's, and for a folder
    those of its training images.

    Raises DatasetMissing, naming the files wanted and where to put them; DatasetInvalid where the files are there
    but wrong; InvalidRecipe for an unknown name.
    """
    facts = find_dataset(dataset)
    if facts and image_size not in (None, facts.size):
        raise DatasetInvalid(
            f"{dataset} has images of {facts.size} pixels, not {image_size}; only folder:PATH can be resized"
        )
    found = find(dataset, data_dir)
    if facts and download and not found.available:
        fetch(dataset, data_dir)
        found = find(dataset, data_dir)
    if not found.available:
        raise DatasetMissing(found.advice)
    if facts is None:
        assert found.path is not None
        train, test, names = load_folder(found.path, image_size or _FOLDER_SIZE)
        mean, std = channel_statistics(train.images)
    else:
        train, test, names = LOADERS[dataset](found.path or data_dir)
        mean, std = facts.mean, facts.std
    for split, images in (("training", train), ("test", test)):
        require_every_class(dataset, split, images, names)
    licence = facts.licence if facts else "not stated"
    return Dataset(dataset, train, test, names, mean, std, licence, fingerprint(train, test))
