"""What is measured: CIFAR-10 at 10 images per class, and one of its sizes changed at a time."""

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from benchmarks.inner_iteration.clock import peak_bytes
from benchmarks.inner_iteration.images import noise_dataset
from benchmarks.inner_iteration.measuring import Amount, inner_iteration, measure_loop, measured, warmed_up
from dream_core.catalog import DATASETS
from dream_core.recipes import MatchingRecipe, convnet_depth, make_recipe
from dream_core.recipes.memory import memory_bound

PARTS = ("matching", "network", "embedding", "kmeans")


@dataclass(frozen=True, slots=True)
class Point:
    """The sizes that cost grows with."""

    ipc: int = 10
    classes: int = 10
    per_class: int = 5000
    """Real images of each class."""
    image_size: int = 32
    """Pixels of a side."""


SIZES: dict[str, tuple[int, ...]] = {
    "ipc": (1, 10, 50),
    "classes": (10, 100, 200),
    "per_class": (500, 1000, 2500, 5000, 10_000),
    "image_size": (16, 32, 64, 128),
}
"""Each varied alone."""
QUICK_SIZES: dict[str, tuple[int, ...]] = {
    "ipc": (1, 10), "classes": (10, 20), "per_class": (250, 500), "image_size": (16, 32),
}  # fmt: skip
QUICK_BASE = Point(per_class=500)


def points(base: Point, sizes: dict[str, tuple[int, ...]]) -> list[Point]:
    """All of them, the base once."""
    varied = [replace(base, **{axis: size}) for axis, some in sizes.items() for size in some]
    return list(dict.fromkeys([base, *varied]))


def measure_point(point: Point, device: torch.device, amount: Amount, compiled: bool) -> dict[str, Any]:
    """Seconds of an inner iteration by part, and memory, of DREAM on random pixels.

    The settings are those that are published for CIFAR-10, at the depth that leaves the network 4 x 4 pixels. Whether
    networks are compiled is the same at every size: by itself a job does not compile for the smallest images.
    """
    facts = replace(
        DATASETS["cifar10"], name="random pixels", classes=point.classes, size=point.image_size,
        train=point.classes * point.per_class, test=point.classes, smallest_class=point.per_class,
    )  # fmt: skip
    published = make_recipe("dream", "cifar10", point.ipc)
    changes = {"image_size": point.image_size, "depth": convnet_depth(point.image_size), "init": "random"}
    changes["compiled"] = "on" if compiled else "off"
    recipe = MatchingRecipe.model_validate(published.model_dump() | changes)
    loop = warmed_up(recipe, noise_dataset(facts), device)
    seconds = measure_loop(loop, amount).seconds
    return {
        "sizes": asdict(point),
        "seconds": {part: seconds[part] for part in PARTS},
        "total_s": inner_iteration(recipe, seconds),
        "peak_bytes": peak_bytes(device),
        "bound_bytes": memory_bound(recipe, facts),
        "interval": recipe.interval,
        "computing": asdict(loop.computing),
        "measured": measured(recipe, point.classes, amount),
    }
