"""The distilling phase: resumes where it can, checkpoints on time and when it is asked to stop."""

import time
from collections.abc import Callable
from pathlib import Path

import torch

from dream_core.datasets import Dataset
from dream_core.distillation import Distillation
from dream_core.errors import Diverged
from dream_core.methods import Progress
from dream_core.recipes import Recipe
from worker.checkpoint import CheckpointStore
from worker.reporting import Eta, Interrupted, Reporter

CURVE_POINTS = 2000


class Distilling:
    """A distillation with its checkpoints. Taken up where the newest checkpoint of this recipe and data left it."""

    def __init__(
        self,
        recipe: Recipe,
        dataset: Dataset,
        device: torch.device,
        checkpoints: CheckpointStore,
        interval_s: float,
        report: Reporter,
        stopping: Callable[[], bool],
        cache: Path | None = None,
    ):
        self.checkpoints, self.interval_s = checkpoints, interval_s
        self.report, self.stopping = report, stopping
        saved = checkpoints.latest()
        self.losses: dict[int, float] = {}
        """The matching loss by step; steps before and after the distillation proper have none."""
        if saved:
            steps, losses = saved.tensors.pop("loss_steps").tolist(), saved.tensors.pop("losses").tolist()
            self.losses = dict(zip(steps, losses, strict=True))
        self.seconds = saved.seconds if saved else 0.0
        self.phase: str | None = None
        self.distillation = Distillation(recipe, dataset, device, state=saved and saved.tensors, cache=cache)
        self._saved_step, self._saved_at = saved.step if saved else -1, time.monotonic()
        if saved:
            report.event("log", message=f"resumed at step {saved.step} of {recipe.steps}")

    def finish(self) -> Distillation:
        """Do the steps that remain, and keep the end as a checkpoint.

        Raises Interrupted once that is saved; Diverged with the last good state saved.
        """
        eta = Eta(self.distillation.step_number, self.distillation.recipe.steps)
        started = time.monotonic() - self.seconds
        try:
            for progress in self.distillation:
                self.seconds = time.monotonic() - started
                self.tell(progress, eta.at(progress.step))
                if self.stopping():
                    self.save()
                    raise Interrupted
                if time.monotonic() - self._saved_at >= self.interval_s:
                    self.save()
        except Diverged:
            self.save()
            raise
        self.save()
        return self.distillation

    def tell(self, progress: Progress, remaining: float | None) -> None:
        """Report a step, and the phase that it begins."""
        if progress.phase != self.phase:
            self.phase = progress.phase
            self.report.event("phase", phase=progress.phase)
        if progress.phase == "distilling":
            self.losses[progress.step] = progress.loss
        pace = round(sum(progress.seconds.values()), 4)
        self.report.metric(progress.step, progress.steps, loss=progress.loss, step_seconds=pace, eta_s=remaining)

    def save(self) -> None:
        """Write a checkpoint, unless this step has one. A full disk costs the checkpoint, not the run."""
        step, start = self.distillation.step_number, time.monotonic()
        if step == self._saved_step:
            return
        tensors = self.distillation.state_dict() | {
            "loss_steps": torch.tensor(list(self.losses), dtype=torch.int64),
            "losses": torch.tensor(list(self.losses.values()), dtype=torch.float64),
        }
        try:
            size = self.checkpoints.save(step, self.seconds, tensors)
        except OSError as error:
            told = (
                f"step {step} could not be saved: {error.strerror}. The run goes on; the last checkpoint is as it was"
            )
            self.report.event("warning", code="CHECKPOINT_FAILED", message=told)
        else:
            self._saved_step = step
            self.report.event("checkpoint", step=step, bytes=size, seconds=round(time.monotonic() - start, 3))
        self._saved_at = time.monotonic()

    def curve(self) -> list[tuple[int, float]]:
        """The matching loss by step, thinned to at most CURVE_POINTS and the last."""
        every, last = -(-len(self.losses) // CURVE_POINTS), len(self.losses)
        points = enumerate(self.losses.items(), start=1)
        return [point for number, point in points if number % every == 0 or number == last]
