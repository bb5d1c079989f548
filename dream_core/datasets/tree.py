"""Trees of image files: a user's own folder or zip, and Tiny ImageNet. Every file is decoded once."""

import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from dream_core.datasets.files import Files, FolderFiles, ZipFiles
from dream_core.datasets.store import LabeledImages, from_counts
from dream_core.errors import DatasetInvalid
from dream_core.inventory import TREE_EXPECTED
from dream_core.pictures import FORMATS, SUFFIXES, UNREADABLE, upright_rgb

Listing = dict[str, list[str]]
"""Class name -> names of its files, both sorted."""

_MAX_PIXELS = 2**26


def load_folder(path: Path, image_size: int) -> tuple[LabeledImages, LabeledImages, tuple[str, ...]]:
    """An ImageFolder tree, or a zip of one, in RGB: the shorter side brought to `image_size`, the centre kept.

    Raises DatasetInvalid, showing the tree expected and what was found, where it is not one.
    """
    files: Files = ZipFiles(path) if path.is_file() else FolderFiles(path)
    folders = files.folders()
    test_folder = "test" if "test" in folders else "val"
    if "train" not in folders or test_folder not in folders:
        raise DatasetInvalid(f"{files.where}: expected {TREE_EXPECTED}; found {files.found()}")
    train, test = _list_split(files, "train"), _list_split(files, test_folder)
    if train.keys() != test.keys():
        only_train, only_test = _some(train.keys() - test.keys()), _some(test.keys() - train.keys())
        raise DatasetInvalid(
            f"{files.where}: both splits must have the same classes; "
            f"only in train/: {only_train}; only in {test_folder}/: {only_test}"
        )
    if len(train) < 2:
        raise DatasetInvalid(
            f"{files.where}: expected {TREE_EXPECTED} with two classes at least; found {_some(set(train))}"
        )
    return decode(files, train, image_size), decode(files, test, image_size), tuple(train)


def load_tinyimagenet(folder: Path) -> tuple[LabeledImages, LabeledImages, tuple[str, ...]]:
    """Tiny ImageNet as its archive has it, `val/images` with a list of classes, or with `val` sorted into classes."""
    files = FolderFiles(folder)
    train = _group(name for name in files.names("train") if name.endswith(".JPEG"))
    annotations = folder / "val" / "val_annotations.txt"
    if annotations.is_file():
        val: Listing = {}
        for line in annotations.read_text().splitlines():
            name, wnid, *_ = [*line.split("\t"), "", ""]
            val.setdefault(wnid, []).append(f"val/images/{name}")
    else:
        val = _group(name for name in files.names("val") if name.endswith(".JPEG"))
    if not train or train.keys() != val.keys():
        raise DatasetInvalid(
            f"{folder}: train/ has {len(train)} classes and val/ {len(val)}; they must be the same, and some"
        )
    val = {wnid: val[wnid] for wnid in train}
    return decode(files, train, 64), decode(files, val, 64), _words(folder / "words.txt", list(train))


def _words(path: Path, wnids: list[str]) -> tuple[str, ...]:
    """The classes in words where the list of them is there and tells them apart, else by their WordNet numbers."""
    lines = path.read_text().splitlines() if path.is_file() else []
    words = {wnid: text.split(",")[0] for wnid, _, text in (line.partition("\t") for line in lines)}
    names = tuple(words.get(wnid) or wnid for wnid in wnids)
    return names if len(set(names)) == len(names) else tuple(wnids)


def _list_split(files: Files, split: str) -> Listing:
    names = files.names(split)
    for name in names:
        if name.count("/") != 2:
            raise DatasetInvalid(f"{files.where}: {name} lies where no image belongs; expected {TREE_EXPECTED}")
        if not name.lower().endswith(tuple(SUFFIXES)):
            raise DatasetInvalid(f"{files.where}: {name} is not named as a PNG, JPEG or WEBP; convert or remove it")
    listing = _group(names)
    empty = set(files.folders(split)) - listing.keys()
    if empty or not listing:
        places = ", ".join(f"{split}/{c}" for c in sorted(empty)[:8]) or f"{split}/"
        raise DatasetInvalid(f"{files.where}: no images in {places}; expected {TREE_EXPECTED}")
    return listing


def _group(names: Iterable[str]) -> Listing:
    listing: Listing = {}
    for name in names:
        listing.setdefault(name.split("/")[1], []).append(name)
    return dict(sorted(listing.items()))


def _some(names: set[str]) -> str:
    return ", ".join(sorted(names)[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "") or "nothing"


def decode(files: Files, listing: Listing, size: int) -> LabeledImages:
    """All images of a listing, uint8 [N, 3, size, size], decoded into one block."""
    names = [name for of_class in listing.values() for name in of_class]
    images = torch.empty(len(names), 3, size, size, dtype=torch.uint8)
    block = images.numpy()
    for position, name in enumerate(names):  # threads were measured: Python's lock makes them slower
        try:
            block[position] = to_pixels(files.read(name), size).transpose(2, 0, 1)
        except UNREADABLE as error:
            raise DatasetInvalid(f"{files.where}: {name} is not a readable PNG, JPEG or WEBP: {error}") from error
    return from_counts(images, [len(of_class) for of_class in listing.values()])


def to_pixels(data: bytes, size: int) -> np.ndarray:
    """One encoded image as uint8 [size, size, 3]: upright by its EXIF, RGB, antialiased, centred."""
    with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
        if opened.width * opened.height > _MAX_PIXELS:
            raise ValueError(f"{opened.width} x {opened.height} pixels are too many")
        opened.draft(None, (2 * size, 2 * size))  # lets JPEG skip detail that the resize would throw away
        image = upright_rgb(opened)
    return np.asarray(ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR))
