"""The first steps of a distillation, and the accuracy before or after them.

    python benchmarks/first_steps.py --method dream --ipc 10 --steps 20
    python benchmarks/first_steps.py --method idc --ipc 10 --steps 0          # the initialisation alone

Prints and writes (benchmarks/results/first_steps/) seconds per inner iteration by part, peak memory, and the
accuracy by the published protocol, or with --epochs by a shorter one, which is marked.
"""

import argparse
import json
import logging
import os
import platform
import time
from pathlib import Path

import torch

from dream_core.datasets import load_dataset
from dream_core.distillation import Distillation
from dream_core.evaluation import NetworkScore, summarize, train_and_test
from dream_core.host import keep_freed_memory, peak_memory, use_threads_for
from dream_core.recipes import make_recipe

log = logging.getLogger("first_steps")
RESULTS = Path(__file__).parent / "results" / "first_steps"


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    options = arguments()
    keep_freed_memory()
    params = {"outer_iterations": 1, "inner_iterations": max(1, options.steps), "factor": options.factor}
    evaluation = {"epochs": options.epochs} if options.epochs else {}
    recipe = make_recipe(options.method, options.dataset, options.ipc, options.seed, params, evaluation)
    use_threads_for(recipe.image_size)
    dataset = load_dataset(options.dataset, options.data_dir)

    start = time.perf_counter()
    distillation = Distillation(recipe, dataset, options.device, synchronize=True)
    result = {
        "method": options.method, "dataset": options.dataset, "ipc": options.ipc, "factor": options.factor,
        "seed": options.seed, "steps": options.steps, "epochs": recipe.evaluation.epochs,
        "machine": machine(distillation.device), "initialisation_s": time.perf_counter() - start,
    }  # fmt: skip
    log.info("initialised in %.1f s", result["initialisation_s"])
    parts = []
    for _ in range(options.steps):
        start = time.perf_counter()
        progress = distillation.step()
        parts.append(progress.seconds | {"total": time.perf_counter() - start})
        log.info("step %d: loss %.4f, %s", progress.step, progress.loss, rounded(parts[-1]))
    if parts:
        names = sorted({name for part in parts for name in part})
        result["seconds_per_step"] = {name: sum(part.get(name, 0) for part in parts) / len(parts) for name in names}
    result["peak_bytes"] = peak_memory()
    if options.evaluation_threads:
        torch.set_num_threads(options.evaluation_threads)
    if not options.no_evaluation:
        result |= accuracy(distillation, dataset, recipe, options.repeats)
    report(result)


def accuracy(distillation: Distillation, dataset, recipe, repeats: int) -> dict:  # noqa: ANN001
    """Evaluate the set as it stands on `repeats` networks."""
    training = distillation.training_set()
    scores, start = [], time.perf_counter()
    for run in range(repeats):
        looks = []
        key = ("synthetic", run)
        for epoch in train_and_test(training, dataset, recipe.evaluation, recipe.seed, key, distillation.device):
            if epoch.accuracy is not None:
                looks.append(epoch.accuracy)
                log.info("run %d epoch %d: %.2f %%", run + 1, epoch.number, epoch.accuracy)
        scores.append(NetworkScore(looks[-1], max(looks)))
    score = summarize(scores)
    return {
        "accuracy": score.mean,
        "std": score.std,
        "n": score.n,
        "best": score.best_mean,
        "evaluation_s": time.perf_counter() - start,
    }


def report(result: dict) -> None:
    """Log the result as one line of JSON and keep it."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    name = "{dataset}-{method}-ipc{ipc}-f{factor}-steps{steps}-epochs{epochs}-seed{seed}.json".format(**result)
    (RESULTS / name).write_text(json.dumps(result, indent=2) + "\n")
    log.info("%s", json.dumps(result))


def machine(device: torch.device) -> str:
    """The machine in words, without its name."""
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} CPU"
    return f"{where}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def rounded(parts: dict[str, float]) -> str:
    return ", ".join(f"{name} {seconds:.2f} s" for name, seconds in parts.items())


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="dream")
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--data-dir", type=Path, default=Path(os.environ.get("DREAM_DATA_DIR", "data")))
    parser.add_argument("--ipc", type=int, default=10)
    parser.add_argument("--factor", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--epochs", type=int, help="other than the published 1000")
    parser.add_argument("--repeats", type=int, default=1, help="evaluation networks")
    parser.add_argument("--evaluation-threads", type=int, help="threads after the timed steps, if not as many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--no-evaluation", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
