"""A job from its recipe to its files: load, distil, evaluate, publish.

Between any two steps it asks whether it should stop; what was done is in a checkpoint by then. A run that is started
again with the same recipe, data and checkpoint directory goes on from there and ends with the same bytes.
"""

import platform
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import torch

from dream_core.datasets import Dataset, load_dataset
from dream_core.distillation import Distillation, choose_devices
from dream_core.formats import Result, write_result
from dream_core.recipes import Computed, EvaluationRecipe, Recipe, check_divides, is_published, own_recipe
from worker.checkpoint import CheckpointStore
from worker.distilling import Distilling
from worker.judging import Judging
from worker.order import Job
from worker.reporting import Interrupted, Reporter
from worker.sharing import shared
from worker.stopping import Stopping

# How often and beside what a set is judged does not change what is judged.
_HOW_OFTEN = {
    name: EvaluationRecipe.model_fields[name].default for name in ("repeats", "baselines", "ceiling", "ceiling_epochs")
}
# Nor does how networks are computed.
_BY_ROUNDING = {name: field.default for name, field in Computed.model_fields.items()}


def run(job: Job, report: Reporter, stopping: Stopping) -> dict[str, Any]:
    """Do the whole job; return the summary of its result.

    `stopping` is asked after every step; `report` takes the events. Raises Interrupted where it was asked to stop,
    DreamError for what the user can mend, OSError for the disk.
    """
    devices = choose_devices(job.device, job.gpus)
    device = devices[0]
    report.event("phase", phase="loading")
    dataset = load_dataset(job.recipe.dataset, job.data_dir, job.recipe.image_size, job.download)
    check_divides(job.recipe, job.gpus, len(dataset.class_names))
    checkpoints = CheckpointStore(job.checkpoints, job.recipe, dataset.fingerprint, report.warning)
    distilling: Distilling | None = None
    try:
        with shared(job, devices, report) as ranks:
            distilling = Distilling(job, dataset, device, checkpoints, report, stopping, ranks)
            distillation = distilling.finish()
        report.event("phase", phase="evaluating")
        judging = Judging(job.recipe, distillation, dataset, checkpoints.beside("scores.json"), report, stopping)
        evaluation, baselines = judging.evaluation(), judging.baselines()
    except Interrupted:
        if not (stopping.for_good and distilling and distilling.losses):
            raise
        raise Interrupted(keep_partial(job, distilling, dataset, report)) from None

    report.event("phase", phase="publishing")
    result = Result(
        distillation.synthetic, judging.training, job.recipe, dataset, distilling.curve(), evaluation,
        baselines, provenance(job.job_id, distillation),
    )  # fmt: skip
    write_result(result, job.output)
    return summary(job.recipe, evaluation, baselines, {"distil": distilling.seconds, "evaluate": judging.seconds})


def keep_partial(job: Job, distilling: Distilling, dataset: Dataset, report: Reporter) -> dict[str, Any] | None:
    """Leave what there is of the set as a result; return its summary. A full disk costs it: None then."""
    distillation = distilling.distillation
    step, steps = distillation.step_number, job.recipe.steps
    result = Result(
        distillation.synthetic, distillation.training_set(), job.recipe, dataset, distilling.curve(), None,
        {}, provenance(job.job_id, distillation), steps_done=step,
    )  # fmt: skip
    try:
        write_result(result, job.output)
    except OSError as error:
        told = f"what step {step} of {steps} had made could not be kept as a result: {error.strerror}"
        report.warning("PARTIAL_NOT_KEPT", told)
        return None
    distilling.draw()
    report.event("log", message=f"kept what step {step} of {steps} had made as a partial result")
    return {"partial": True, "step": step, "steps": steps}


def provenance(job_id: str, distillation: Distillation) -> dict[str, Any]:
    """Where, when and with what a result was made."""
    device, computing = distillation.device, distillation.computing
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
            "compiled": computing.compiled,
            "convolutions": "bfloat16" if computing.bfloat16 else "float32",
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
    as_published = {"evaluation": recipe.evaluation.model_copy(update=_HOW_OFTEN | _BY_ROUNDING)}
    if isinstance(recipe, Computed):
        as_published |= _BY_ROUNDING
    return {
        "steps": recipe.steps,
        "recipe_steps": own.steps,
        "epochs": recipe.evaluation.epochs,
        "recipe_epochs": own.evaluation.epochs,
        "published": is_published(recipe) and recipe.model_copy(update=as_published) == own,
    }
