"""What was measured, as JSON for programs, and as Markdown and a plot for people."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

Result = dict[str, Any]

PARTS = ("matching", "network", "clustering")
"""Of an inner iteration; clustering is embedding and k-means of all classes, over the interval."""
ROWS = {
    "matching": "matching",
    "inputs": "– inputs: fetching, decoding, augmentation",
    "real gradient": "– real gradient",
    "image step": "– synthetic gradient, and backward to the pixels",
    "network": "network",
    "network's inputs": "– inputs: fetching, augmentation",
    "embedding": "embedding, when due",
    "kmeans": "k-means, when due",
    "evaluation epoch": "one epoch of an evaluation",
}
_COLOURS = {"matching": "#1f77b4", "network": "#ff7f0e", "clustering": "#2ca02c"}


def keep(folder: Path, result: Result) -> None:
    """Write it beside the others, in place of an older one of the same kind, and table and plot of all anew."""
    folder.mkdir(parents=True, exist_ok=True)
    kind = "-ways" if result["ways"] else ""
    name = f"{result['dataset']}-ipc{result['ipc']}-{result['device']}{kind}.json"
    (folder / name).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    results = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")]
    results.sort(key=lambda one: (one["device"], one["dataset"], one["ipc"]))
    (folder / "inner_iteration.md").write_text("\n".join(markdown(results)), encoding="utf-8")
    draw([result for result in results if not result["ways"]], folder / "inner_iteration.png")


def summary(result: Result) -> Result:
    """What is compared from run to run, and enough to know of what."""
    names = ("fast_s", "reference_s", "ratio", "dataset", "images", "ipc", "factor", "device", "quick", "measured",
             "others_cores", "computing", "agreement")  # fmt: skip
    return {name: result[name] for name in names}


# ---------------------------------------------------------------- Markdown


def markdown(results: Sequence[Result]) -> Iterator[str]:
    """A section for each result."""
    yield "# One inner iteration\n"
    yield (
        "Seconds of one inner iteration of DREAM by part, beside a plain implementation of the same mathematics on the "
        "same images, draws and network. How it is measured: [benchmarks/README.md](../../README.md).\n"
    )
    yield "![Seconds by part](inner_iteration.png)\n"
    for result in sorted(results, key=lambda result: bool(result["ways"])):
        yield from told(result)


def told(result: Result) -> Iterator[str]:
    """What one run measured."""
    return ways(result) if result["ways"] else section(result)


def section(result: Result) -> Iterator[str]:
    """One dataset and IPC on one device."""
    peaks, fast, plain = result["peak_gflops"], result["seconds"], result["reference_seconds"]
    yield f"## {result['dataset']}, {result['ipc']} images per class, {result['device']}\n"
    yield (
        f"{result['machine']}; {result['images']}. Measured: {result['measured']}. Other processes kept "
        f"{result['others_cores']} cores busy meanwhile. The machine's most: {peaks['matrix']:.0f} GFLOP/s for "
        f"matrices, {peaks['convolution']:.0f} for the network's widest convolution, both in float32. The loop: "
        f"{how(result['computing'])}; doing everything once before, compiling included, took {result['first_s']:.0f} "
        "s.\n"
    )
    head = ("part", "s", "plain s", "ratio", "GFLOP/s", "of matrix peak", "of convolution peak")
    for line in (head, ["---"] * len(head)):
        yield f"| {' | '.join(line)} |"
    for part, name in ROWS.items():
        if part in fast:
            told = [name, f"{fast[part]:.2f}", *_beside(plain.get(part), fast[part])]
            yield f"| {' | '.join(told + _rate(result['gflops'].get(part), peaks))} |"
    told = ["**inner iteration**", f"**{result['fast_s']:.2f}**", *_beside(result["reference_s"], result["fast_s"])]
    yield f"| {' | '.join([*told, '', '', ''])} |\n"
    agreed = result["agreement"]
    yield (
        f"Peak memory {result['peak_bytes'] / 1e9:.1f} GB, with the plain one "
        f"{result['reference_peak_bytes'] / 1e9:.1f}. The two differ by {agreed['pixel_gradient_difference']:.0e} of "
        f"the pixels' gradient and {agreed['weights_difference']:.0e} of the trained network; "
        f"{agreed['same_representatives']:.0%} of the representatives are the same.\n"
    )


def ways(result: Result) -> Iterator[str]:
    """What each way of computing brought, from the plain implementation on."""
    yield f"## {result['dataset']}, {result['ipc']} images per class, {result['device']}: what each step brought\n"
    yield (
        f"{result['machine']}; {result['images']}; seconds. Other processes kept {result['others_cores']} cores busy "
        "meanwhile.\n"
    )
    plain = result["reference_seconds"] | {"inner iteration": result["reference_s"]}
    parts = ("matching", "network", "embedding", "kmeans", "evaluation epoch", "inner iteration")
    yield f"| | {' | '.join(ROWS.get(part, part) for part in parts)} |"
    yield "| --- |" + " --- |" * len(parts)
    for name, seconds in ({"plain implementation": plain} | result["ways"]).items():
        yield f"| {name} | {' | '.join(f'{seconds[part]:.2f}' for part in parts)} |"
    yield ""


def how(computing: dict[str, bool]) -> str:
    """In words."""
    compiled = "compiled" if computing["compiled"] else "not compiled"
    return f"{compiled}, convolutions in {'bfloat16' if computing['bfloat16'] else 'float32'}"


def _beside(plain: float | None, fast: float) -> list[str]:
    return ["", ""] if plain is None else [f"{plain:.2f}", f"{plain / fast:.1f}" if fast else ""]


def _rate(gflops: float | None, peaks: dict[str, float]) -> list[str]:
    if gflops is None:
        return ["", "", ""]
    return [f"{gflops:.0f}", f"{gflops / peaks['matrix']:.0%}", f"{gflops / peaks['convolution']:.0%}"]


# ---------------------------------------------------------------- the plot


def by_part(result: Result, seconds: dict[str, float]) -> dict[str, float]:
    """Seconds of an average inner iteration by PARTS."""
    clustering = (seconds["embedding"] + seconds["kmeans"]) / result["interval"]
    return {"matching": seconds["matching"], "network": seconds["network"], "clustering": clustering}


def draw(results: Sequence[Result], path: Path) -> None:
    """A bar for each result and implementation, stacked by part."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(8, 1.2 + 0.8 * len(results)), layout="constrained")
    names = []
    for result in results:
        for which, seconds in (("dream_core", result["seconds"]), ("plain", result["reference_seconds"])):
            left = 0.0
            for part, value in by_part(result, seconds).items():
                label = part if not names else None
                axis.barh(len(names), value, left=left, color=_COLOURS[part], label=label)
                left += value
            axis.text(left, len(names), f" {left:.1f}", va="center", fontsize=8)
            names.append(f"{result['dataset']}, IPC {result['ipc']}, {result['device']}: {which}")
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.invert_yaxis()
    axis.margins(x=0.1)
    axis.set_xlabel("seconds of an average inner iteration")
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=len(PARTS), frameon=False, fontsize=8)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
