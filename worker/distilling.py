"""The distilling phase: resumes where it can, checkpoints on time and when it is asked to stop."""

import time
from collections.abc import Callable

import torch

from dream_core.datasets import Dataset
from dream_core.distillation import Distillation
from dream_core.errors import Diverged
from dream_core.methods import Progress
from dream_core.ranks import ALONE, Ranks
from worker.cadence import Cadence
from worker.checkpoint import Checkpoint, CheckpointStore
from worker.order import Job
from worker.previews import Previews
from worker.reporting import Eta, Interrupted, Reporter

CURVE_POINTS = 2000


class Distilling:
    """A distillation with its checkpoints. Taken up where the newest checkpoint of this recipe and data left it, or
    where that of another job did which this one continues."""

    def __init__(
        self,
        job: Job,
        dataset: Dataset,
        device: torch.device,
        checkpoints: CheckpointStore,
        report: Reporter,
        stopping: Callable[[], bool],
        ranks: Ranks = ALONE,
    ):
        self.checkpoints, self.report, self.stopping = checkpoints, report, stopping
        saved = self._saved(job)
        self.losses: dict[int, float] = {}
        """The matching loss by step; steps before and after the distillation proper have none."""
        if saved:
            steps, losses = saved.tensors.pop("loss_steps").tolist(), saved.tensors.pop("losses").tolist()
            self.losses = dict(zip(steps, losses, strict=True))
        self.seconds = saved.seconds if saved else 0.0
        self.phase: str | None = None
        state = saved.tensors if saved else None
        self.distillation = Distillation(job.recipe, dataset, device, state, cache=job.cache, ranks=ranks)
        self.previews = Previews(job.previews, report)
        self._cadence = Cadence(job.checkpoint_interval_s)

    def _saved(self, job: Job) -> Checkpoint | None:
        """What there is to go on from. Raises DreamError where that is another job's and does not fit."""
        self._saved_step = -1
        if own := self.checkpoints.latest():
            self._saved_step = own.step
            self.report.event("log", message=f"resumed at step {own.step} of {job.recipe.steps}")
            return own
        if job.start_from:
            theirs = self.checkpoints.taken_over(job.start_from)
            told = f"resumed at step {theirs.step} of {job.recipe.steps}, which another job had reached"
            self.report.event("log", message=told)
            return theirs
        return None

    def finish(self) -> Distillation:
        """Do the steps that remain, and keep the end as a checkpoint.

        Raises Interrupted once that is saved; Diverged with the last good state saved.
        """
        eta = Eta(self.distillation.step_number, self.distillation.recipe.steps)
        started = time.monotonic() - self.seconds
        try:
            for progress in self.distillation:
                self.seconds = time.monotonic() - started
                told, stop, due = self.tell(progress, eta.at(progress.step)), self.stopping(), self._cadence.due()
                if (told or stop or due) and not self.is_finite():
                    raise Diverged(f"a pixel is not finite at step {progress.step}; lower the learning rate of pixels")
                if progress.phase == "distilling":
                    self.previews.offer(progress.step, self.distillation.synthetic)
                if stop or due:
                    self.save()
                if stop:
                    raise Interrupted
        except Diverged:
            if self.is_finite():
                self.save()
            raise
        self.save()
        self.draw()
        return self.distillation

    def tell(self, progress: Progress, remaining: float | None) -> bool:
        """Report a step, and the phase that it begins. Returns whether progress was due to be told."""
        if progress.phase != self.phase:
            self.phase = progress.phase
            self.report.event("phase", phase=progress.phase)
        if progress.phase == "distilling":
            self.losses[progress.step] = progress.loss
        pace = round(sum(progress.seconds.values()), 4)
        return self.report.metric(progress.step, progress.steps, loss=progress.loss, step_seconds=pace, eta_s=remaining)

    def is_finite(self) -> bool:
        """Whether every pixel is a number still. A step looks at its loss and gradients alone."""
        return bool(self.distillation.synthetic.images.isfinite().all())

    def save(self) -> None:
        """Write a checkpoint, unless this step has one. A full disk costs the checkpoint, not the run."""
        step = self.distillation.step_number
        if step == self._saved_step:
            return
        start, loss = time.monotonic(), self.losses.get(step)
        try:
            with self._cadence.turn():
                size = self.checkpoints.save(Checkpoint(step, self.seconds, self._tensors()), self.phase, loss)
        except OSError as error:
            told = (
                f"step {step} could not be saved: {error.strerror}. The run goes on; the last checkpoint is as it was"
            )
            self.report.warning("CHECKPOINT_FAILED", told)
        else:
            self._saved_step = step
            about = {"step": step, "total": self.distillation.recipe.steps, "phase": self.phase, "loss": loss}
            self.report.event("checkpoint", **about, bytes=size, seconds=round(time.monotonic() - start, 3))

    def _tensors(self) -> dict[str, torch.Tensor]:
        return self.distillation.state_dict() | {
            "loss_steps": torch.tensor(list(self.losses), dtype=torch.int64),
            "losses": torch.tensor(list(self.losses.values()), dtype=torch.float64),
        }

    def draw(self) -> None:
        """Draw the set as it stays."""
        self.previews.finish(self.distillation.step_number, self.distillation.synthetic)

    def curve(self) -> list[tuple[int, float]]:
        """The matching loss by step, thinned to at most CURVE_POINTS and the last."""
        every, last = -(-len(self.losses) // CURVE_POINTS), len(self.losses)
        points = enumerate(self.losses.items(), start=1)
        return [point for number, point in points if number % every == 0 or number == last]
