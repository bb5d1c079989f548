"""Which datasets lie under the data folder, and what to put where for the others. Imports no torch.

Looks at names of files only: whether their contents can be read is found out by loading them.
"""

from dataclasses import dataclass
from pathlib import Path

from dream_core.catalog import DATASETS, find_dataset

_IDX = tuple(
    f"{part}-ubyte" for part in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
)

# dataset -> the folder under the data folder, and what must be in it: the layouts that torchvision uses
LAYOUT: dict[str, tuple[str, tuple[str, ...]]] = {
    "mnist": ("MNIST/raw", _IDX),
    "fashion_mnist": ("FashionMNIST/raw", _IDX),
    "svhn": ("", ("train_32x32.mat", "test_32x32.mat")),
    "cifar10": ("cifar-10-batches-py", (*(f"data_batch_{n}" for n in range(1, 6)), "test_batch", "batches.meta")),
    "cifar100": ("cifar-100-python", ("train", "test", "meta")),
    "tinyimagenet": ("tiny-imagenet-200", ("train", "val")),
}

TREE_EXPECTED = "train/<class>/*.png and test/<class>/*.png (or val/; .jpg, .jpeg and .webp too)"


@dataclass(frozen=True, slots=True)
class Found:
    """What was found of a dataset: where it lies or should lie, and what is missing.

    `advice` says that in a sentence, and is empty when the dataset is available. `path` is None for a dataset that
    needs no files.
    """

    name: str
    available: bool
    path: Path | None
    missing: tuple[str, ...]
    advice: str


def inventory(data_dir: Path) -> list[Found]:
    """All built-in datasets, in the catalog's order."""
    return [find(name, data_dir) for name in DATASETS]


def find(dataset: str, data_dir: Path) -> Found:
    """One dataset: a built-in name, `folder:PATH` (relative to `data_dir` unless absolute), or `upload:NAME` inside it.

    Raises InvalidRecipe for a name that is none of these.
    """
    facts = find_dataset(dataset)
    if facts is None:
        path = data_dir / dataset.partition(":")[2]
        try:
            return _find_folder(dataset, path)
        except (OSError, ValueError) as error:  # a name too long, a null byte, no permission
            return Found(dataset, False, path, (path.name,), f"{path} cannot be looked into: {error}")
    if dataset not in LAYOUT:  # digits come with scikit-learn
        return Found(dataset, True, None, (), "")
    folder, names = LAYOUT[dataset]
    path = data_dir / folder
    missing = tuple(name for name in names if not (path / name).exists())
    if not missing:
        return Found(dataset, True, path, (), "")
    advice = f"{facts.title} is not complete: put {', '.join(missing)} into {path}, or allow downloads"
    return Found(dataset, False, path, missing, advice)


def _find_folder(dataset: str, path: Path) -> Found:
    if path.is_file():
        if path.suffix.lower() == ".zip":
            return Found(dataset, True, path, (), "")
        return Found(dataset, False, path, (path.name,), f"{path} is neither a folder nor a .zip of {TREE_EXPECTED}")
    if not path.is_dir():
        return Found(
            dataset, False, path, (path.name,), f"there is no {path}: expected a folder or .zip of {TREE_EXPECTED}"
        )
    missing = () if (path / "train").is_dir() else ("train/",)
    if not any((path / name).is_dir() for name in ("test", "val")):
        missing += ("test/ or val/",)
    if not missing:
        return Found(dataset, True, path, (), "")
    advice = f"{path} has no {' and no '.join(missing)}: expected {TREE_EXPECTED}, found {describe(path)}"
    return Found(dataset, False, path, missing, advice)


def is_litter(name: str) -> bool:
    """Whether a file or folder of this name is nobody's data: what systems leave in folders and zips, hidden files."""
    return name.startswith(".") or name in ("Thumbs.db", "desktop.ini", "__MACOSX")


def describe(path: Path) -> str:
    """The first few names in a folder, folders with a slash: for messages."""
    names = sorted(entry.name + "/" * entry.is_dir() for entry in path.iterdir())
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "") or "nothing"
