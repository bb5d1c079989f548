"""Jobs side by side, and the best of each kind, as they go out."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import Field

from api.schemas.base import Input, Output, Text
from api.schemas.events import CommaSeparated
from jobs.comparison import Ranked
from jobs.lifecycle import Status
from jobs.tables import Job

MOST_COMPARED = 8


class CompareQuery(Input):
    """Which jobs to compare."""

    ids: Annotated[list[str], CommaSeparated, Field(min_length=2, max_length=MOST_COMPARED)]
    """Two to eight, as in `job_a,job_b`."""


class ComparedJob(Output):
    """One of the jobs that are compared."""

    id: str
    name: str | None
    status: Status
    dataset: str
    method: str
    ipc: int

    @classmethod
    def of(cls, job: Job) -> "ComparedJob":
        """The public side of a row."""
        return cls.model_validate(job, from_attributes=True)


class FieldDifference(Output):
    """A value of the complete recipe that the jobs do not have in common."""

    field: str
    """As in `evaluation.epochs`."""
    values: list[Any]
    """In the order of the jobs; null also where a job has no such value."""


class Curve(Output):
    """The matching loss of a job."""

    job_id: str
    points: list[tuple[int, float]]
    """Step and loss, thinned out such that the shape stays."""


class Score(Output):
    """Accuracies of `n` networks, in percent."""

    mean: float | None = None
    std: float | None = None
    n: int | None = None


class Outcome(Output):
    """What came of a job. All null where it has no score."""

    job_id: str
    accuracy: Score | None
    best_mean: float | None
    """The mean of each network's best look at the test set, as papers report it; `accuracy` is of the last look."""
    baseline_random: Score | None
    """As many random real images per class, judged in the same way."""
    ceiling_full: Score | None
    """The whole training set."""
    seconds: dict[str, float]
    """What it took: distil, evaluate."""
    protocol_hash: str | None
    """Scores can be compared where this is the same."""
    partial: bool

    @classmethod
    def of(cls, job: Job) -> "Outcome":
        """What the job's summary says."""
        summary = job.result_summary or {}
        accuracy, baselines = summary.get("accuracy") or {}, summary.get("baselines") or {}
        return cls(
            job_id=job.id,
            accuracy=_score(accuracy),
            best_mean=accuracy.get("best_mean"),
            baseline_random=_score(baselines.get("random")),
            ceiling_full=_score(baselines.get("full")),
            seconds=summary.get("seconds") or {},
            protocol_hash=job.protocol_hash,
            partial=job.partial,
        )


class Comparison(Output):
    """Jobs side by side, in the order in which they were asked for."""

    jobs: list[ComparedJob]
    differences: list[FieldDifference]
    curves: list[Curve]
    results: list[Outcome]
    note: str | None
    """Why the scores cannot be compared, where they cannot."""


class LeaderboardQuery(Input):
    """Which kinds are wanted."""

    dataset: Annotated[Text, Field(max_length=255)] | None = None
    ipc: Annotated[int, Field(ge=1, lt=2**31)] | None = None


class LeaderboardRow(Output):
    """A job and its place."""

    rank: int
    job_id: str
    name: str | None
    owner: str
    method: str
    seed: int | None
    finished_at: datetime | None
    result: Outcome

    @classmethod
    def of(cls, ranked: Ranked) -> "LeaderboardRow":
        """The public side of a row."""
        job = ranked.job
        return cls(
            rank=ranked.rank,
            job_id=job.id,
            name=job.name,
            owner=job.owner,
            method=job.method,
            seed=job.resolved_spec.get("seed"),
            finished_at=job.finished_at,
            result=Outcome.of(job),
        )


class LeaderboardGroup(Output):
    """The best jobs of those that can be compared: same dataset, same images per class, judged in the same way."""

    dataset: str
    ipc: int
    protocol_hash: str
    protocol: dict[str, Any]
    """How their sets were judged."""
    rows: list[LeaderboardRow]


class Leaderboard(Output):
    """The best ten jobs of each kind. Jobs without a score have no place."""

    data: list[LeaderboardGroup]
    has_more: bool
    """Whether there are more kinds than are listed: ask for a dataset, or for one number of images per class."""


def _score(found: dict[str, Any] | None) -> Score | None:
    return Score.model_validate(found) if found else None
