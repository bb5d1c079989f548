"""The table of `accuracy.py`, from its kept cells: CSV with everything, Markdown with the claims checked, a plot."""

import csv
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dream_core.catalog import DATASETS

Result = dict[str, Any]
Key = tuple[str, int, str]
"""Dataset, images per class, row."""

COLUMNS = (
    "dataset", "ipc", "row", "method", "base", "judged", "factor", "steps", "steps_published", "budget_ratio", "epochs",
    "updates", "mean", "std", "n", "per_network", "published", "seconds", "seconds_pretraining", "seconds_distilling",
    "seconds_judging", "cpu_seconds", "seed", "digest", "cpu", "cores", "torch", "python",
)  # fmt: skip
MATCHING = ("dc", "dsa", "dm", "idc", "dream", "dream/8", "dream+", "dream on dc", "dream on dsa", "dream on dm")
PLUGGED = {"dc": "dream on dc", "dsa": "dream on dsa", "dm": "dream on dm", "idc": "dream"}


@dataclass(frozen=True)
class Plan:
    """What was to be measured: rows in order, blocks of (dataset, ipc, rows), and the budget in words."""

    rows: tuple[str, ...]
    blocks: tuple[tuple[str, int, tuple[str, ...]], ...]
    intervals: tuple[tuple[str, int, tuple[str, ...]], ...]
    budget: tuple[str, ...]


@dataclass(frozen=True)
class Difference:
    """Points by which one row is better than another, and the standard error of that."""

    points: float
    error: float

    def __str__(self) -> str:
        return f"{self.points:+.1f} ± {self.error:.1f}"

    @property
    def verdict(self) -> str:
        """Whether the first row is at least as good as the second."""
        if abs(self.points) <= self.error:
            return "within one standard error"
        return "holds" if self.points > 0 else "does not hold"


def write(results: list[Result], search: list[Result], failed: dict[Key, str], plan: Plan, folder: Path) -> list[Path]:
    """Write accuracy.csv, accuracy.md and accuracy.png into a folder; return their paths."""
    cells = {(result["dataset"], result["ipc"], result["row"]): result for result in results}
    paths = [folder / f"accuracy.{ending}" for ending in ("csv", "md", "png")]
    with paths[0].open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([COLUMNS, *(csv_row(cells[key]) for key in ordered(cells, plan))])
    paths[1].write_text(markdown(cells, search, failed, plan), encoding="utf-8")
    draw(cells, plan, paths[2])
    return paths


def ordered(cells: dict[Key, Result], plan: Plan) -> list[Key]:
    """The cells by dataset in the catalog's order, IPC and row."""
    blocks = sorted(plan.blocks + plan.intervals, key=lambda block: (list(DATASETS).index(block[0]), block[1]))
    keys = [(dataset, ipc, row) for dataset, ipc, rows in blocks for row in rows]
    return [key for key in keys if key in cells]


def csv_row(result: Result) -> list[Any]:
    """One cell, flat."""
    seconds = result["seconds"]
    flat = result | result["machine"] | {"method": result["recipe"]["method"]}
    flat["base"] = result["recipe"].get("base", "")
    flat["budget_ratio"] = f"{result['steps'] / result['steps_published']:.3g}"
    flat["mean"], flat["std"] = f"{result['mean']:.2f}", f"{result['std']:.2f}"
    flat["per_network"] = " ".join(f"{accuracy:.2f}" for accuracy in result["per_network"])
    flat["published"] = "" if result["published"] is None else result["published"]
    flat |= {f"seconds_{part}": value for part, value in seconds.items()}
    flat["seconds"] = round(sum(seconds.values()), 1)
    return [flat[name] for name in COLUMNS]


# ---------------------------------------------------------------- Markdown


def markdown(cells: dict[Key, Result], search: list[Result], failed: dict[Key, str], plan: Plan) -> str:
    """The whole report."""
    parts = [header(cells, plan), *claims(cells), plug_in(cells, plan)]
    for dataset, ipc, rows in sorted(plan.blocks, key=lambda block: (list(DATASETS).index(block[0]), block[1])):
        parts.append(block(cells, failed, dataset, ipc, rows))
    parts += [intervals(cells, plan), searched(search)]
    return "\n\n".join(part for part in parts if part) + "\n"


