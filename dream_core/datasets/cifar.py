"""CIFAR-10 and CIFAR-100: the pickles of the original archives, read without running what is in them.

A pickle can call any function of Python. Ours may build arrays of bytes or integers and nothing else, which is
all that the originals do: so subsets and copies, whose checksum differs from the published one, are safe to read.
"""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from dream_core.datasets.store import LabeledImages, sort_by_class
from dream_core.errors import DatasetInvalid

_TYPES = ("u1", "uint8", "i8", "int64")


def load_cifar10(folder: Path) -> tuple[LabeledImages, LabeledImages, tuple[str, ...]]:
    names = _names(folder / "batches.meta", "label_names")
    batches = [folder / f"data_batch_{n}" for n in range(1, 6)]
    return _split(batches, "labels", len(names)), _split([folder / "test_batch"], "labels", len(names)), names


def load_cifar100(folder: Path) -> tuple[LabeledImages, LabeledImages, tuple[str, ...]]:
    names = _names(folder / "meta", "fine_label_names")
    train, test = (_split([folder / split], "fine_labels", len(names)) for split in ("train", "test"))
    return train, test, names


def _names(path: Path, key: str) -> tuple[str, ...]:
    return tuple(str(name) for name in _entry(read_pickle(path), key, path))


def _split(paths: list[Path], label_key: str, classes: int) -> LabeledImages:
    contents = [(path, read_pickle(path)) for path in paths]
    images = [_images(_entry(content, "data", path), path) for path, content in contents]
    labels = [np.asarray(_entry(content, label_key, path), dtype=np.int64) for path, content in contents]
    return sort_by_class(np.concatenate(images), np.concatenate(labels), classes, str(paths[0].parent))


def _images(data: Any, path: Path) -> np.ndarray:
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3072:
        raise DatasetInvalid(f"{path}: expected rows of 3072 bytes, one image each")
    return data.reshape(-1, 3, 32, 32)


def _entry(content: Any, key: str, path: Path) -> Any:
    if not isinstance(content, dict) or key not in content:
        raise DatasetInvalid(f"{path} is not a CIFAR file: it has no {key!r}")
    return content[key]


def read_pickle(path: Path) -> Any:
    """The dict in a CIFAR file.

    Raises DatasetInvalid where the file is damaged, or wants anything but arrays, lists, dicts, numbers and strings.
    """
    try:
        return _ArraysOnly(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    except (
        pickle.UnpicklingError,
        EOFError,
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
        MemoryError,
    ) as error:
        raise DatasetInvalid(f"{path} cannot be read: {error}") from error


class _ArraysOnly(pickle.Unpickler):
    """Gives a pickle stand-ins that can make plain arrays, instead of the functions that it names."""

    def find_class(self, module: str, name: str) -> Any:
        stand_ins = {"_reconstruct": _empty_array, "ndarray": None, "dtype": _plain_type, "encode": _latin1}
        if module in ("numpy.core.multiarray", "numpy._core.multiarray", "numpy", "_codecs") and name in stand_ins:
            return stand_ins[name]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no CIFAR file needs; it was not run")


def _empty_array(*_: Any) -> np.ndarray:
    return np.empty(0, np.uint8)


def _plain_type(name: str, *_: Any) -> np.dtype:
    if name not in _TYPES:
        raise pickle.UnpicklingError(f"it holds an array of type {name!r}, expected bytes or integers")
    return np.dtype(name)


def _latin1(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it holds text in {encoding!r}")
    return text.encode("latin1")
