"""Jobs side by side, and the best of each kind."""

from collections.abc import Sequence
from itertools import groupby
from typing import Annotated

from fastapi import APIRouter, Query
from sqlalchemy.orm import Session

from api.dependencies import Readings, find_job
from api.problems import invalid, not_found
from api.schemas.comparison import (
    ComparedJob,
    CompareQuery,
    Comparison,
    Curve,
    FieldDifference,
    Leaderboard,
    LeaderboardGroup,
    LeaderboardQuery,
    LeaderboardRow,
    Outcome,
)
from api.security import CanRead
from jobs.artifacts import JOB_ID
from jobs.comparison import Ranked, differences, leaderboard
from jobs.series import Series, read_series
from jobs.tables import Job

router = APIRouter(prefix="/v1", tags=["comparison"])

CURVE_POINTS = 200


@router.get("/compare")
def compare_jobs(query: Annotated[CompareQuery, Query()], reader: CanRead, readings: Readings) -> Comparison:
    """Jobs side by side: what differs in their recipes, their losses, and what came of them."""
    if len(set(query.ids)) < len(query.ids):
        raise invalid("?ids", "DUPLICATE", "names a job twice", "ids: names a job twice")
    for job_id in query.ids:
        if not JOB_ID.fullmatch(job_id):
            raise not_found("job", job_id)
    with readings.begin() as session:
        jobs = [find_job(session, job_id, reader) for job_id in query.ids]
        curves = [Curve(job_id=job.id, points=_loss(session, job)) for job in jobs]
    differing = differences([job.resolved_spec for job in jobs])
    return Comparison(
        jobs=[ComparedJob.of(job) for job in jobs],
        differences=[FieldDifference.model_validate(found, from_attributes=True) for found in differing],
        curves=curves,
        results=[Outcome.of(job) for job in jobs],
        note=_note(jobs),
    )


@router.get("/leaderboard")
def get_leaderboard(query: Annotated[LeaderboardQuery, Query()], reader: CanRead, readings: Readings) -> Leaderboard:
    """The best jobs of each dataset and number of images per class, among those that were judged in the same way."""
    with readings.begin() as session:
        ranked, more = leaderboard(session, owner=reader.sees, dataset=query.dataset, ipc=query.ipc)
    return Leaderboard(data=[_group(list(rows)) for _, rows in groupby(ranked, key=_kind)], has_more=more)


def _loss(session: Session, job: Job) -> list[tuple[int, float]]:
    series = read_series(session, job.id).get(("loss", "distilling"), Series()).thinned(CURVE_POINTS)
    return list(zip(series.steps, series.values, strict=True))


def _note(jobs: Sequence[Job]) -> str | None:
    if len({job.protocol_hash for job in jobs if job.protocol_hash}) < 2:
        return None
    return "These jobs were judged by different protocols, or on different data: their accuracies cannot be compared."


def _kind(ranked: Ranked) -> tuple[str, int, str | None]:
    return ranked.job.dataset, ranked.job.ipc, ranked.job.protocol_hash


def _group(rows: Sequence[Ranked]) -> LeaderboardGroup:
    job = rows[0].job
    return LeaderboardGroup(
        dataset=job.dataset,
        ipc=job.ipc,
        protocol_hash=job.protocol_hash or "",
        protocol=job.resolved_spec.get("evaluation") or {},
        rows=[LeaderboardRow.of(row) for row in rows],
    )
