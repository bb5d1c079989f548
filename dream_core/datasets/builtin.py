"""The built-in datasets: from files in torchvision's layouts (or scikit-learn's wheel) to sorted bytes.

torchvision takes seconds to import, so it is imported where it reads.
"""

from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import numpy as np

from dream_core.datasets.cifar import load_cifar10, load_cifar100
from dream_core.datasets.store import LabeledImages, sort_by_class
from dream_core.datasets.tree import load_tinyimagenet
from dream_core.errors import DatasetInvalid, DatasetMissing

Loaded = tuple[LabeledImages, LabeledImages, tuple[str, ...]]

_TINY_URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
_TINY_MD5 = "90528d7ca1a48142e341f4ef8d21d0de"


def _digits(_: Path) -> Loaded:
    """scikit-learn's copy of the UCI test set. Of each class every fifth image, in file order, is a test image."""
    from sklearn.datasets import load_digits  # takes a second that other datasets need not pay

    values, target = load_digits(return_X_y=True)
    images = np.round(values.reshape(-1, 1, 8, 8) * (255 / 16)).astype(np.uint8)
    labels = np.asarray(target, dtype=np.int64)
    position = np.empty_like(labels)
    for c in range(10):
        of_class = labels == c
        position[of_class] = np.arange(of_class.sum())
    test = position % 5 == 4
    train_split, test_split = (sort_by_class(images[part], labels[part], 10, "digits") for part in (~test, test))
    return train_split, test_split, tuple(str(c) for c in range(10))


def _idx(name: str) -> Callable[[Path], Loaded]:
    def load(folder: Path) -> Loaded:
        import torchvision.datasets as vision

        reader: type[vision.MNIST] = getattr(vision, name)
        root = folder.parent.parent
        try:
            splits = [reader(root, train=train) for train in (True, False)]
        except (ValueError, AssertionError, RuntimeError, TypeError, KeyError, IndexError) as error:
            raise DatasetInvalid(f"{folder}: not idx files as MNIST has them: {error}") from error
        train, test = (
            sort_by_class(s.data.numpy()[:, None], s.targets.numpy().astype(np.int64), 10, str(folder)) for s in splits
        )
        return train, test, tuple(reader.classes)

    return load


def _svhn(folder: Path) -> Loaded:
    from scipy.io.matlab import MatReadError
    from torchvision.datasets import SVHN

    class AnySVHN(SVHN):
        """Reads copies and subsets too: a .mat file holds no code, so its checksum need not be the published one."""

        def _check_integrity(self) -> bool:
            return True

    try:
        splits = [AnySVHN(folder, split) for split in ("train", "test")]
    except (MatReadError, ValueError, TypeError, KeyError, NotImplementedError, AttributeError) as error:
        raise DatasetInvalid(f"{folder}: not .mat files as SVHN has them: {error}") from error
    train, test = (sort_by_class(split.data, split.labels, 10, str(folder)) for split in splits)
    return train, test, tuple(str(c) for c in range(10))


LOADERS: dict[str, Callable[[Path], Loaded]] = {
    "digits": _digits,
    "mnist": _idx("MNIST"),
    "fashion_mnist": _idx("FashionMNIST"),
    "svhn": _svhn,
    "cifar10": load_cifar10,
    "cifar100": load_cifar100,
    "tinyimagenet": load_tinyimagenet,
}


def fetch(name: str, data_dir: Path) -> None:
    """Fetch a dataset's files by torchvision, checked against the published checksums.

    Raises DatasetMissing where they cannot be had.
    """
    try:
        _download(name, data_dir)
    except (URLError, RuntimeError, OSError) as error:
        raise DatasetMissing(f"{name} could not be downloaded: {error}") from error


def _download(name: str, data_dir: Path) -> None:
    import torchvision.datasets as vision
    from torchvision.datasets.utils import download_and_extract_archive, download_url

    root = str(data_dir)
    match name:
        case "mnist":
            vision.MNIST(root, download=True)
        case "fashion_mnist":
            vision.FashionMNIST(root, download=True)
        case "svhn":
            for split in ("train", "test"):
                url, filename, md5 = vision.SVHN.split_list[split]
                download_url(url, root, filename, md5)
        case "cifar10" | "cifar100":
            source = vision.CIFAR10 if name == "cifar10" else vision.CIFAR100
            download_and_extract_archive(source.url, root, filename=source.filename, md5=source.tgz_md5)
        case "tinyimagenet":
            download_and_extract_archive(_TINY_URL, root, md5=_TINY_MD5)