def header(cells: dict[Key, Result], plan: Plan) -> str:
    """What was measured, on what, how."""
    machines = sorted({
        "{cpu}, {cores} cores, torch {torch}, Python {python}".format(**cell["machine"]) for cell in cells.values()
    })  # fmt: skip
    spent = sum(sum(cell["seconds"].values()) for cell in cells.values())
    lines = [
        "# Accuracy of every method at a budget for CPUs",
        "Written by `make bench-accuracy` (benchmarks/accuracy.py); every number comes from results/accuracy/cells/.",
        "![Accuracy by row, dataset and images per class](accuracy.png)",
        f"**Machine.** {'; '.join(machines)}; one thread a cell, no GPU. {spent / 60:.0f} process-minutes in all.",
        *plan.budget,
    ]
    return "\n\n".join(lines)


def block(cells: dict[Key, Result], failed: dict[Key, str], dataset: str, ipc: int, rows: tuple[str, ...]) -> str:
    """The table of a dataset and IPC. The best of the rows that are judged alike is bold."""
    here = {row: cells[dataset, ipc, row] for row in rows if (dataset, ipc, row) in cells}
    title = f"## {DATASETS[dataset].title}, {ipc} image{'s' * (ipc > 1)} per class"
    if not here and not any((dataset, ipc, row) in failed for row in rows):
        return f"{title}\n\nNot run."
    best = max((cell["mean"] for cell in here.values()), default=None)
    lines = [("row", "judged", "factor", "steps run / published", "judge's updates", "accuracy %", "published %", "s")]
    lines.append(("---", "---", "--:", "--:", "--:", "--:", "--:", "--:"))
    for row in rows:
        if row not in here:
            why = failed.get((dataset, ipc, row))
            lines.append((row, "", "", "", "", f"failed: {why}" if why else "not run", "", ""))
            continue
        cell = here[row]
        accuracy = with_deviation(cell)
        steps = f"{cell['steps']:,} / {cell['steps_published']:,}"
        published = "" if cell["published"] is None else f"{cell['published']:.1f}"
        lines.append((
            row, cell["judged"], str(cell["factor"]), steps, f"{cell['updates']:,}",
            f"**{accuracy}**" if cell["mean"] == best else accuracy, published, f"{sum(cell['seconds'].values()):.0f}",
        ))  # fmt: skip
    return f"{title}\n\n{as_table(lines)}"


def plug_in(cells: dict[Key, Result], plan: Plan) -> str:
    """What DREAM adds to each method that it plugs into."""
    lines = [("dataset", "IPC", "base", "without DREAM", "with DREAM", "difference ± its standard error")]
    lines.append(("---", "--:", "---", "--:", "--:", "--:"))
    better: list[float] = []
    for dataset, ipc, _ in sorted(plan.blocks, key=lambda block: (list(DATASETS).index(block[0]), block[1])):
        for base, dream in PLUGGED.items():
            without, with_dream = cells.get((dataset, ipc, base)), cells.get((dataset, ipc, dream))
            if without is None or with_dream is None:
                continue
            gained = difference(with_dream, without)
            better.append(gained.points / gained.error if gained.error else math.copysign(math.inf, gained.points))
            lines.append((dataset, str(ipc), base, with_deviation(without), with_deviation(with_dream), str(gained)))
    if not better:
        return ""
    up, down = sum(z > 1 for z in better), sum(z < -1 for z in better)
    said = (
        f"DREAM helps by more than one standard error in {up} of {len(better)} pairs, hurts by more than one in "
        f"{down}, and is within one in {len(better) - up - down}. Same steps, same judge; DREAM also changes what the "
        "images start from, and on idc it matches twice as many real images a step, as published."
    )
    return f"## Plugged in: each method without and with DREAM\n\n{said}\n\n{as_table(lines)}"


def intervals(cells: dict[Key, Result], plan: Plan) -> str:
    """What it is worth to cluster more or less often for DM."""
    lines = [("dataset", "IPC", "clusters", "accuracy %", "s to distil"), ("---", "--:", "---", "--:", "--:")]
    for dataset, ipc, rows in plan.intervals:
        for row in ("dm", "dream on dm", *rows):
            if cell := cells.get((dataset, ipc, row)):
                every = "never (dm)" if row == "dm" else f"every {cell['recipe']['interval']} steps"
                seconds = f"{cell['seconds']['distilling']:.0f}"
                lines.append((dataset, str(ipc), every, with_deviation(cell), seconds))
    said = (
        "DM draws a network for every step and never trains it, so representatives cannot follow a network. Seconds "
        "were taken while other cells ran beside."
    )
    return f"## How often DREAM clusters for DM\n\n{said}\n\n{as_table(lines)}"


