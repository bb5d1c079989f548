"""Every method at a budget for CPUs, judged alike: `make bench-accuracy`.

    python benchmarks/accuracy.py                            # the whole table; what is kept is not run again
    python benchmarks/accuracy.py --only mnist,1 --only 'cifar10,*,dream*'
    python benchmarks/accuracy.py --report                   # the table again, from the cells that are kept
    python benchmarks/accuracy.py --search                   # what LR_FACTORS was chosen from

A cell is a dataset, images per class and a row (a method, or DREAM on one). Each runs in a fresh process on one thread
and is kept as JSON in results/accuracy/cells/ with a digest of its whole configuration. What the budget is, is in
BUDGET and the functions below it, and at the top of the table.
"""

import argparse
import hashlib
import json
import logging
import os
import platform
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch

from dream_core import evaluation as judge
from dream_core.datasets import Dataset, load_dataset
from dream_core.distillation import Distillation
from dream_core.errors import InvalidRecipe
from dream_core.evaluation import NetworkScore
from dream_core.host import keep_freed_memory
from dream_core.inventory import find
from dream_core.recipes import EvaluationRecipe, MatchingRecipe, Recipe, make_recipe, own_recipe, read_recipe

sys.path.insert(0, str(Path(__file__).parents[1]))  # as a script, only this file's folder is searched

from benchmarks import accuracy_report
from benchmarks.cutting import cut
from benchmarks.machine import processor
from benchmarks.published import published_accuracy

log = logging.getLogger("accuracy")
RESULTS = Path(__file__).parent / "results" / "accuracy"

# ---------------------------------------------------------------- the budget, common to all rows

BUDGET = {
    "width": 32,  # filters of the ConvNet, distilled with and judged by; published: 128
    "per_class": 500,  # the first training images of each class; digits has fewer and keeps them all
    "networks": 3,  # judges, fresh ones
    "steps": 64,  # inner iterations of dc, dsa, idc, dream, dream+
    "steps_dm": 192,  # dm's steps are a third as dear
    "eighth": 8,  # dream/8 takes so many times fewer
    "inner": 16,  # inner iterations per network of the idc family; published: 100
    "batch_idc": 32,  # real images per class and step; published: 64
    "batch_dream": 64,  # published: 128
    "batch_dc": 64,  # dc, dsa, dm, and dream on them; published: 256
    "n_data": 256,  # real images that a network of the idc family learns from per step; published: 500 to 2000
    "epochs_net": 5,  # passes over the synthetic images per step of dc and dsa at 10 images per class; published: 50
}
EPOCHS = {1: 200, 10: 60}
"""Passes over the set when it is judged, by images per class; published: 1000."""
EPOCHS_DIGITS = 300
EPOCHS_SOFT = 1000
"""Of a student of soft labels, whose gradients are small and whose optimiser is slow; published: 400."""

# What the published learning rates of the pixels, made for 200,000 steps at width 128, are multiplied by: one number
# per dataset and kind, for all rows of that kind. Chosen by --search (idc, dc and dm themselves at one image per class,
# never dream; seed 1, one network), whose numbers are in results/accuracy/search and at the end of the table, with the
# steps and epochs that each was searched with; of equal ones the lowest. FashionMNIST takes MNIST's, unsearched.
LR_FACTORS: dict[str, dict[str, float]] = {
    "digits": {"idc": 100, "dc": 1, "dm": 1},
    "mnist": {"idc": 100, "dc": 100, "dm": 1},
    "fashion_mnist": {"idc": 100, "dc": 100, "dm": 1},
    "cifar10": {"idc": 100, "dc": 10, "dm": 1},
}
SEARCHED = {"idc": (1, 10, 100, 1000), "dc": (1, 10, 100), "dm": (1, 10, 100)}
SEARCHED_DATASETS = ("digits", "mnist", "cifar10")
SEARCH_SEED = 1

ROWS = (
    "random", "herding", "k-center", "kmeans", "dc", "dsa", "dm", "idc", "dream", "dream/8", "dream+",
    "dream on dc", "dream on dsa", "dream on dm", "dd", "mtt", "sre2l",
)  # fmt: skip
_MAIN = ("random", "kmeans", "dc", "dsa", "dm", "idc", "dream", "dream/8", "dream+")
_PLUGGED = ("dream on dc", "dream on dsa", "dream on dm")
BLOCKS: tuple[tuple[str, int, tuple[str, ...]], ...] = (
    ("mnist", 1, ROWS),
    ("cifar10", 1, _MAIN + _PLUGGED),
    ("mnist", 10, ROWS),
    ("digits", 1, ROWS),
    ("digits", 10, ROWS),
    ("cifar10", 10, _MAIN + _PLUGGED),
    ("fashion_mnist", 1, _MAIN),
    ("fashion_mnist", 10, _MAIN),
)
"""Dataset, images per class and rows, in the order in which they are run."""
INTERVALS: tuple[tuple[str, int, tuple[str, ...]], ...] = (
    ("mnist", 1, ("dream on dm every 1", "dream on dm every 50", "dream on dm every 192")),
    ("cifar10", 1, ("dream on dm every 50", "dream on dm every 192")),
)
"""How often DREAM clusters for DM, whose networks live for one step; `dream on dm` itself does every 10 steps."""


