"""DREAM's clustering: our k-means beside scikit-learn's and faiss's, and what its cheaper ways cost and bring.

    python benchmarks/kmeans.py embed          # an outer loop's networks and their features: ten minutes; goes on
    python benchmarks/kmeans.py engines        # seconds and inertia on the first and the last of these features
    python benchmarks/kmeans.py warm           # warm starts against cold ones, clustering by clustering
    python benchmarks/kmeans.py steps          # seconds of a step, with and without turns
    python benchmarks/kmeans.py accuracy       # of sets that were distilled in each way
    python benchmarks/kmeans.py report         # nothing: it writes table and plot of what is kept

The features are those of the airplanes of CIFAR-10, 5,000 x 2,048, in the network of the published recipe, before every
tenth inner iteration of its first 100. They are kept in --cache. faiss is not among the project's packages: `pip
install faiss-cpu`, or it is left out. `steps` and `accuracy` take --way NAME. Results are kept in results/kmeans.

All seconds are a core's, spent by one thread: what else the machine does then hardly matters.
"""

import argparse
import json
import logging
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # as a script, only this file's folder is searched
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of PyTorch, scikit-learn and faiss; read when they are imported

import psutil
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks import kmeans_report
from benchmarks.cutting import cut
from benchmarks.first_steps import machine
from benchmarks.load.cores import watching_cores
from dream_core import evaluation as judge
from dream_core.clustering import make_kmeans
from dream_core.datasets import Dataset, load_dataset
from dream_core.distillation import Distillation
from dream_core.evaluation import NetworkScore
from dream_core.host import keep_freed_memory
from dream_core.methods.matching import MatchingLoop
from dream_core.recipes import MatchingRecipe, make_recipe
from dream_core.selection import embed, nearest

log = logging.getLogger("kmeans")
RESULTS = Path(__file__).parent / "results" / "kmeans"
CPU = torch.device("cpu")

CLUSTERS, ITERATIONS, SEEDS = 128, 100, 3
LABEL, EVERY, LOOP = 0, 10, 100
"""The class, inner iterations between two of its clusterings, and those of a network's life."""

WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "pool 1000": {"pool": 1000},
    "pool 500": {"pool": 500},
    "warm start": {"warm_start": True},
    "staggered": {"staggered": True},
    "all three": {"pool": 500, "warm_start": True, "staggered": True},
}
SMALL = {"ipc": 1, "width": 32, "per_class": 2000, "inner": 30, "outer": 2, "n_data": 256, "batch_real": 64,
         "epochs": 200, "networks": 5, "lr_factor": 100}  # fmt: skip
"""How `steps` and `accuracy` differ from the published recipe. The factor of the learning rate is that of accuracy.py,
for as few steps."""


# ---------------------------------------------------------------- features


def embed_loop(options: argparse.Namespace) -> None:
    """Train the first network as the loop does and keep the class's features before every tenth inner iteration.

    The synthetic images have no part in that. Stops after --seconds and goes on where it stopped.
    """
    dataset, recipe = cifar10(options), published(init="first")
    loop, saved = MatchingLoop(recipe, dataset, CPU), options.cache / "state.safetensors"
    if saved.exists():
        loop.load_state_dict(load_file(saved))
    end = time.monotonic() + options.seconds
    while time.monotonic() < end:
        if loop.step_number % EVERY == 0:
            found = embed(loop.network, dataset.train.of_class(LABEL), recipe.embedding_chunk, CPU, None)
            save_file({"features": found}, options.cache / f"features-{loop.step_number:02}.safetensors")
            log.info("features before inner iteration %d", loop.step_number)
        if loop.step_number == LOOP - EVERY:
            break
        loop.train_network(0, loop.step_number)
        loop.step_number += 1
    save_file(loop.state_dict(), saved)


def features(cache: Path) -> dict[int, Tensor]:
    """Inner iteration -> features [5000, 2048]."""
    found = sorted(cache.glob("features-*.safetensors"))
    if not found:
        raise SystemExit("there are no features; first run `python benchmarks/kmeans.py embed`")
    return {int(path.stem.removeprefix("features-")): load_file(path)["features"] for path in found}