def claims(cells: dict[Key, Result]) -> list[str]:
    """The claims of the papers, each checked on these numbers."""
    told = (
        "**1. Every matching method beats random images on MNIST at 1 image per class**, by more than two standard "
        "deviations, of which one is sqrt(s_method² + s_random²), each over the judging networks."
    )
    lines = ["## Claims", told]
    random = cells.get(("mnist", 1, "random"))
    rows = [("row", "accuracy %", "minus random", "deviations", "")]
    rows.append(("---", "--:", "--:", "--:", "---"))
    beaten: list[bool] = []
    for row in MATCHING:
        cell = cells.get(("mnist", 1, row))
        if cell is None or random is None:
            continue
        gap, deviation = cell["mean"] - random["mean"], math.hypot(cell["std"], random["std"])
        beaten.append(gap > 2 * deviation)
        times = gap / deviation if deviation else math.inf
        rows.append((row, with_deviation(cell), f"{gap:+.1f}", f"{times:.1f}", "yes" if beaten[-1] else "no"))
    if beaten and random:
        told = "Holds" if all(beaten) else "Does not hold"
        lines.append(f"{told}: {sum(beaten)} of {len(beaten)} rows (random: {with_deviation(random)}).")
        lines.append(as_table(rows))
    else:
        lines.append("Not run.")
    lines.append(compared(
        cells, "dream", "**2. DREAM is at least as good as IDC at equal iterations.**",
    ))  # fmt: skip
    lines.append(compared(
        cells, "dream/8", "**3. DREAM at one eighth of the iterations is at least as good as IDC at all of them.**"
    ))  # fmt: skip
    return lines


def compared(cells: dict[Key, Result], row: str, claim: str) -> str:
    """A row against idc on MNIST and CIFAR-10."""
    lines = [("dataset", "IPC", "idc (steps)", f"{row} (steps)", "difference ± its standard error", "")]
    lines.append(("---", "--:", "--:", "--:", "--:", "---"))
    for dataset in ("mnist", "cifar10"):
        for ipc in (1, 10):
            idc, ours = cells.get((dataset, ipc, "idc")), cells.get((dataset, ipc, row))
            if idc is None or ours is None:
                lines.append((dataset, str(ipc), "", "", "", "not run"))
                continue
            gained = difference(ours, idc)
            theirs, own = (f"{with_deviation(cell)} ({cell['steps']})" for cell in (idc, ours))
            lines.append((dataset, str(ipc), theirs, own, str(gained), gained.verdict))
    return f"{claim}\n\n{as_table(lines)}"


def searched(search: list[Result]) -> str:
    """What the factors of the pixels' learning rates were chosen from."""
    if not search:
        return ""
    found: dict[tuple[str, int, str, int, int], dict[float, float]] = {}  # a budget that was cut since is a line apart
    for cell in search:
        about = (cell["dataset"], cell["ipc"], cell["row"], cell["steps"], cell["epochs"])
        found.setdefault(about, {})[cell["lr_factor"]] = cell["mean"]
    factors = sorted({factor for by_factor in found.values() for factor in by_factor})
    lines: list[tuple[str, ...]] = [
        ("dataset", "IPC", "row", "steps", "epochs", *(f"x {factor:g}" for factor in factors))
    ]
    lines.append(("---", "--:", "---", "--:", "--:", *("--:" for _ in factors)))
    for about, by_factor in found.items():
        best = max(by_factor.values())
        bold = {factor: "**" * (mean == best) for factor, mean in by_factor.items()}
        told = (f"{bold[f]}{by_factor[f]:.1f}{bold[f]}" if f in by_factor else "" for f in factors)
        lines.append((*map(str, about), *told))
    return (
        "## How the pixels' learning rates were chosen\n\n"
        "Accuracy with the published rate times a factor: another seed than the table's, one judging network, no DREAM."
        " It is test accuracy, as everywhere in this field.\n\n" + as_table(lines)
    )


