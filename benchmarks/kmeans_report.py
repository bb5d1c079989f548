"""What kmeans.py has measured, as Markdown and a plot."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

Part = dict[str, Any]


def write(folder: Path, parts: dict[str, Part]) -> None:
    """Table and plot of the parts that are kept."""
    (folder / "kmeans.md").write_text("\n".join(markdown(parts)), encoding="utf-8")
    draw(parts, folder / "kmeans.png")


# ---------------------------------------------------------------- Markdown


def markdown(parts: dict[str, Part]) -> Iterator[str]:
    """A section for each part."""
    yield "# Clustering\n"
    yield (
        "How it is measured: [benchmarks/README.md](../../README.md). All seconds are a core's, spent by one thread.\n"
    )
    yield "![Warm starts and steps](kmeans.png)\n"
    for name, section in SECTIONS.items():
        if parts.get(name):
            yield from section(parts[name])
            others = parts[name]["others_cores"]
            yield f"{parts[name]['machine']}; other processes kept {others} cores busy meanwhile.\n"


def _engines(part: Part) -> Iterator[str]:
    yield "## Engines\n"
    yield (
        "5,000 x 2,048 features of a class of CIFAR-10, 128 clusters, at most 100 iterations, tolerance 1e-4; means of "
        "3 random starts, the same for all. faiss has no such tolerance and does as many iterations as our engine.\n"
    )
    lines = [
        (_trained(row["inner"]), row["engine"], f"{row['seconds']:.2f}", f"{row['iterations']:.0f}",
         f"{1000 * row['seconds'] / row['iterations']:.0f}", _inertia(row, part["rows"], "engine", "torch"))
        for row in part["rows"]
    ]  # fmt: skip
    yield from _table(("network", "engine", "s", "iterations", "ms per iteration", "inertia"), lines)


def _warm(part: Part) -> Iterator[str]:
    rows = part["rows"]
    later = sorted({row["inner"] for row in rows})[1:]
    yield "## Warm starts\n"
    yield (
        f"Our engine on the same class before inner iterations {', '.join(map(str, later))} of a network, which is "
        "trained as the loop does it. Cold: means of 3 random starts. Warm: each from the one before it, and the first "
        "(at 0, not counted) cold. The last row is what `warm_start` does.\n"
    )
    lines = []
    for start, told in STARTS.items():
        mine = [row for row in rows if row["start"] == start and row["inner"] in later]
        if not mine:
            continue
        cold = [row for row in rows if row["start"] == "cold" and row["inner"] in later]
        ratios = [row["inertia"] / other["inertia"] for row, other in zip(mine, cold, strict=True)]
        kept = f"{sum(row['kept'] for row in mine) / len(mine):.0%}"
        iterations, seconds = (sum(row[name] for row in mine) for name in ("iterations", "seconds"))
        against = f"{100 * (sum(ratios) / len(ratios) - 1):+.2f}%"
        lines.append((told, f"{iterations:.0f}", f"{seconds:.1f}", against, kept))
    yield from _table(("start", "iterations in all", "s in all", "inertia against cold", "images that stay"), lines)


def _steps(part: Part) -> Iterator[str]:
    yield "## A step\n"
    yield (
        "Seconds of an inner iteration over the interval of 10 after the first; every class is clustered once in it. "
        f"{_small(part)}\n"
    )
    lines = [(row["way"], f"{row['mean']:.2f}", f"{row['most']:.2f}") for row in part["rows"]]
    yield from _table(("", "mean", "longest"), lines)


def _accuracy(part: Part) -> Iterator[str]:
    b = part["differs"]
    yield "## Accuracy\n"
    yield (
        f"{b['outer']} networks of {b['inner']} inner iterations (published: 2,000 of 100), one seed; {b['networks']} "
        f"networks that judge after {b['epochs']} epochs (1,000), of which ± is the deviation. {_small(part)}\n"
    )
    lines = [(row["way"], f"{row['mean']:.1f} ± {row['std']:.1f}", f"{row['cpu_seconds']:.0f}") for row in part["rows"]]
    yield from _table(("", "accuracy, %", "CPU seconds to distil"), lines)


def _small(part: Part) -> str:
    b = part["differs"]
    return (
        f"DREAM on CIFAR-10, {b['ipc']} image per class, far from the published budget: width {b['width']} (128), the "
        f"first {b['per_class']:,} images of each class (5,000), {b['batch_real']} real images of a class (128), "
        f"{b['n_data']} images for the network after each step (2,000), the pixels' learning rate times "
        f"{b['lr_factor']}. `all three` is a pool of 500, warm starts and turns."
    )


SECTIONS = {"engines": _engines, "warm": _warm, "steps": _steps, "accuracy": _accuracy}
STARTS = {
    "cold": "cold",
    "centres": "last centres",
    "members": "means of their members",
    "chosen": "images chosen last",
}


def _trained(inner: int) -> str:
    return f"trained for {inner} inner iterations" if inner else "fresh"


def _inertia(row: Part, rows: Sequence[Part], name: str, base: str) -> str:
    (other,) = (found for found in rows if found["inner"] == row["inner"] and found[name] == base)
    return f"{row['inertia']:,.0f} ({100 * (row['inertia'] / other['inertia'] - 1):+.1f}%)"


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> Iterator[str]:
    for line in (head, ["---"] * len(head), *lines):
        yield f"| {' | '.join(line)} |"
    yield ""


# ---------------------------------------------------------------- the plot


def draw(parts: dict[str, Part], path: Path) -> None:
    """Iterations of k-means over the life of a network, and seconds of the steps of an interval."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for start, told in STARTS.items():
        mine = [row for row in parts["warm"].get("rows", []) if row["start"] == start]
        left.plot([row["inner"] for row in mine], [row["iterations"] for row in mine], marker=".", label=told)
    left.set_xlabel("inner iteration")
    left.set_ylabel("iterations of k-means")
    left.set_ylim(bottom=0)
    for row in parts["steps"].get("rows", []):
        right.plot(range(1, len(row["seconds"]) + 1), row["seconds"], marker=".", label=row["way"])
    right.set_xlabel("inner iteration")
    right.set_ylabel("seconds")
    right.set_ylim(bottom=0)
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
        if axis.lines:
            axis.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