# ---------------------------------------------------------------- engines


Fit = Callable[[Tensor, Tensor, int], tuple[Tensor, int]]
"""Features, the rows to start from and a seed -> centres and iterations."""


def ours(engine: str) -> Fit:
    """An engine of dream_core; its tolerance is 1e-4."""

    def fit(X: Tensor, start: Tensor, seed: int) -> tuple[Tensor, int]:
        kmeans = make_kmeans(engine, len(start), start, ITERATIONS, random_state=seed).fit(X)
        return kmeans.cluster_centers_, kmeans.n_iter_

    return fit


def mini_batch(X: Tensor, start: Tensor, seed: int) -> tuple[Tensor, int]:
    """scikit-learn's, by its own rules of when to stop. Its iterations are passes over the rows."""
    from sklearn.cluster import MiniBatchKMeans

    given: dict[str, Any] = {"init": start.numpy(), "n_init": 1}  # which its annotations forget
    kmeans = MiniBatchKMeans(len(start), max_iter=ITERATIONS, random_state=seed, **given)
    kmeans.fit(X.numpy())
    return torch.from_numpy(kmeans.cluster_centers_), kmeans.n_iter_


def faiss(X: Tensor, start: Tensor, seed: int) -> tuple[Tensor, int]:
    """faiss's, which knows no such tolerance: as many iterations as our engine takes from the same start."""
    import faiss as library  # pyright: ignore[reportMissingImports]

    iterations = make_kmeans("torch", len(start), start, ITERATIONS, random_state=seed).fit(X).n_iter_
    kmeans = library.Kmeans(X.shape[1], len(start), niter=iterations, seed=seed + 1, min_points_per_centroid=1)
    begin = time.process_time()
    kmeans.train(X.numpy(), init_centroids=start.numpy())
    faiss_seconds.append(time.process_time() - begin)
    return torch.from_numpy(kmeans.centroids), iterations


faiss_seconds: list[float] = []
"""Of faiss alone: our engine ran beforehand."""


def engines() -> dict[str, Fit]:
    """By name."""
    found: dict[str, Fit] = {"torch": ours("torch"), "sklearn": ours("sklearn"), "sklearn, mini-batches": mini_batch}
    try:
        import faiss as _  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError:
        log.warning("faiss is not installed (pip install faiss-cpu) and is left out")
        return found
    return found | {"faiss": faiss}


def measure_engines(options: argparse.Namespace) -> dict[str, Any]:
    """Every engine from the same distinct rows, on the features of a fresh and of a trained network."""
    rows = []
    found = features(options.cache)
    for inner in (min(found), max(found)):
        X = found[inner]
        for name, fit in engines().items():
            taken = [timed(fit, X, seed) for seed in range(SEEDS)]
            rows.append({"inner": inner, "engine": name} | means(taken))
            log.info("%s", rows[-1])
    return {"rows": rows}


def timed(fit: Fit, X: Tensor, seed: int) -> dict[str, float]:
    """One call: seconds, iterations, inertia."""
    start = X[torch.randperm(len(X), generator=torch.Generator().manual_seed(seed))[:CLUSTERS]]
    begin = time.process_time()
    centers, iterations = fit(X, start, seed)
    seconds = faiss_seconds.pop() if faiss_seconds else time.process_time() - begin
    return {"seconds": seconds, "iterations": iterations, "inertia": inertia(X, centers)}


def inertia(X: Tensor, centers: Tensor) -> float:
    """The sum of squared distances of all rows from their nearest centres, in float64."""
    return float(torch.cdist(X.double(), centers.double()).min(1).values.square().sum())


def means(taken: list[dict[str, float]]) -> dict[str, float]:
    """Name by name."""
    return {name: statistics.mean(one[name] for one in taken) for name in taken[0]}


# ---------------------------------------------------------------- warm starts