def difference(first: Result, second: Result) -> Difference:
    """First minus second, with the standard error of two independent means."""
    error = math.sqrt(first["std"] ** 2 / first["n"] + second["std"] ** 2 / second["n"])
    return Difference(first["mean"] - second["mean"], error)


def with_deviation(cell: Result) -> str:
    return f"{cell['mean']:.1f} ± {cell['std']:.1f}"


def as_table(lines: list[tuple[str, ...]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


# ---------------------------------------------------------------- the plot

_GROUPS = {
    "real images": ("#7f7f7f", ("random", "herding", "k-center", "kmeans")),
    "matching": ("#1f77b4", ("dc", "dsa", "dm", "idc")),
    "DREAM": ("#d1495b", ("dream", "dream/8", "dream+", "dream on dc", "dream on dsa", "dream on dm")),
    "others": ("#2e8b57", ("dd", "mtt", "sre2l")),
}


def draw(cells: dict[Key, Result], plan: Plan, path: Path) -> None:
    """A panel for each dataset and IPC: accuracy by row, random images as a line, published figures hollow."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot
    from matplotlib.lines import Line2D
    from matplotlib.ticker import MaxNLocator

    keys = ordered(cells, plan)
    datasets = list(dict.fromkeys(key[0] for key in keys))
    counts = sorted({key[1] for key in keys})
    mpl.rcParams.update({"font.size": 9, "axes.titlesize": 10, "font.family": "DejaVu Sans"})
    width = max(10.0, 4.0 * len(datasets))
    figure, axes = pyplot.subplots(len(counts), len(datasets), figsize=(width, 4.3 * len(counts) + 0.9), sharey=True,
                                   squeeze=False, layout="constrained")  # fmt: skip
    colours = {row: colour for colour, rows in _GROUPS.values() for row in rows}
    for down, ipc in enumerate(counts):
        for right, dataset in enumerate(datasets):
            axis = axes[down][right]
            here = {row: cells[dataset, ipc, row] for row in plan.rows if (dataset, ipc, row) in cells}
            axis.set_title(f"{DATASETS[dataset].title}, {ipc} image{'s' * (ipc > 1)} per class", fontweight="bold")
            axis.set_yticks(range(len(plan.rows)), plan.rows)
            axis.set_ylim(len(plan.rows) - 0.4, -0.6)
            axis.tick_params(axis="y", length=0)
            axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            axis.grid(axis="x", color="#e4e4e4", linewidth=0.8)
            axis.set_axisbelow(True)
            axis.spines[["top", "right", "left"]].set_visible(False)
            for edge in (3.5, 7.5, 13.5):
                axis.axhline(edge, color="#e4e4e4", linewidth=0.8)
            if "random" in here:
                axis.axvline(here["random"]["mean"], color="#7f7f7f", linewidth=1, linestyle="--")
            for row, cell in here.items():
                place = plan.rows.index(row)
                axis.errorbar(cell["mean"], place, xerr=cell["std"], fmt="o", markersize=5.5, color=colours[row],
                              elinewidth=1.6, capsize=2.5)  # fmt: skip
                if cell["published"] is not None:
                    axis.plot(cell["published"], place, "D", markersize=5.5, markerfacecolor="none",
                              markeredgecolor=colours[row])  # fmt: skip
            if down == len(counts) - 1:
                axis.set_xlabel("test accuracy, %")
    marks = [
        Line2D([], [], marker="o", linestyle="", color=colour, label=name) for name, (colour, _) in _GROUPS.items()
    ]
    marks.append(Line2D([], [], color="#7f7f7f", linestyle="--", label="random real images"))
    marks.append(Line2D([], [], marker="D", linestyle="", markerfacecolor="none", markeredgecolor="#444444",
                        label="published (full budget)"))  # fmt: skip
    figure.legend(handles=marks, loc="outside lower center", ncols=len(marks), frameon=False)
    n = max((cell["n"] for cell in cells.values()), default=0)
    figure.suptitle(f"Accuracy at a budget for CPUs: mean and standard deviation of {n} networks", fontsize=12)
    figure.savefig(path, dpi=1600 / width)
    pyplot.close(figure)
