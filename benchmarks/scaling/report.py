"""What was measured, as JSON for programs, and as Markdown and a plot for people."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.inner_iteration.report import how
from benchmarks.scaling.fitting import exponent
from benchmarks.scaling.points import PARTS, SIZES

Result = dict[str, Any]

AXES = {
    "ipc": "images per class (IPC)",
    "classes": "classes",
    "per_class": "real images per class",
    "image_size": "side of an image, pixels",
}
FIGURES = {
    "total": "inner iteration",
    "matching": "matching",
    "network": "network",
    "embedding": "embedding, when due",
    "kmeans": "k-means, when due",
    "memory": "peak memory",
}
_COLOURS = {
    "total": "#222222",
    "matching": "#1f77b4",
    "network": "#ff7f0e",
    "embedding": "#2ca02c",
    "kmeans": "#9467bd",
    "memory": "#d62728",
}
_MARKS = {"total": "o", "matching": "s", "network": "^", "embedding": "D", "kmeans": "v", "memory": "o"}


def keep(folder: Path, result: Result) -> None:
    """Write it, with table and plot, in place of an older one."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scaling.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    (folder / "scaling.md").write_text("\n".join(markdown(result)) + "\n", encoding="utf-8")
    draw(result, folder / "scaling.png")


def along(result: Result, axis: str) -> list[Result]:
    """The points that differ from the base in nothing but this size, in its order."""
    base = result["base"]
    same = [
        point
        for point in result["points"]
        if all(point["sizes"][other] == base[other] for other in SIZES if other != axis)
    ]
    return sorted(same, key=lambda point: point["sizes"][axis])


def figures(point: Result) -> dict[str, float]:
    """Of a point: seconds, and memory in GB, by the names of FIGURES."""
    seconds = {part: point["seconds"][part] for part in PARTS}
    return {"total": point["total_s"], **seconds, "memory": point["peak_bytes"] / 1e9}


def exponents(result: Result, axis: str) -> dict[str, float | None]:
    """By which power each figure grows with a size."""
    some = along(result, axis)
    sizes, values = [point["sizes"][axis] for point in some], [figures(point) for point in some]
    return {name: exponent(sizes, [value[name] for value in values]) for name in FIGURES}


# ---------------------------------------------------------------- Markdown


def markdown(result: Result) -> Iterator[str]:
    """The exponents, then the points of each size."""
    base = result["base"]
    yield "# How cost grows\n"
    yield (
        f"DREAM's inner iteration on random pixels of the shape of CIFAR-10 ({base['classes']} classes of "
        f"{base['per_class']} images of {base['image_size']} pixels) at IPC {base['ipc']}, and with one of these sizes "
        "changed at a time. An inner iteration is matching, the network's training, and a "
        f"{result['points'][0]['interval']}th of embedding and k-means.\n"
    )
    yield (
        f"{result['machine']}. Measured at CIFAR-10's sizes, and accordingly elsewhere: {result['measured']}; "
        f"{how(result['points'][0]['computing'])}, everything done once before. Other "
        f"processes kept up to {result['others_cores']} cores busy meanwhile. Runs of each point, "
        f"of which the fastest is shown: {max(point['runs'] for point in result['points'])}.\n"
    )
    yield "![Seconds and memory](scaling.png)\n"
    yield "## Exponents\n"
    yield "By which power of the size each figure grows: the slope through its logarithms, by least squares.\n"
    yield from _row("with", *FIGURES.values())
    yield from _row(*["---"] * (1 + len(FIGURES)))
    for axis, title in AXES.items():
        fitted = exponents(result, axis)
        yield from _row(title, *("" if fitted[name] is None else f"{fitted[name]:.2f}" for name in FIGURES))
    for axis, title in AXES.items():
        yield f"\n## By {title}\n"
        yield from _row(
            title, *(f"{name}, {'GB' if key == 'memory' else 's'}" for key, name in FIGURES.items()), "bound, GB"
        )
        yield from _row(*["---"] * (2 + len(FIGURES)))
        for point in along(result, axis):
            told = (f"{value:.2f}" for value in figures(point).values())
            yield from _row(str(point["sizes"][axis]), *told, f"{point['bound_bytes'] / 1e9:.2f}")


def _row(*cells: str) -> Iterator[str]:
    yield f"| {' | '.join(cells)} |"


# ---------------------------------------------------------------- the plot


def draw(result: Result, path: Path) -> None:
    """A column for each size: seconds above, memory below, on logarithmic axes; a legend says the exponents."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import FuncFormatter, NullLocator

    plain = FuncFormatter(lambda value, _: f"{value:g}")
    figure, axes = pyplot.subplots(
        2, len(AXES), figsize=(14, 7.5), sharex="col", sharey="row", height_ratios=(2, 1), layout="constrained"
    )
    for column, (size, title) in enumerate(AXES.items()):
        some, fitted = along(result, size), exponents(result, size)
        xs = [point["sizes"][size] for point in some]
        for name, told in FIGURES.items():
            axis = axes[int(name == "memory")][column]
            grows = "" if fitted[name] is None else f"{fitted[name]:+.2f}"
            about = {"color": _COLOURS[name], "marker": _MARKS[name], "lw": 2.5 if name == "total" else 1.5, "ms": 5}
            axis.plot(xs, [figures(point)[name] for point in some], label=f"{told}: {grows}", **about)
        bounds = [point["bound_bytes"] / 1e9 for point in some]
        axes[1][column].plot(xs, bounds, color="#888888", ls="--", lw=1.2, label="its bound")
        for axis in (axes[0][column], axes[1][column]):
            axis.set_xscale("log")
            axis.set_yscale("log")
            axis.grid(which="major", color="#dddddd", lw=0.6)
            axis.spines[["top", "right"]].set_visible(False)
            axis.legend(frameon=False, fontsize=8, title="exponent", title_fontsize=8, loc="best")
            axis.yaxis.set_major_formatter(plain)
        axes[1][column].xaxis.set_minor_locator(NullLocator())
        axes[1][column].set_xticks(xs, [f"{x:,}" for x in xs])
        axes[1][column].set_xlabel(title)
    low, high = axes[1][0].get_ylim()
    ticks = [tick for tick in (0.5, 1, 2, 5, 10, 20) if low <= tick <= high]
    axes[1][0].set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes[1][0].yaxis.set_minor_locator(NullLocator())
    axes[0][0].set_ylabel("seconds")
    axes[1][0].set_ylabel("peak memory, GB")
    base = result["base"]
    figure.suptitle(
        f"An inner iteration of DREAM. What does not vary: {base['classes']} classes of {base['per_class']:,} images "
        f"of {base['image_size']} pixels, IPC {base['ipc']}",
        fontsize=11,
    )
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
