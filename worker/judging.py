"""The evaluating phase: every network's score is kept as it comes, so that none is measured twice."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dream_core import evaluation as judge
from dream_core.datasets import Dataset
from dream_core.distillation import Distillation
from dream_core.recipes import Recipe, own_recipe
from dream_core.subject import TrainingSet
from jobs.files import atomic_write
from worker.reporting import Eta, Interrupted, Reporter

Subject = Callable[[int], TrainingSet]
"""What the network of a run is trained on."""


class Judging:
    """Judges a synthetic set and what it is held against, by one protocol."""

    def __init__(
        self,
        recipe: Recipe,
        distillation: Distillation,
        dataset: Dataset,
        kept: Path,
        report: Reporter,
        stopping: Callable[[], bool],
    ):
        self.recipe, self.protocol, self.dataset = recipe, recipe.evaluation, dataset
        self.distillation, self.training = distillation, distillation.training_set()
        self.path, self.report, self.stopping = kept, report, stopping
        self.kept = _read(kept)
        self.seconds = float(self.kept.get("seconds", 0.0))
        self.ceiling_epochs = judge.ceiling_epochs(self.protocol, dataset)
        epochs = self.protocol.epochs * (1 + self.protocol.baselines) + (self.ceiling_epochs or 0)
        self.done, self.total = 0, self.protocol.repeats * epochs
        self.eta: Eta | None = None

    def evaluation(self) -> dict[str, Any]:
        """The synthetic set's score, with the protocol that it stands for."""
        score = self._judge("synthetic", lambda _: self.training, self.protocol.epochs)
        return {
            "protocol_hash": judge.protocol_hash(self.protocol, self.dataset.fingerprint, self.recipe.image_size),
            "protocol": self.protocol.model_dump(),
            "published_epochs": own_recipe(self.recipe).evaluation.epochs,
            **asdict(score),
        }

    def baselines(self) -> dict[str, Any]:
        """As many random real images per class, and the whole training set, under the same protocol."""
        return {"random": self._random(), "full": self._full()}

    def _random(self) -> dict[str, Any] | None:
        if not self.protocol.baselines:
            return None
        train, ipc, seed = self.dataset.train, self.recipe.ipc, self.recipe.seed

        def drawn(run: int) -> TrainingSet:
            return self.distillation.training_set(*judge.random_real(train, ipc, seed, run))

        return asdict(self._judge("random", drawn, self.protocol.epochs))

    def _full(self) -> dict[str, Any] | None:
        whole = self.dataset.train
        if self.ceiling_epochs:
            plain = TrainingSet(whole.images, whole.labels, self.training.transform, lr=self.training.lr)
            score = self._judge("full", lambda _: plain, self.ceiling_epochs)
            return asdict(score) | {"source": "measured", "epochs": self.ceiling_epochs}
        published = judge.published_ceiling(self.protocol, self.dataset)
        return None if published is None else {"mean": published, "std": None, "n": None, "source": "published"}

    def _judge(self, subject: str, training: Subject, epochs: int) -> judge.Score:
        """Train and test `repeats` networks, but those that an earlier attempt has done."""
        scores = []
        for run in range(self.protocol.repeats):
            key = f"{subject}.{run}"
            if key in self.kept:
                self.done += epochs
            else:
                self.kept[key] = asdict(self._network(subject, run, training(run), epochs))
                self._keep()
            score = judge.NetworkScore(**self.kept[key])
            scores.append(score)
            about = {"subject": subject, "run": run + 1, "runs": self.protocol.repeats, "epochs": epochs}
            self.report.event("evaluation", **about, last=score.last, best=score.best)
        return judge.summarize(scores)

    def _network(self, subject: str, run: int, training: TrainingSet, epochs: int) -> judge.NetworkScore:
        start, looks = time.monotonic(), []
        self.eta = self.eta or Eta(self.done, self.total)
        for epoch in judge.train_and_test(
            training, self.dataset, self.protocol, self.recipe.seed, (subject, run), self.distillation.device, epochs
        ):
            if self.stopping():
                raise Interrupted
            self.done += 1
            if epoch.accuracy is not None:
                looks.append(epoch.accuracy)
            remaining = self.eta.at(self.done)
            self.report.metric(self.done, self.total, subject=subject, run=run + 1, epoch=epoch.number, eta_s=remaining)
        self.seconds += time.monotonic() - start
        return judge.NetworkScore(looks[-1], max(looks))

    def _keep(self) -> None:
        """Keep the scores so far for a later attempt. A full disk costs the keeping, not the run."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(self.path, json.dumps(self.kept | {"seconds": self.seconds}))
        except OSError as error:
            told = f"the scores so far could not be saved: {error.strerror}. The run goes on"
            self.report.warning("CHECKPOINT_FAILED", told)


def _read(path: Path) -> dict[str, Any]:
    """The scores that an earlier attempt kept; none where they cannot be read, so that they are measured again."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