@dataclass(frozen=True)
class Cell:
    """One measurement. `lr_factor` and another seed are for the search alone."""

    dataset: str
    ipc: int
    row: str
    seed: int = 0
    lr_factor: float | None = None

    @property
    def name(self) -> str:
        """The cell as a file is called."""
        row = self.row.replace("/", "-").replace(" ", "-")
        return f"{self.dataset}-ipc{self.ipc}-{row}" + ("" if self.lr_factor is None else f"-x{self.lr_factor:g}")

    @property
    def method(self) -> str:
        """The method of the recipe."""
        return "dream" if self.row.startswith("dream") and self.row != "dream+" else self.row

    @property
    def base(self) -> str:
        """The method that DREAM is plugged into; of others, the method itself."""
        if self.row.startswith("dream on "):
            return self.row.removeprefix("dream on ").partition(" ")[0]
        return "idc" if self.row.startswith("dream") else self.row

    @property
    def networks(self) -> int:
        """Networks that judge it."""
        return BUDGET["networks"] if self.lr_factor is None else 1


# ---------------------------------------------------------------- recipes


def recipe_of(cell: Cell) -> Recipe:
    """The recipe of a cell: the published one with the budget in place of some of its values."""
    params: dict[str, Any] = {"width": BUDGET["width"]}
    match cell.base:
        case "random" | "herding" | "k-center" | "kmeans":
            params |= _coreset(cell)
        case "idc":
            params |= _idc(cell)
        case "dc" | "dsa" | "dm":
            params |= _dc(cell)
        case "dd":
            params |= _dd(cell)
        case "mtt":
            params |= _mtt(cell)
        case "sre2l":
            params |= _sre2l(cell)
    return make_recipe(cell.method, cell.dataset, cell.ipc, cell.seed, params, protocol(cell))


def protocol(cell: Cell) -> dict[str, Any]:
    """How the set is judged: for all rows as IDC judges its sets of the dataset, whatever the row's own method or
    factor. DD's steps are replayed, and SRe2L's soft labels have an optimiser of their own."""
    epochs = EPOCHS_DIGITS if cell.dataset == "digits" else EPOCHS[cell.ipc]
    ours = {"network": "convnet", "width": BUDGET["width"], "norm": "instance", "epochs": epochs, "tests": 1,
            "repeats": cell.networks, "baselines": False, "ceiling": "none"}  # fmt: skip
    match cell.method:
        case "dd":
            return ours | {"epochs": 1}
        case "sre2l":
            return ours | {"epochs": EPOCHS_SOFT}
    return make_recipe("idc", cell.dataset, cell.ipc).evaluation.model_dump() | ours


def lr_img(cell: Cell, kind: str, **params: Any) -> float:
    """The pixels' learning rate: the published one, times the dataset's factor."""
    published = make_recipe(cell.method, cell.dataset, cell.ipc, params=params)
    assert isinstance(published, MatchingRecipe)
    return published.lr_img * (cell.lr_factor or LR_FACTORS[cell.dataset][kind])


def _coreset(cell: Cell) -> dict[str, Any]:
    return {"pretrain_epochs": 5} if cell.row in ("herding", "k-center") else {}


def _idc(cell: Cell) -> dict[str, Any]:
    factor = 1 if cell.dataset == "digits" else 2
    steps = BUDGET["steps"] // (BUDGET["eighth"] if cell.row == "dream/8" else 1)
    inner = min(steps, BUDGET["inner"])
    return {
        "factor": factor,
        "outer_iterations": steps // inner,
        "inner_iterations": inner,
        "batch_real": BUDGET["batch_idc" if cell.method == "idc" else "batch_dream"],
        "n_data": BUDGET["n_data"],
        "lr_img": lr_img(cell, "idc", factor=factor),
    }


