"""Names and facts: which datasets and methods there are, and their limits. Imports no torch.

Sizes and constants are those of the IDC and DREAM code, whose protocol is the default here; where the
field disagrees about a constant (CIFAR-100 is normalised with CIFAR-10's numbers there), docs/decisions
records the choice and every artifact carries the numbers it was made with.
"""

from dataclasses import dataclass

from dream_core.errors import InvalidRecipe

FOLDER_PREFIX = "folder:"


@dataclass(frozen=True, slots=True)
class DatasetFacts:
    """What is known of a dataset before its files are read.

    `mean` and `std` normalise images in [0, 1], per channel. `flips` says that a mirrored image keeps its
    class. `whole_accuracy` is the published top-1 test accuracy in percent of a ConvNet trained on the whole
    training set, or None where no figure was found.
    """

    name: str
    title: str
    classes: int
    channels: int
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    train: int
    test: int
    smallest_class: int
    flips: bool
    licence: str
    whole_accuracy: float | None = None


_CIFAR = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2023, 0.1994, 0.2010)}
_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}

DATASETS: dict[str, DatasetFacts] = {
    facts.name: facts
    for facts in (
        DatasetFacts("digits", "UCI handwritten digits", 10, 1, 8, (0.3052,), (0.3760,), 1442, 355, 140,
                     flips=False, licence="CC BY 4.0"),
        DatasetFacts("mnist", "MNIST", 10, 1, 28, (0.1307,), (0.3081,), 60_000, 10_000, 5_421,
                     flips=False, licence="CC BY-SA 3.0"),
        DatasetFacts("fashion_mnist", "FashionMNIST", 10, 1, 28, (0.2861,), (0.3530,), 60_000, 10_000, 6_000,
                     flips=True, licence="MIT"),
        DatasetFacts("svhn", "Street View House Numbers", 10, 3, 32, (0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970),
                     73_257, 26_032, 4_659, flips=False, licence="non-commercial use"),
        DatasetFacts("cifar10", "CIFAR-10", 10, 3, 32, **_CIFAR, train=50_000, test=10_000, smallest_class=5_000,
                     flips=True, licence="not stated", whole_accuracy=84.8),
        DatasetFacts("cifar100", "CIFAR-100", 100, 3, 32, **_CIFAR, train=50_000, test=10_000, smallest_class=500,
                     flips=True, licence="not stated", whole_accuracy=56.2),
        DatasetFacts("tinyimagenet", "Tiny ImageNet", 200, 3, 64, **_IMAGENET, train=100_000, test=10_000,
                     smallest_class=500, flips=True, licence="not stated", whole_accuracy=37.6),
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class MethodFacts:
    """A distillation method: its name in recipes, what it does in a sentence, and where it is published."""

    name: str
    title: str
    summary: str
    paper: str


METHODS: dict[str, MethodFacts] = {
    facts.name: facts
    for facts in (
        MethodFacts(
            "idc",
            "IDC",
            "Matches gradients of random real batches; stores several images in one (multi-formation).",
            "Kim et al., Dataset Condensation via Efficient Synthetic-Data Parameterization, ICML 2022",
        ),
        MethodFacts(
            "dream",
            "DREAM",
            "IDC that matches and starts from representative real images, chosen by k-means in each class.",
            "Liu et al., DREAM: Efficient Dataset Distillation by Representative Matching, ICCV 2023",
        ),
    )
}


def dataset_names() -> str:
    """The names a user may give, for error messages."""
    return ", ".join([*DATASETS, f"{FOLDER_PREFIX}PATH"])


def is_folder(dataset: str) -> bool:
    """Whether the name means an ImageFolder tree or zip of the user's own (`folder:PATH`)."""
    return dataset.startswith(FOLDER_PREFIX) and len(dataset) > len(FOLDER_PREFIX)


def find_dataset(dataset: str) -> DatasetFacts | None:
    """The facts of a built-in dataset, or None for `folder:PATH`.

    Raises InvalidRecipe for any other name.
    """
    if is_folder(dataset):
        return None
    if dataset not in DATASETS:
        raise InvalidRecipe([("dataset", f"there is no dataset {dataset!r}; known: {dataset_names()}")])
    return DATASETS[dataset]
