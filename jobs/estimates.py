"""What a job would take: time by what past jobs took, memory and disk by what its recipe says.

Time is counted in image passes (`dream_core.recipes.description`), and past jobs say how many seconds one takes here.
The nearer those jobs are to this one, the narrower the range: its ends are the fastest and the slowest of them,
widened by a factor for how near they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from dream_core.catalog import DATASETS, DatasetFacts
from dream_core.recipes import Recipe, read_recipe
from dream_core.recipes.description import image_passes
from dream_core.recipes.footprints import FLOAT_BYTES, footprint
from dream_core.recipes.memory import memory_bound
from jobs.lifecycle import Status
from jobs.repository import ahead_of, utcnow
from jobs.tables import Job, UploadedDataset, WorkerRow

PAST_JOBS = 30
ALIVE_S = 120.0
_NEARNESS = ("same method, dataset and images per class", "same method and dataset", "same method", "any job")
_WIDENING = (1.3, 2.0, 4.0, 10.0)


@dataclass(frozen=True, slots=True)
class Span:
    """Seconds: between `low` and `high`, most likely `likely`."""

    low: float
    likely: float
    high: float
    basis: str
    """Which past jobs it is taken from."""
    runs: int
    """How many of them there were."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a job would take."""

    seconds: Span | None
    memory_bytes: int | None
    disk_bytes: int | None
    position: int
    """Jobs that are taken before it."""
    largest_worker_bytes: int | None
    """Memory of the largest worker that is here."""
    note: str

    @property
    def fits(self) -> bool | None:
        """Whether a known worker has the memory; None where that is not known."""
        if self.memory_bytes is None or self.largest_worker_bytes is None:
            return None
        return self.memory_bytes <= self.largest_worker_bytes


def estimate(session: Session, recipe: Recipe, priority: int = 0, dataset: UploadedDataset | None = None) -> Estimate:
    """What a job of this recipe would take if it were submitted now; `dataset` is the uploaded one that it names."""
    facts = facts_of(recipe, dataset)
    position = ahead_of(session, priority, utcnow())
    largest = _largest_worker(session)
    if facts is None:
        note = "the images of a folder are not looked at, so that time, memory and disk are not known"
        return Estimate(None, None, None, position, largest, note)
    seconds = _seconds(session, recipe, facts)
    note = "memory is the most that a CPU run holds" + (
        "" if seconds else "; no job has succeeded yet to take the time from"
    )
    return Estimate(seconds, memory_bound(recipe, facts), disk_bytes(recipe, facts), position, largest, note)


def facts_of(recipe: Recipe, dataset: UploadedDataset | None = None) -> DatasetFacts | None:
    """What is known of the recipe's dataset without reading it; None for a folder."""
    if recipe.dataset in DATASETS:
        return DATASETS[recipe.dataset]
    if dataset is None or not dataset.report:
        return None
    counts = [(each["train"], each["test"]) for each in dataset.report["classes"]]
    train, test = (sum(column) for column in zip(*counts, strict=True))
    smallest = min(train for train, _ in counts)
    like = DATASETS["cifar10"]
    return replace(
        like, name=recipe.dataset, classes=len(counts), size=recipe.image_size, train=train, test=test,
        smallest_class=smallest,
    )  # fmt: skip


def disk_bytes(recipe: Recipe, facts: DatasetFacts) -> int:
    """About how much a job leaves: two checkpoints of the images and a network, and the images stored and decoded."""
    network = footprint(recipe, facts.channels, facts.classes).parameters * FLOAT_BYTES
    synthetic = _synthetic_bytes(recipe, facts)
    checkpoint = 2 * synthetic + 2 * network
    factor = getattr(recipe, "factor", 1)
    return round(2 * checkpoint + synthetic * (1 + factor**2)) + (1 << 20)


def _synthetic_bytes(recipe: Recipe, facts: DatasetFacts) -> int:
    return recipe.ipc * facts.classes * facts.channels * recipe.image_size**2 * FLOAT_BYTES


def _largest_worker(session: Session) -> int | None:
    now = utcnow()
    alive = [row for row in session.scalars(select(WorkerRow)) if (now - row.seen_at).total_seconds() < ALIVE_S]
    return max((row.facts["memory_bytes"] for row in alive if row.facts.get("memory_bytes")), default=None)


def _seconds(session: Session, recipe: Recipe, facts: DatasetFacts) -> Span | None:
    """By the nearest past jobs that there are."""
    near = [
        (Job.method == recipe.method, Job.dataset == recipe.dataset, Job.ipc == recipe.ipc),
        (Job.method == recipe.method, Job.dataset == recipe.dataset),
        (Job.method == recipe.method,),
        (),
    ]
    for where, basis, widening in zip(near, _NEARNESS, _WIDENING, strict=True):
        past = select(Job.resolved_spec, Job.result_summary).where(
            Job.status == Status.SUCCEEDED, Job.result_summary.is_not(None), *where
        )
        rows = session.execute(past.order_by(Job.finished_at.desc()).limit(PAST_JOBS)).all()
        if totals := _totals(rows, recipe, facts):
            low, high = min(totals) / widening, max(totals) * widening
            return Span(round(low, 1), round(median(totals), 1), round(high, 1), basis, len(totals))
    return None


def _totals(rows: Sequence[Any], recipe: Recipe, facts: DatasetFacts) -> list[float]:
    """Seconds that the recipe would take, at the pace of each past job."""
    totals = []
    for resolved, summary in rows:
        past = read_recipe(resolved)
        then, spent = facts_of(past), summary.get("seconds") or {}
        if then is None or not spent.get("distil") or not (passes := _work(past, then)):
            continue
        distil = spent["distil"] / passes * _work(recipe, facts)
        judged = (spent.get("evaluate") or 0.0) / _judging(past, then) * _judging(recipe, facts)
        totals.append(distil + judged)
    return totals


def _work(recipe: Recipe, facts: DatasetFacts) -> float:
    """Image passes, weighted by the size of network and image."""
    return image_passes(recipe, facts) * recipe.image_size**2 * recipe.width


def _judging(recipe: Recipe, facts: DatasetFacts) -> float:
    protocol, decoded = recipe.evaluation, recipe.ipc * getattr(recipe, "factor", 1) ** 2 * facts.classes
    epochs = protocol.epochs * (1 + protocol.baselines) * decoded + (protocol.ceiling_epochs or 0) * facts.train
    return protocol.repeats * (epochs + facts.test) * recipe.image_size**2 * protocol.width
