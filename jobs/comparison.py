"""Jobs side by side, and the best of each kind."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from jobs.lifecycle import Status
from jobs.tables import Job

BEST = 10
"""Of each kind."""
MOST_ROWS = 500


@dataclass(frozen=True, slots=True)
class Difference:
    """A value that jobs do not have in common, by its dotted name; None where a job has no such value."""

    field: str
    values: list[Any]


@dataclass(frozen=True, slots=True)
class Ranked:
    """A job and its place among those that were judged like it."""

    rank: int
    job: Job


def differences(specs: Sequence[Mapping[str, Any]]) -> list[Difference]:
    """What differs between complete recipes, in the order in which the fields come."""
    flat = [dict(_flattened(spec)) for spec in specs]
    fields = dict.fromkeys(field for spec in flat for field in spec)
    found = (Difference(field, [spec.get(field) for spec in flat]) for field in fields)
    return [difference for difference in found if any(value != difference.values[0] for value in difference.values)]


def _flattened(spec: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in spec.items():
        if isinstance(value, Mapping):
            yield from _flattened(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def leaderboard(
    session: Session, *, owner: str | None = None, dataset: str | None = None, ipc: int | None = None
) -> tuple[list[Ranked], bool]:
    """The BEST jobs of each dataset, IPC and protocol, kind by kind; and whether there are more than MOST_ROWS.

    Only jobs that succeeded with a score: what has none, or one that is no number, is not ranked.
    """
    kind = (Job.dataset, Job.ipc, Job.protocol_hash)
    place = func.row_number().over(partition_by=kind, order_by=(Job.accuracy.desc(), Job.finished_at, Job.id))
    scored = select(Job.id, place.label("rank")).where(
        Job.status == Status.SUCCEEDED,
        Job.accuracy.between(0, 100),
        Job.protocol_hash.is_not(None),
        Job.deleted_at.is_(None),
    )
    if owner is not None:
        scored = scored.where(Job.owner == owner)
    if dataset is not None:
        scored = scored.where(Job.dataset == dataset)
    if ipc is not None:
        scored = scored.where(Job.ipc == ipc)
    ranked = scored.subquery()
    query = select(ranked.c.rank, Job).join(Job, Job.id == ranked.c.id).where(ranked.c.rank <= BEST)
    found = session.execute(query.order_by(*kind, ranked.c.rank).limit(MOST_ROWS + 1))
    rows = [Ranked(rank, job) for rank, job in found]
    return rows[:MOST_ROWS], len(rows) > MOST_ROWS
