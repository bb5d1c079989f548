"""How the cost of DREAM grows: seconds of an inner iteration by part and peak memory, against each size alone.

    python benchmarks/scaling.py                      # twelve points, each in a process of its own: ten minutes
    python benchmarks/scaling.py --again              # once more; of each point the faster run is kept
    python benchmarks/scaling.py --quick              # smaller ones, in two minutes; keeps nothing
    python benchmarks/scaling.py --report             # table and plot anew, from what is kept

The sizes are images per class, classes, real images per class, and pixels of a side, around CIFAR-10 at 10 images per
class. The images are random pixels throughout, so that k-means has the same to do at every size. A part of the classes
and minibatches is measured, and the rest taken to be proportional, as in `inner_iteration.py`. PyTorch has as many
threads at every size; a job would take one for images of up to 16 pixels.
"""

import argparse
import json
import logging
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))  # as a script, only this file's folder is searched

from benchmarks.first_steps import machine
from benchmarks.inner_iteration.measuring import Amount
from benchmarks.load.cores import watching_cores
from benchmarks.scaling import report
from benchmarks.scaling.points import QUICK_BASE, QUICK_SIZES, SIZES, Point, measure_point, points
from dream_core.computing import lacks_compiler
from dream_core.distillation import choose_device
from dream_core.host import keep_freed_memory

log = logging.getLogger("scaling")
RESULTS = Path(__file__).parent / "results" / "scaling"


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    options = arguments()
    if options.point:
        sys.stdout.write(json.dumps(run(Point(**json.loads(options.point)), options)) + "\n")
        return
    kept = options.results / "scaling.json"
    result = json.loads(kept.read_text(encoding="utf-8")) if options.report or options.again else {}
    if not options.report:
        result = run_all(options, result.get("points", []))
    if not options.quick:
        report.keep(options.results, result)
    sys.stdout.write("\n".join(report.markdown(result)) + "\n")


def run_all(options: argparse.Namespace, earlier: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Measure every point. Of one that was measured earlier, the faster measurement counts."""
    base = QUICK_BASE if options.quick else Point()
    found = []
    for point in points(base, QUICK_SIZES if options.quick else SIZES):
        command = [sys.executable, __file__, *sys.argv[1:], "--point", json.dumps(asdict(point))]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        latest = json.loads(done.stdout.splitlines()[-1])
        runs = [latest, *(each for each in earlier if each["sizes"] == latest["sizes"])]
        found.append(min(runs, key=lambda each: each["total_s"]) | {"runs": sum(each["runs"] for each in runs)})
        log.info("%s: %.2f s, %.2f GB", point, found[-1]["total_s"], found[-1]["peak_bytes"] / 1e9)
    about = {name: found[0][name] for name in ("device", "machine", "measured")}
    return about | {
        "base": asdict(base),
        "quick": options.quick,
        "others_cores": max(each["others_cores"] for each in found),
        "points": found,
    }


def run(point: Point, options: argparse.Namespace) -> dict[str, Any]:
    """Measure one, in this process."""
    keep_freed_memory()
    device = choose_device(options.device)
    amount = Amount(options.classes, options.minibatches, options.repeats, evaluation=False)
    with watching_cores(psutil.Process()) as busy:
        result = measure_point(point, device, amount, compiled=not lacks_compiler(device.type))
    return result | {"device": device.type, "machine": machine(device), "others_cores": busy.others, "runs": 1}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=1, help="that are measured")
    parser.add_argument("--minibatches", type=int, default=2, help="of the network that are measured")
    parser.add_argument("--repeats", type=int, default=2, help="the fastest of which counts")
    parser.add_argument("--quick", action="store_true", help="small sizes; keeps nothing")
    parser.add_argument("--again", action="store_true", help="of each point, keep the faster of this and the kept run")
    parser.add_argument("--report", action="store_true", help="measure nothing")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--point", help="measure this one alone: JSON of its sizes")
    return parser.parse_args()


if __name__ == "__main__":
    main()
