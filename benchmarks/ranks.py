"""One distillation shared by several ranks: seconds per inner iteration, against Amdahl's bound.

    python benchmarks/ranks.py                     # 1, 2 and 4 ranks, a thread each: several minutes
    python benchmarks/ranks.py --ranks 2           # one of them
    python benchmarks/ranks.py --ranks 1 2 --width 16 --batch-real 32 --iterations 2 --no-keep    # a look

DREAM on CIFAR-10 at 10 images per class, at the published settings: but for few iterations, the first of which
clusters, a fresh network, and random initial images. On CPUs every rank is a process of one thread; where there are
GPUs (`--device cuda`) every rank has one.

Matching and clustering are divided by class; the training of the network between two iterations is not, and each rank
does all of it. So with n ranks an iteration takes at best what the network takes and the largest share of the classes:
the bound is computed from what the parts take in the run with one rank.

Where other processes keep cores busy, which the table says, the seconds say little. `CPU` are the seconds that the
busiest rank computed in, and their speed-up is what there would be if every rank had a core to itself.

The latest row per number of ranks is kept in results/ranks. The exit code is 1 if the images are not those of one rank.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import platform
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # as a script, only this file's folder is searched

import torch

from benchmarks.inner_iteration.measuring import warmed_up
from benchmarks.load.cores import busy_seconds
from benchmarks.machine import processor
from dream_core.datasets import load_dataset
from dream_core.distillation import Distillation, choose_device
from dream_core.host import keep_freed_memory
from dream_core.ranks import joined
from dream_core.recipes import MatchingRecipe, make_recipe

RESULTS = Path(__file__).parent / "results" / "ranks"
DATASET, METHOD, IPC, CLASSES = "cifar10", "dream", 10, 10
DIVIDED = ("matching", "embedding", "kmeans")
HEAD = ("ranks", "s per iteration", "speed-up", "CPU", "speed-up", "bound", "matching", "clustering", "network", "rest",
        "same bytes", "cores that others kept busy")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """What came of so many ranks. Seconds are those of rank 0; those of an iteration have its share of a clustering."""

    ranks: int
    settings: dict[str, Any]
    """What was not as published."""
    iterations: int
    iteration: float
    cpu: float
    """Of an iteration, on the CPU: the busiest rank's."""
    matching: float
    clustering: float
    """Embedding and k-means, when they are due."""
    network: float
    rest: float
    """Of an iteration: the pixels' step, gathering, waiting for other ranks."""
    images: str
    """The SHA-256 of the images after the last iteration; the same on every rank."""
    others_busy: float
    """Cores, on average."""
    at: str


def measure(count: int, settings: dict[str, Any], iterations: int, device: str, data_dir: Path) -> Row:
    """Run some iterations with so many ranks."""
    start, busy, ours = time.perf_counter(), busy_seconds(), sum(os.times()[:4])
    recipe = make_recipe(METHOD, DATASET, IPC, 0, {"init": "random"} | settings)
    assert isinstance(recipe, MatchingRecipe)
    processes = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="ranks-") as place:
        about = (count, recipe, iterations, device, data_dir, Path(place))
        ranks = [processes.Process(target=run, args=(rank, *about), daemon=True) for rank in range(count)]
        for rank in ranks:
            rank.start()
        for rank in ranks:
            rank.join()
        if any(rank.exitcode for rank in ranks):
            raise RuntimeError(f"ranks ended with {[rank.exitcode for rank in ranks]}")
        found = [json.loads((Path(place) / f"{rank}.json").read_text(encoding="utf-8")) for rank in range(count)]
    others = (busy_seconds() - busy - sum(os.times()[:4]) + ours) / (time.perf_counter() - start)
    images = {each["images"] for each in found}
    if len(images) > 1:
        raise RuntimeError("the ranks do not have the same images")
    cpu = max(_average([step["cpu"] for step in each["steps"]], recipe.interval) for each in found)
    return as_row(count, settings, found[0]["steps"], recipe.interval, cpu, images.pop(), max(0.0, others))


def run(
    rank: int, count: int, recipe: MatchingRecipe, iterations: int, device: str, data_dir: Path, place: Path
) -> None:
    """One rank: its seconds by step, and the digest of its images, as a file."""
    keep_freed_memory()
    torch.set_num_threads(1)
    chosen = choose_device(device)
    chosen = torch.device(chosen.type, rank) if chosen.type == "cuda" else chosen
    dataset = load_dataset(DATASET, data_dir, recipe.image_size)
    warmed_up(recipe, dataset, chosen)  # compiling takes longer than what is measured
    with joined(rank, count, place / "meeting", chosen) as ranks:
        distillation = Distillation(recipe, dataset, chosen, synchronize=True, ranks=ranks)
        steps = []
        for _ in range(iterations):
            start, computed = time.perf_counter(), time.process_time()
            seconds = distillation.step().seconds
            steps.append(seconds | {"all": time.perf_counter() - start, "cpu": time.process_time() - computed})
        digest = hashlib.sha256(distillation.synthetic.images.cpu().numpy().tobytes()).hexdigest()
    (place / f"{rank}.json").write_text(json.dumps({"steps": steps, "images": digest}), encoding="utf-8")