def measure_warm(options: argparse.Namespace) -> dict[str, Any]:
    """Clusterings of one loop: from random rows, and each from the one before, in three ways. `kept` is the share of
    the images chosen that the clustering before chose, too.

    `centres` are those of the last clustering as they were; `members` the means, in the new features, of what belonged
    to each; `chosen` the images nearest to the last centres, in the new features: what `warm_start` does.
    """
    rows, last = [], {}
    for inner, X in features(options.cache).items():
        cold = [cluster(X, "random", seed=1000 * seed + inner) for seed in range(SEEDS)]
        rows.append({"inner": inner, "start": "cold"} | means([numbers for numbers, _ in cold]))
        if not last:  # the first clustering of a network is cold
            last: dict[str, Any] = dict.fromkeys(("cold", "centres", "members", "chosen"), cold[0][1])
            continue
        rows[-1]["kept"] = kept(cold[0][1], last["cold"])
        last["cold"] = cold[0][1]
        starts = {
            "centres": last["centres"]["centers"],
            "members": member_means(X, last["members"]["labels"]),
            "chosen": X[last["chosen"]["chosen"]],
        }
        for name, start in starts.items():
            numbers, state = cluster(X, start, seed=0)
            rows.append({"inner": inner, "start": name, "kept": kept(state, last[name])} | numbers)
            last[name] = state
            log.info("%s", rows[-1])
    return {"rows": rows}


def cluster(X: Tensor, init: str | Tensor, seed: int) -> tuple[dict[str, float], dict[str, Tensor]]:
    """What one clustering took, and what of it the next may start from."""
    begin = time.process_time()
    kmeans = make_kmeans("torch", CLUSTERS, init, ITERATIONS, random_state=seed).fit(X)
    seconds, centers = time.process_time() - begin, kmeans.cluster_centers_
    numbers = {"seconds": seconds, "iterations": float(kmeans.n_iter_), "inertia": inertia(X, centers)}
    labels = torch.cdist(X, centers).argmin(1)
    return numbers, {"centers": centers, "labels": labels, "chosen": nearest(X, centers)}


def kept(state: dict[str, Tensor], before: dict[str, Tensor]) -> float:
    """The share of the chosen images that were chosen before."""
    return torch.isin(state["chosen"], before["chosen"]).double().mean().item()


def member_means(X: Tensor, labels: Tensor) -> Tensor:
    """The mean of every cluster's rows [k, d]; the mean of all where it has none."""
    sums = torch.zeros(CLUSTERS, X.shape[1]).index_add_(0, labels, X)
    counts = torch.bincount(labels, minlength=CLUSTERS)[:, None]
    return torch.where(counts > 0, sums / counts.clamp(min=1), X.mean(0))


# ---------------------------------------------------------------- ways, at a small budget


