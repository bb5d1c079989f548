"""Seconds of one inner iteration of DREAM by part, beside a plain implementation in the same run: `make bench`.

    python benchmarks/inner_iteration.py                       # 1, 10 and 50 images per class: a quarter of an hour
    python benchmarks/inner_iteration.py --ipc 10 --quick      # less than a minute; keeps nothing

The last line of the output is JSON: `fast_s` and `reference_s` are the seconds of an average inner iteration
(matching and the network's training, and a tenth of a clustering), `ratio` the second over the first. Where the
dataset's files are not at hand, random pixels take their place.
"""

import argparse
import json
import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # as a script, only this file's folder is searched

from benchmarks.cutting import cut
from benchmarks.first_steps import machine
from benchmarks.inner_iteration import report
from benchmarks.inner_iteration.images import dataset_or_noise
from benchmarks.inner_iteration.measuring import Amount, measure, peaks
from benchmarks.load.cores import watching_cores
from dream_core.distillation import choose_device
from dream_core.host import keep_freed_memory, use_threads_for
from dream_core.recipes import MatchingRecipe, make_recipe

log = logging.getLogger("inner_iteration")
RESULTS = Path(__file__).parent / "results" / "inner_iteration"
QUICK = Amount(classes=1, minibatches=1, repeats=2, plain_once=True, evaluation=False, compile_s=8)
QUICK_PER_CLASS = 2000


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    options = arguments()
    if len(options.ipc) > 1:  # each in a process of its own, for the sake of its peak memory
        for ipc in options.ipc:
            # argparse takes the last of two
            subprocess.run([sys.executable, __file__, *sys.argv[1:], "--ipc", str(ipc)], check=True)
        return
    result = run(options, options.ipc[0])
    if not options.quick:
        report.keep(options.results, result)
    sys.stdout.write("\n".join(report.told(result)) + "\n")
    sys.stdout.write(json.dumps(report.summary(result)) + "\n")


def run(options: argparse.Namespace, ipc: int) -> report.Result:
    """Measure at one IPC."""
    keep_freed_memory()
    recipe = make_recipe("dream", options.dataset, ipc, options.seed, {"factor": options.factor})
    assert isinstance(recipe, MatchingRecipe)
    use_threads_for(recipe.image_size)
    if options.threads:
        torch.set_num_threads(options.threads)
    device = choose_device(options.device)
    dataset, images = dataset_or_noise(options.dataset, options.data_dir)
    log.info("%s, %d images per class: %s", options.dataset, ipc, images)
    amount = Amount(options.classes, options.minibatches, options.repeats, ways=options.ways)
    if options.quick:
        whole, dataset = len(dataset.train), cut(dataset, QUICK_PER_CLASS)
        amount = replace(QUICK, share=len(dataset.train) / whole)
    with watching_cores(psutil.Process()) as busy:
        result = peaks(recipe, device) | measure(recipe, dataset, device, amount)
    about = {
        "dataset": options.dataset, "images": images, "ipc": ipc, "factor": recipe.factor, "seed": recipe.seed,
        "interval": recipe.interval, "device": device.type, "machine": machine(device), "quick": options.quick,
        "others_cores": busy.others,
    }  # fmt: skip
    return about | result


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--data-dir", type=Path, default=Path(os.environ.get("DREAM_DATA_DIR", "data")))
    parser.add_argument("--ipc", type=int, nargs="+", help="1 10 50; 10 with --quick")
    parser.add_argument("--factor", type=int, default=2)
    parser.add_argument("--classes", type=int, default=3, help="that are measured")
    parser.add_argument("--minibatches", type=int, default=4, help="of the network that are measured")
    parser.add_argument("--repeats", type=int, default=3, help="the fastest of which counts")
    parser.add_argument("--quick", action="store_true", help="one class, less of everything")
    parser.add_argument(
        "--ways", action="store_true", help="measure the loop as written and in float32, too: a table of its own"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, help="of PyTorch; as many as it takes by itself")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    options.ipc = options.ipc or ([10] if options.quick else [1, 10, 50])
    return options


if __name__ == "__main__":
    main()
