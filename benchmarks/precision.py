"""Whether compiled functions and bfloat16 cost accuracy: the same run plainly and fast, judged alike.

    python benchmarks/precision.py                           # CIFAR-10 and MNIST, one image per class: an hour
    python benchmarks/precision.py --dataset mnist --steps 20

Every run starts from the same seed, does `--steps` inner iterations at the published settings on the first
`--per-class` images of each class, and is judged by `--networks` networks of `--epochs` passes, computed plainly. The
set of the plain run is judged by fast networks, too. Each run has a process of its own and is kept as JSON in
results/precision/; what is kept is not run again.
"""

import argparse
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # as a script, only this file's folder is searched

from benchmarks.cutting import cut
from benchmarks.first_steps import machine
from dream_core.datasets import Dataset, load_dataset
from dream_core.distillation import Distillation
from dream_core.evaluation import train_and_test
from dream_core.host import keep_freed_memory
from dream_core.recipes import EvaluationRecipe, make_recipe

log = logging.getLogger("precision")
RESULTS = Path(__file__).parent / "results" / "precision"

WAYS = {
    "plain": {"compiled": "off", "precision": "float32"},
    "compiled": {"compiled": "on", "precision": "float32"},
    "fast": {"compiled": "on", "precision": "bfloat16"},
}
JUDGES = {"plain": ("plain", "fast"), "compiled": ("plain",), "fast": ("plain",)}
"""Way of distilling -> ways of judging it."""

Result = dict[str, Any]


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    options = arguments()
    for dataset in options.dataset:
        for way in options.way:
            if not kept(options, dataset, way).exists():
                if options.here:
                    run(options, dataset, way)
                else:  # argparse takes the last of two
                    only = ["--dataset", dataset, "--way", way, "--here"]
                    subprocess.run([sys.executable, __file__, *sys.argv[1:], *only], check=True)
    if not options.here:
        results = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(options.results.glob("*.json"))]
        told = "\n".join(markdown(results))
        (options.results / "precision.md").write_text(told + "\n", encoding="utf-8")
        sys.stdout.write(told + "\n")


def run(options: argparse.Namespace, name: str, way: str) -> None:
    """Distil in a way, judge, and keep what was found."""
    keep_freed_memory()
    dataset = cut(load_dataset(name, options.data_dir), options.per_class)
    judging = {"epochs": options.epochs}
    recipe = make_recipe("dream", name, options.ipc, options.seed, WAYS[way] | {"outer_iterations": 1}, judging)
    distillation, losses, start = Distillation(recipe, dataset, "cpu"), [], time.perf_counter()
    for progress in distillation:
        losses.append(progress.loss)
        if progress.step % 10 == 0:
            log.info("%s %s: step %d, loss %.4f", name, way, progress.step, progress.loss)
        if progress.step == options.steps:
            break
    seconds = time.perf_counter() - start
    judged = {}
    for judge in JUDGES[way]:
        evaluation = recipe.evaluation.model_copy(update=WAYS[judge])
        judged[judge] = list(accuracies(distillation, dataset, evaluation, options))
        log.info("%s %s, judged %s: %s", name, way, judge, judged[judge])
    about = {
        "dataset": name, "per_class": options.per_class, "ipc": options.ipc, "way": way, "steps": len(losses),
        "seed": options.seed, "epochs": options.epochs,
    }  # fmt: skip
    found = {"seconds": seconds, "losses": losses, "accuracies": judged, "machine": machine(torch.device("cpu"))}
    options.results.mkdir(parents=True, exist_ok=True)
    text = json.dumps(about | found, indent=2)
    kept(options, name, way).write_text(text + "\n", encoding="utf-8")


def accuracies(
    distillation: Distillation, dataset: Dataset, how: EvaluationRecipe, options: argparse.Namespace
) -> Iterator[float]:
    """Of as many fresh networks as asked for, the same ones for every way."""
    for network in range(options.networks):
        passes = train_and_test(distillation.training_set(), dataset, how, options.seed, ("precision", network),
                                distillation.device)  # fmt: skip
        yield [epoch.accuracy for epoch in passes if epoch.accuracy is not None][-1]


def kept(options: argparse.Namespace, dataset: str, way: str) -> Path:
    """Where a run is kept."""
    return options.results / f"{dataset}-ipc{options.ipc}-steps{options.steps}-seed{options.seed}-{way}.json"


def markdown(results: list[Result]) -> Iterator[str]:
    """A row for each run and judge."""
    yield "# Accuracy of fast runs\n"
    yield "How it is measured: [benchmarks/precision.py](../../precision.py).\n"
    head = ("dataset", "IPC", "steps", "seed", "distilled", "judged", "accuracy", "networks", "last loss", "seconds")
    for line in (head, ["---"] * len(head)):
        yield f"| {' | '.join(line)} |"
    order = list(WAYS)
    for one in sorted(results, key=lambda one: (one["dataset"], one["seed"], order.index(one["way"]))):
        for judge, found in one["accuracies"].items():
            cells = (
                one["dataset"], one["ipc"], one["steps"], one["seed"], one["way"], judge,
                f"{mean(found):.2f} ± {stdev(found):.2f}", len(found), f"{one['losses'][-1]:.4f}",
                f"{one['seconds']:.0f}",
            )  # fmt: skip
            yield f"| {' | '.join(map(str, cells))} |"
    yield "\nSeconds are of the distillation, compiling included, on a machine that others used meanwhile.\n"
    yield from sorted(
        {
            f"{one['machine']}; {one['per_class']} images of each class, {one['epochs']} epochs of judging."
            for one in results
        }
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", nargs="+", default=["cifar10", "mnist"])
    parser.add_argument("--data-dir", type=Path, default=Path(os.environ.get("DREAM_DATA_DIR", "data")))
    parser.add_argument("--way", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--ipc", type=int, default=1)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--per-class", type=int, default=1000)
    parser.add_argument("--networks", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--here", action="store_true", help="in this process, and without the table")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.steps > 100:
        parser.error("at most the 100 inner iterations that a network lives for")
    return options


if __name__ == "__main__":
    main()
