"""Published top-1 accuracies in percent, for the rows of `accuracy.py`: ConvNet-3 of width 128, all training images.

Only figures that were checked against a source are here: DC and DSA in the DC repository's readme; IDC in its own
(factor 2); random images, DM and MTT on CIFAR-10 as later papers of the field repeat them; DREAM on CIFAR-10, the mean
alone. Where a paper's figure could not be checked there is none.
"""

# dataset -> row -> accuracy at 1 and at 10 images per class
_PUBLISHED: dict[str, dict[str, tuple[float, float]]] = {
    "mnist": {"dc": (91.7, 97.4), "dsa": (88.7, 97.8), "idc": (94.2, 98.4)},
    "fashion_mnist": {"dc": (70.5, 82.3), "dsa": (70.6, 84.6), "idc": (81.0, 86.0)},
    "cifar10": {
        "random": (14.4, 26.0),
        "dc": (28.3, 44.9),
        "dsa": (28.8, 52.1),
        "dm": (26.0, 48.9),
        "mtt": (46.3, 65.3),
        "idc": (50.6, 67.5),
        "dream": (51.1, 69.4),
    },
}


def published_accuracy(dataset: str, ipc: int, row: str) -> float | None:
    """The published accuracy of a row at its full budget, where one is known."""
    figures = _PUBLISHED.get(dataset, {}).get(row)
    return figures[(1, 10).index(ipc)] if figures and ipc in (1, 10) else None