def by_way(part: str, options: argparse.Namespace, measured: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """Measure every way that is asked for; the other ways' rows stay as they are kept."""
    dataset, taken = cut(cifar10(options), SMALL["per_class"]), {}
    for name in options.way:
        taken[name] = {"way": name} | measured(WAYS[name], dataset, options.seed)
        log.info("%s", taken[name])
    earlier = read(options.results, part)
    rows = {row["way"]: row for row in (earlier["rows"] if earlier.get("differs") == SMALL else [])} | taken
    return {"differs": SMALL, "rows": [rows[name] for name in WAYS if name in rows]}


def small(seed: int, **params: Any) -> MatchingRecipe:
    """The recipe of SMALL."""
    b = SMALL
    evaluation = {"width": b["width"], "epochs": b["epochs"], "tests": 1, "baselines": False, "ceiling": "none"}
    return published(
        ipc=b["ipc"], seed=seed, evaluation=evaluation, width=b["width"], outer_iterations=b["outer"],
        inner_iterations=b["inner"], n_data=b["n_data"], batch_real=b["batch_real"],
        lr_img=published(ipc=b["ipc"]).lr_img * b["lr_factor"], **params,
    )  # fmt: skip


# ---------------------------------------------------------------- steps


def measure_steps(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of the inner iterations after the first, over one interval: every class is clustered once in it."""
    return by_way("steps", options, step_seconds)


def step_seconds(way: dict[str, Any], dataset: Dataset, seed: int) -> dict[str, Any]:
    """Of one way."""
    loop = MatchingLoop(small(seed, init="first", **way), dataset, CPU)
    loop.step()
    seconds = []
    for _ in range(loop.recipe.interval):
        begin = time.process_time()
        loop.step()
        seconds.append(time.process_time() - begin)
    return {"seconds": seconds, "mean": statistics.mean(seconds), "most": max(seconds)}


# ---------------------------------------------------------------- accuracy


def measure_accuracy(options: argparse.Namespace) -> dict[str, Any]:
    """Distil and judge."""
    return by_way("accuracy", options, distilled)


def distilled(way: dict[str, Any], dataset: Dataset, seed: int) -> dict[str, Any]:
    """The accuracy of networks that are trained on the set."""
    recipe = small(seed, **way)
    begin = time.process_time()
    distillation = Distillation(recipe, dataset, "cpu")
    for _ in distillation:
        pass
    cpu_seconds = time.process_time() - begin
    per_network = []
    for run in range(SMALL["networks"]):
        training = distillation.training_set()
        epochs = judge.train_and_test(training, dataset, recipe.evaluation, seed, ("accuracy", run), CPU)
        per_network += [epoch.accuracy for epoch in epochs if epoch.accuracy is not None]
    score = judge.summarize([NetworkScore(accuracy, accuracy) for accuracy in per_network])
    return {"mean": score.mean, "std": score.std, "per_network": per_network, "cpu_seconds": cpu_seconds}


# ---------------------------------------------------------------- all


def published(ipc: int = 10, seed: int = 0, evaluation: dict[str, Any] | None = None, **params: Any) -> MatchingRecipe:
    """DREAM's recipe for CIFAR-10, with changes."""
    recipe = make_recipe("dream", "cifar10", ipc, seed, params, evaluation or {})
    assert isinstance(recipe, MatchingRecipe)
    return recipe


def cifar10(options: argparse.Namespace) -> Dataset:
    return load_dataset("cifar10", options.data_dir)


def read(folder: Path, part: str) -> dict[str, Any]:
    """What is kept of a part, or nothing."""
    path = folder / f"{part}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


@contextmanager
def circumstances() -> Iterator[dict[str, Any]]:
    """The machine, and once the block is over how many of its cores others kept busy."""
    about: dict[str, Any] = {"machine": machine(CPU)}
    with watching_cores(psutil.Process()) as busy:
        yield about
    about["others_cores"] = busy.others


PARTS = {"engines": measure_engines, "warm": measure_warm, "steps": measure_steps, "accuracy": measure_accuracy}


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    keep_freed_memory()
    options = arguments()
    options.cache.mkdir(parents=True, exist_ok=True)
    options.results.mkdir(parents=True, exist_ok=True)
    if options.part == "embed":
        embed_loop(options)
        return
    if options.part in PARTS:
        with circumstances() as about:
            result = PARTS[options.part](options)
        path = options.results / f"{options.part}.json"
        path.write_text(json.dumps(about | result, indent=2) + "\n", encoding="utf-8")
    kmeans_report.write(options.results, {part: read(options.results, part) for part in PARTS})


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["embed", *PARTS, "report"])
    parser.add_argument("--data-dir", type=Path, default=Path(os.environ.get("DREAM_DATA_DIR", "data")))
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "dream-bench-kmeans")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="embed: stop after so many")
    parser.add_argument("--way", action="append", choices=list(WAYS), help="steps and accuracy: one or some; else all")
    parser.add_argument("--seed", type=int, default=0, help="steps and accuracy: of the distillation")
    options = parser.parse_args()
    options.way = options.way or list(WAYS)
    return options


if __name__ == "__main__":
    main()