def _dc(cell: Cell) -> dict[str, Any]:
    base: dict[str, Any] = {"base": cell.base} if cell.method == "dream" else {}
    base |= {"interval": int(cell.row.rpartition(" ")[2])} if " every " in cell.row else {}
    own = make_recipe(cell.method, cell.dataset, cell.ipc, params=base)
    assert isinstance(own, MatchingRecipe)
    inner = own.inner_iterations
    steps = BUDGET["steps_dm" if cell.base == "dm" else "steps"]
    return base | {
        "outer_iterations": steps // inner,
        "epochs_net": min(own.epochs_net, BUDGET["epochs_net"]),
        "batch_real": BUDGET["batch_dc"],
        "lr_img": lr_img(cell, "dm" if cell.base == "dm" else "dc", **base),
    }


def _dd(cell: Cell) -> dict[str, Any]:
    iterations = 220 if cell.ipc == 1 else 80
    return {"network": "convnet", "iterations": iterations, "batch_real": 128, "lr": 0.05, "lr_steps": 0.1,
            "decay_every": iterations // 3}  # fmt: skip


def _mtt(cell: Cell) -> dict[str, Any]:
    return {"experts": 3, "max_start_epoch": 2, "expert_epochs": 2, "student_steps": 20, "iterations": 60}


def _sre2l(cell: Cell) -> dict[str, Any]:
    roll = make_recipe("sre2l", cell.dataset, cell.ipc).image_size // 8  # published: 4 of 32 pixels
    return {"network": "convnet", "norm": "batch", "squeeze_epochs": 15, "iterations": 1000, "roll": roll,
            "label_epochs": EPOCHS_SOFT // 5}  # fmt: skip


def digest(cell: Cell, recipe: dict[str, Any]) -> str:
    """Sixteen hexadecimal digits of everything that decides a cell's numbers, the code apart."""
    about = {"cell": asdict(cell), "recipe": recipe, "per_class": BUDGET["per_class"]}
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]


# ---------------------------------------------------------------- one cell


def measure(cell: Cell, data_dir: Path, cache: Path) -> dict[str, Any]:
    """Distil and judge; everything that the table says of it."""
    dataset, recipe = cut(load_dataset(cell.dataset, data_dir), BUDGET["per_class"]), recipe_of(cell)
    start = time.perf_counter()
    distillation = Distillation(recipe, dataset, "cpu", cache=cache)
    seconds, steps = {"pretraining": 0.0}, 0
    for progress in distillation:
        steps += progress.phase == "distilling"
        if progress.phase == "pretraining":
            seconds["pretraining"] = time.perf_counter() - start
    seconds["distilling"] = time.perf_counter() - start - seconds["pretraining"]
    start = time.perf_counter()
    per_network = [tested(cell, recipe.evaluation, distillation, dataset, run) for run in range(cell.networks)]
    seconds["judging"] = time.perf_counter() - start
    score = judge.summarize([NetworkScore(accuracy, accuracy) for accuracy in per_network])
    images = len(distillation.training_set().labels)
    own = own_recipe(recipe)
    return {
        **asdict(cell),
        "digest": digest(cell, recipe.model_dump()),
        "judged": recipe.evaluation.mode,
        "factor": recipe.factor if isinstance(recipe, MatchingRecipe) else 1,
        "steps": recipe.steps,
        "steps_published": own.steps,
        "steps_distilling": steps,
        "epochs": recipe.evaluation.epochs,
        "updates": updates(recipe, images),
        "mean": score.mean,
        "std": score.std,
        "n": score.n,
        "per_network": per_network,
        "published": published_accuracy(cell.dataset, cell.ipc, cell.row),
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "cpu_seconds": round(time.process_time(), 1),
        "recipe": recipe.model_dump(),
        "machine": machine(),
    }


def tested(cell: Cell, how: EvaluationRecipe, distillation: Distillation, dataset: Dataset, run: int) -> float:
    """Accuracy in percent of one fresh network. Every network of the random row has random images of its own."""
    drawn = judge.random_real(dataset.train, cell.ipc, cell.seed, run) if cell.row == "random" else ()
    training = distillation.training_set(*drawn)
    # the key is the same in all rows: the networks start alike
    epochs = judge.train_and_test(training, dataset, how, cell.seed, ("accuracy", run), distillation.device)
    return [epoch.accuracy for epoch in epochs if epoch.accuracy is not None][-1]


def updates(recipe: Recipe, images: int) -> int:
    """Gradient steps that a judge takes."""
    how = recipe.evaluation
    if how.mode == "replay":
        return recipe.model_dump()["distill_steps"] * recipe.model_dump()["distill_epochs"]
    return how.epochs * -(-images // how.batch_size)


def machine() -> dict[str, str | int]:
    """Processor and versions, without the machine's name."""
    return {
        "cpu": processor(),
        "cores": os.cpu_count() or 1,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


# ---------------------------------------------------------------- all cells


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stdout)
    options = arguments()
    if options.cell:
        return run_here(Cell(**json.loads(options.cell)), options)
    start = time.monotonic()
    folder = RESULTS / ("search" if options.search else "cells")
    wanted = [cell for cell in (searched() if options.search else table()) if chosen(cell, options.only)]
    kept = [] if options.fresh else [cell for cell in wanted if read(cell, folder)]
    ran, failed = ([], {}) if options.report else run_all(available(wanted, kept, options.data_dir), options)
    write_report(failed)
    log.info("%d cells ran, %d were kept, %d failed, in %.1f minutes",
             len(ran), len(kept), len(failed), (time.monotonic() - start) / 60)  # fmt: skip
    return 1 if failed else 0


def table() -> list[Cell]:
    """The cells of the table, in the order in which they are run."""
    return [Cell(dataset, ipc, row) for dataset, ipc, rows in BLOCKS + INTERVALS for row in rows]


def searched() -> list[Cell]:
    """The cells that LR_FACTORS was chosen from."""
    return [Cell(dataset, 1, row, SEARCH_SEED, factor)
            for dataset in SEARCHED_DATASETS for row, factors in SEARCHED.items() for factor in factors]  # fmt: skip


def chosen(cell: Cell, only: list[str]) -> bool:
    """Whether a filter lets the cell through: `dataset,ipc,row`, each a pattern; what is left out is anything."""
    values = (cell.dataset, str(cell.ipc), cell.row)
    return not only or any(
        all(fnmatchcase(value, pattern or "*") for value, pattern in zip(values, text.split(","), strict=False))
        for text in only
    )


def available(wanted: list[Cell], kept: list[Cell], data_dir: Path) -> list[Cell]:
    """The cells to be run: those that are not kept, of datasets whose files are there."""
    found = {dataset: find(dataset, data_dir) for dataset in dict.fromkeys(cell.dataset for cell in wanted)}
    for state in found.values():
        if not state.available:
            log.info("%s is skipped: %s", state.name, state.advice)
    return [cell for cell in wanted if cell not in kept and found[cell.dataset].available]


def run_all(cells: list[Cell], options: argparse.Namespace) -> tuple[list[Cell], dict[Cell, str]]:
    """Run the cells, several at a time, each in a process of its own; those that ran, and why the others did not."""
    ran: list[Cell] = []
    failed: dict[Cell, str] = {}
    with ThreadPoolExecutor(options.jobs) as pool:
        running = {pool.submit(run_apart, cell, options): cell for cell in cells}
        try:
            for number, done in enumerate(as_completed(running), start=1):
                cell, (problem, seconds) = running[done], done.result()
                result = read(cell, RESULTS / ("search" if options.search else "cells"))
                if problem or result is None:
                    failed[cell] = problem or "the process ended well and left no result"
                    log.info("%d/%d %s FAILED: %s", number, len(cells), cell.name, failed[cell])
                else:
                    ran.append(cell)
                    log.info("%d/%d %s: %.1f ± %.1f %% in %.0f s %s", number, len(cells), cell.name, result["mean"],
                             result["std"], seconds, result["seconds"])  # fmt: skip
        except KeyboardInterrupt:  # the cells in flight are interrupted, too: the terminal tells the whole group
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return ran, failed


def run_apart(cell: Cell, options: argparse.Namespace) -> tuple[str | None, float]:
    """Run a cell in a fresh process; return the last line of its complaint, if it failed, and its seconds."""
    command = [sys.executable, __file__, "--cell", json.dumps(asdict(cell)), "--data-dir", str(options.data_dir),
               "--cache", str(options.cache), *(["--search"] if options.search else [])]  # fmt: skip
    start = time.monotonic()
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False
    )
    complaint = [line for line in done.stderr.splitlines() if line.strip()]
    problem = (complaint or [f"exit code {done.returncode}"])[-1] if done.returncode else None
    return problem, time.monotonic() - start


def run_here(cell: Cell, options: argparse.Namespace) -> int:
    """Measure a cell in this process, and keep it."""
    keep_freed_memory()
    torch.set_num_threads(1)
    result = measure(cell, options.data_dir, options.cache)
    folder = RESULTS / ("search" if options.search else "cells")
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{cell.name}.tmp"
    partial.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    partial.replace(folder / f"{cell.name}.json")
    return 0


def read(cell: Cell, folder: Path, of_any: bool = False) -> dict[str, Any] | None:
    """The kept result of a cell, where there is one of this very configuration, or `of_any`.

    What recipes did not have when it was kept is at its default.
    """
    try:
        result = json.loads((folder / f"{cell.name}.json").read_text(encoding="utf-8"))
        return result if of_any or _is_of(cell, result) else None
    except (OSError, ValueError, InvalidRecipe):
        return None


def _is_of(cell: Cell, result: dict[str, Any]) -> bool:
    same = digest(cell, result["recipe"]) == result["digest"]
    return same and read_recipe(result["recipe"]) == recipe_of(cell)


def write_report(failed: dict[Cell, str]) -> None:
    """The table of all kept cells, whatever was asked for in this run."""
    cells = [result for cell in table() if (result := read(cell, RESULTS / "cells"))]
    # the budget may have been cut since: the table says what each was searched with
    search = [result for cell in searched() if (result := read(cell, RESULTS / "search", of_any=True))]
    if not cells:
        log.info("there is no cell to report")
        return
    complaints = {(cell.dataset, cell.ipc, cell.row): why for cell, why in failed.items() if cell.lr_factor is None}
    plan = accuracy_report.Plan(ROWS, BLOCKS, INTERVALS, budget_in_words())
    for path in accuracy_report.write(cells, search, complaints, plan, RESULTS):
        log.info("wrote %s", path)


def budget_in_words() -> tuple[str, ...]:
    """What is common to all rows, as paragraphs."""
    b, seed = BUDGET, Cell("mnist", 1, "random").seed
    factors = "; ".join(
        f"{dataset} {', '.join(f'{kind} {value:g}' for kind, value in kinds.items())}"
        for dataset, kinds in LR_FACTORS.items()
    )
    at_ten = b["steps"] // 10
    return (
        f"**Budget.** Networks are ConvNets of width {b['width']} (published: 128), the same to distil with and to "
        f"judge by. Training images are the first {b['per_class']} of each class (digits: all), test images all. "
        f"dc, dsa, idc, dream and dream+ run {b['steps']} steps (inner iterations, every class once), dream/8 "
        f"{b['steps'] // b['eighth']} in a single network, dm and dream on dm {b['steps_dm']}, whose steps are "
        f"cheaper. idc, dream and dream+ take {b['inner']} steps per network (published: 100) and train it on "
        f"{b['n_data']} real images after each; dc and dsa take 1 at one image per class, and at 10 {at_ten} networks "
        f"x 10 steps with {b['epochs_net']} passes over the set after each (published: 50). Real images per class and "
        f"step: idc {b['batch_idc']} and dream {b['batch_dream']} (half of the published 64 and 128), dc, dsa, dm and "
        f"dream on them {b['batch_dc']} (published: 256). idc, dream, dream/8 and dream+ store factor x factor smaller "
        f"images in each image; all others have factor 1. Seed {seed} everywhere.",
        f"**Pixels' learning rates** are the published ones, made for many more steps, times one factor per dataset "
        f"and kind, the same for every row of the kind (idc: dream, dream/8 and dream+, too; dc: dsa and DREAM on "
        f"both; dm: DREAM on dm): {factors}. How they were chosen is at the end.",
        f"**Protocol.** Every set is judged as IDC judges sets of its dataset (SGD 0.01, momentum 0.9, batch 64, its "
        f"augmentation and CutMix), whatever the row's own method, for {EPOCHS[1]} epochs at one image per class and "
        f"{EPOCHS[10]} at 10 ({EPOCHS_DIGITS} on digits; published: 1000), tested once at the end. Two rows cannot be "
        "judged so and say it: dd replays its own steps, and sre2l learns by its own optimiser from soft labels of "
        f"{EPOCHS_SOFT // 5} views, which it sees {EPOCHS_SOFT} epochs long. An epoch is a pass over the decoded "
        "images, of which factor 2 has four times as many; the column of updates says what that comes to.",
        f"**n = {b['networks']}** networks, of which ± is the sample deviation. They share one set, so it leaves out "
        "how another seed would have distilled; random draws new images for each network, so there it is included. "
        "Published figures are for the full budget (width 128, all training images, all steps), and blank where none "
        "was checked.",
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=Path(os.environ.get("DREAM_DATA_DIR", "data")))
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "dream-bench-cache",
                        help="where MTT's experts and SRe2L's teachers are kept")  # fmt: skip
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="cells at a time")
    parser.add_argument("--only", action="append", default=[], metavar="DATASET,IPC,ROW", help="patterns; repeatable")
    parser.add_argument("--fresh", action="store_true", help="run cells that are kept, too")
    parser.add_argument("--report", action="store_true", help="run nothing, write the table of the kept cells")
    parser.add_argument("--search", action="store_true", help="run the search of LR_FACTORS instead of the table")
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
