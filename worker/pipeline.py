"""A job from its recipe to its files: load, distil, evaluate, publish.

Between any two steps it asks whether it should stop; what was done is in a checkpoint by then. A run that is started
again with the same recipe, data and checkpoint directory goes on from there and ends with the same bytes.
"""

import json
import platform
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from dream_core.datasets import load_dataset
from dream_core.distillation import choose_device
from dream_core.formats import Result, write_result
from dream_core.recipes import EvaluationRecipe, Recipe, is_published, own_recipe, read_recipe
from worker.checkpoint import CheckpointStore, identity
from worker.distilling import Distilling
from worker.judging import Judging
from worker.reporting import Reporter

# How often and beside what a set is judged does not change what is judged.
_HOW_OFTEN = {
    name: EvaluationRecipe.model_fields[name].default for name in ("repeats", "baselines", "ceiling", "ceiling_epochs")
}


@dataclass(frozen=True)
class Job:
    """What the runner is told: `job.json` in its working directory."""

    job_id: str
    recipe: Recipe
    data_dir: Path
    checkpoints: Path
    output: Path
    cache: Path | None = None
    """Where experts and teachers are kept for later jobs; none keeps them for this one alone."""
    download: bool = False
    device: str = "auto"
    checkpoint_interval_s: float = 60
    attempt: int = 1
    grace_s: float | None = None
    """Seconds from SIGTERM to a checkpoint; the process ends by itself after them."""

    @classmethod
    def read(cls, path: Path) -> "Job":
        """The job of a `job.json`."""
        fields = json.loads(path.read_text(encoding="utf-8"))
        places = ("data_dir", "checkpoints", "output", "cache")
        paths = {name: Path(fields.pop(name)) for name in places if fields.get(name)}
        return cls(recipe=read_recipe(fields.pop("recipe")), **paths, **fields)


def run(job: Job, report: Reporter, stopping: Callable[[], bool]) -> dict[str, Any]:
    """Do the whole job; return the summary of its result.

    `stopping` is asked after every step; `report` takes the events. Raises Interrupted where it was asked to stop,
    DreamError for what the user can mend, OSError for the disk.
    """
    device = choose_device(job.device)
    report.event("phase", phase="loading")
    dataset = load_dataset(job.recipe.dataset, job.data_dir, job.recipe.image_size, job.download)
    checkpoints = CheckpointStore(job.checkpoints, identity(job.recipe, dataset.fingerprint))

    distilling = Distilling(
        job.recipe, dataset, device, checkpoints, job.checkpoint_interval_s, report, stopping, job.cache
    )
    distillation = distilling.finish()

    report.event("phase", phase="evaluating")
    judging = Judging(job.recipe, distillation, dataset, checkpoints.beside("scores.json"), report, stopping)
    evaluation, baselines = judging.evaluation(), judging.baselines()

    report.event("phase", phase="publishing")
    result = Result(
        distillation.synthetic, judging.training, job.recipe, dataset, distilling.curve(), evaluation,
        baselines, provenance(job.job_id, device),
    )  # fmt: skip
    write_result(result, job.output)
    return summary(job.recipe, evaluation, baselines, {"distil": distilling.seconds, "evaluate": judging.seconds})


def provenance(job_id: str, device: torch.device) -> dict[str, Any]:
    """Where, when and with what a result was made."""
    on_gpu = device.type == "cuda"
    return {
        "job_id": job_id,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "software": {
            "dream": version("dream-distillation"),
            "torch": torch.__version__,
            "cuda": torch.version.cuda if on_gpu else None,
            "gpu": torch.cuda.get_device_name(device) if on_gpu else None,
            "python": platform.python_version(),
            "threads": torch.get_num_threads(),
        },
    }


def summary(
    recipe: Recipe, evaluation: dict[str, Any], baselines: dict[str, Any], seconds: dict[str, float]
) -> dict[str, Any]:
    """The few numbers that a job shows."""

    def short(score: dict[str, Any] | None) -> dict[str, Any] | None:
        return score and {name: value for name, value in score.items() if name not in ("per_run", "best_mean")}

    return {
        "accuracy": {name: evaluation[name] for name in ("mean", "std", "n", "best_mean")},
        "baselines": {name: short(score) for name, score in baselines.items()},
        "protocol_hash": evaluation["protocol_hash"],
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "budget": budget(recipe),
    }


def budget(recipe: Recipe) -> dict[str, Any]:
    """Steps and epochs, the recipe's own before anything was overridden, and whether the papers ran all of it so."""
    own = own_recipe(recipe)
    as_published = {"evaluation": recipe.evaluation.model_copy(update=_HOW_OFTEN)}
    return {
        "steps": recipe.steps,
        "recipe_steps": own.steps,
        "epochs": recipe.evaluation.epochs,
        "recipe_epochs": own.evaluation.epochs,
        "published": is_published(recipe) and recipe.model_copy(update=as_published) == own,
    }