def _average(seconds: list[float], interval: int) -> float:
    """Of an iteration, where the first of those measured clusters and the fastest of the others counts."""
    return min(seconds[1:]) + max(0.0, seconds[0] - min(seconds[1:])) / interval


def as_row(
    count: int,
    settings: dict[str, Any],
    steps: list[dict[str, float]],
    interval: int,
    cpu: float,
    images: str,
    others_busy: float,
) -> Row:
    """Of the steps of rank 0."""
    iteration, clustering = (
        _average([step["all"] for step in steps], interval),
        steps[0]["embedding"] + steps[0]["kmeans"],
    )
    fastest = min(steps[1:], key=lambda step: step["all"])
    matching, network = fastest["matching"], fastest["network"]
    figures = {"iteration": iteration, "cpu": cpu, "matching": matching, "clustering": clustering, "network": network}
    figures["rest"] = iteration - matching - network - clustering / interval
    return Row(
        count, settings, len(steps), images=images, others_busy=round(others_busy, 2),
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        **{name: round(value, 3) for name, value in figures.items()},
    )  # fmt: skip


def bound(alone: Row, ranks: int, interval: int) -> float:
    """The speed-up that there is at most: divided work takes as long as the largest share of the classes does."""
    divided = alone.matching + alone.clustering / interval
    share = -(-CLASSES // ranks) / CLASSES
    return alone.iteration / (alone.iteration - divided + divided * share)


def keep(row: Row) -> list[Row]:
    """Put it among the kept ones, in place of an earlier one with as many ranks; all of them."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / "ranks.json"
    kept = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
    rows = {found["ranks"]: Row(**found) for found in kept} | {row.ranks: row}
    ordered = [rows[ranks] for ranks in sorted(rows)]
    about = {"machine": machine(), "recipe": [DATASET, METHOD, IPC], "rows": [asdict(each) for each in ordered]}
    path.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    (RESULTS / "ranks.md").write_text(table(ordered), encoding="utf-8")
    return ordered


def table(rows: list[Row]) -> str:
    """Markdown."""
    alone = next((row for row in rows if row.ranks == 1), None)
    lines: list[tuple[str, ...]] = [HEAD, ("--:",) * len(HEAD)]
    for row in rows:
        interval = make_recipe(METHOD, DATASET, IPC, 0, row.settings).model_dump()["interval"]
        wall = f"{alone.iteration / row.iteration:.2f}" if alone else "–"
        cpu = f"{alone.cpu / row.cpu:.2f}" if alone else "–"
        most = f"{bound(alone, row.ranks, interval):.2f}" if alone else "–"
        same = ("yes" if row.images == alone.images else "NO") if alone else "–"
        parts = (f"{value:.2f}" for value in (row.matching, row.clustering, row.network, row.rest))
        figures = (str(row.ranks), f"{row.iteration:.2f}", wall, f"{row.cpu:.2f}", cpu, most)
        lines.append((*figures, *parts, same, f"{row.others_busy:.1f}"))
    shown = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    changed = ", ".join(f"{name} {value}" for name, value in rows[0].settings.items())
    told = f"{DATASET}, {METHOD}, {IPC} images per class{', ' + changed if changed else ''}; a thread for each rank"
    return f"{machine()}. {told}.\n\n{shown}"


def machine() -> str:
    return f"{os.cpu_count()} cores of {processor()}; Python {platform.python_version()}, PyTorch {torch.__version__}"


def main(arguments: list[str] | None = None) -> int:
    """Measure, print and keep; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--iterations", type=int, default=4, help="at least 2; the first one clusters")
    parser.add_argument("--width", type=int, help="filters of the network, where not those published")
    parser.add_argument("--batch-real", type=int, help="real images of a class, where not those published")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--data-dir", type=Path, default=os.environ.get("DREAM_DATA_DIR", "data"))
    parser.add_argument("--no-keep", action="store_true", help="leave the kept results as they are")
    options = parser.parse_args(arguments)
    given = {"width": options.width, "batch_real": options.batch_real}
    settings = {name: value for name, value in given.items() if value is not None}
    rows: list[Row] = []
    for count in options.ranks:
        rows.append(measure(count, settings, max(2, options.iterations), options.device, Path(options.data_dir)))
        if not options.no_keep:
            rows = keep(rows[-1])
        sys.stdout.write(table(rows) + "\n")
        sys.stdout.flush()
    return 0 if len({row.images for row in rows}) == 1 else 1


if __name__ == "__main__":
    sys.exit(main())
