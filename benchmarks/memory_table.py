"""The bounds of memory as a table, docs/memory.md: `python benchmarks/memory_table.py` writes it anew."""

import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # as a script, only this file's folder is searched

from dream_core.catalog import DATASETS, METHODS
from dream_core.errors import InvalidRecipe
from dream_core.recipes import make_recipe
from dream_core.recipes.description import IPCS
from dream_core.recipes.memory import LIBRARIES_BYTES, PROCESS_BYTES, memory_bound

KEPT = Path(__file__).parents[1] / "docs" / "memory.md"
_TEXT = f"""# Memory

What a job holds in the host's memory at most, in GB (10⁹ bytes), by its published settings at 1, 10 and 50 images per
class, where it computes on the CPU. `dream estimate` says it of a job, with all that is set for it.

A bound is the process ({PROCESS_BYTES / 1e9:.2f} GB, or {(PROCESS_BYTES + LIBRARIES_BYTES) / 1e9:.2f} where further
libraries read the images), the real images as bytes, what is kept throughout (stored images, networks, experts, soft
labels, with optimisers and a checkpoint), and the two largest of the phases that follow one another, as the second
cannot always use what the first has freed: a class embedded and clustered, real and synthetic images matched, a network
trained, the set judged. Batches and the size of the images weigh most: a lower `batch_real`, `batch_syn_max` or
`evaluation.batch_size` lowers it. [`memory.py`](../dream_core/recipes/memory.py) has every figure that goes into it.

Runs stay below their bounds and above a third of them, as a test measures for methods of every family on the shape of
CIFAR-10; DREAM there is to take at most 2 GB at 1 and 10 images per class. A checkpoint is counted; the files of an
upload while they are unpacked are not. On a GPU, its own memory holds what is here without the process and the real
images; that is not measured.

This table is written by `python benchmarks/memory_table.py`.
"""


def main() -> None:
    KEPT.write_text(table(), encoding="utf-8")


def table() -> str:
    """The whole page."""
    return f"{_TEXT}\n" + "".join(f"| {' | '.join(line)} |\n" for line in _lines())


def _lines() -> Iterator[list[str]]:
    yield ["method", *DATASETS]
    yield ["---"] * (1 + len(DATASETS))
    for method in METHODS:
        yield [f"`{method}`", *(" / ".join(_bounds(method, dataset)) for dataset in DATASETS)]


def _bounds(method: str, dataset: str) -> Iterator[str]:
    for ipc in IPCS:
        try:
            bound = memory_bound(make_recipe(method, dataset, ipc), DATASETS[dataset])
        except InvalidRecipe:  # classes that are too small for it
            yield "–"
        else:
            yield f"{bound / 1e9:.1f}"


if __name__ == "__main__":
    main()
