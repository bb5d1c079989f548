"""A database as it looks after some months: jobs of three owners, nearly all of them over."""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
import uuid_utils
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.types import NULLTYPE

from jobs import keys
from jobs.lifecycle import HELD, TERMINAL, Status
from jobs.queue import QUEUE
from jobs.settings import Settings
from jobs.spec import JobSpec
from jobs.tables import Job, JobEvent

OWNERS = ("anna", "bela", "cleo")
BATCH = 2000
SPREAD = timedelta(days=90)
ENDINGS = (Status.SUCCEEDED, Status.FAILED, Status.CANCELLED)
TEAMS = ("vision", "speech", "robots", "teaching")
SPECS = [
    JobSpec(dataset=dataset, method=method, ipc=ipc)
    for dataset in ("digits", "mnist", "cifar10", "cifar100")
    for method in ("dream", "idc", "dm", "mtt")
    for ipc in (1, 10)
]


@dataclass(frozen=True, slots=True)
class Filled:
    """What users need to know of it."""

    jobs: dict[str, list[str]]
    """Some of every owner's jobs."""
    running: dict[str, list[str]]
    """Those that a worker holds, in their first attempt."""
    finished: str
    """One of the first owner's that has succeeded."""


def make_keys(sessions: sessionmaker[Session], settings: Settings) -> dict[str, str]:
    """A key for every owner, and one for an administrator, without whom the API does not start."""
    hashing = keys.hashing_key(settings)
    with sessions.begin() as session:
        keys.create_key(session, hashing, "admin", ["admin"])
        return {owner: keys.create_key(session, hashing, owner, ["jobs:read", "jobs:write"])[1] for owner in OWNERS}


def fill(engine: sa.Engine, jobs: int, running: int, seed: int = 0) -> Filled:
    """Add so many jobs with three events each: `running` of them held by a worker, one in twenty queued."""
    dice = random.Random(seed)
    start = datetime.now(UTC) - SPREAD
    known: dict[str, list[str]] = {owner: [] for owner in OWNERS}
    held: dict[str, list[str]] = {owner: [] for owner in OWNERS}
    finished = ""
    rows: list[dict[str, Any]] = []
    with engine.begin() as connection:
        for number in range(jobs):
            status = _status(dice, jobs - number, running)
            row = _job(dice, start + SPREAD * (number / jobs), status)
            rows.append(row)
            if status is Status.RUNNING:
                held[row["owner"]].append(row["id"])
            elif number % (jobs // 1000 or 1) == 0:
                known[row["owner"]].append(row["id"])
            if status is Status.SUCCEEDED and row["owner"] == OWNERS[0]:
                finished = row["id"]
            if len(rows) == BATCH or number == jobs - 1:
                connection.execute(sa.insert(_plain(Job)), rows)
                connection.execute(sa.insert(_plain(JobEvent)), [event for row in rows for event in _events(row)])
                rows = []
        if engine.dialect.name == "postgresql":  # which does so by itself, in a while
            connection.exec_driver_sql("ANALYZE")
    return Filled(known, held, finished)


def _status(dice: random.Random, left: int, running: int) -> Status:
    """The newest run, those before them wait, the rest is over."""
    if left <= running:
        return Status.RUNNING
    if dice.random() < 0.05:
        return Status.QUEUED
    return dice.choices(ENDINGS, (80, 12, 8))[0]


def _job(dice: random.Random, at: datetime, status: Status) -> dict[str, Any]:
    spec = dice.choice(SPECS)
    over, held = status in TERMINAL, status in HELD
    succeeded = status is Status.SUCCEEDED
    accuracy = dice.uniform(20, 95) if succeeded else None
    return {
        "id": f"job_{uuid_utils.uuid7().hex}",
        "owner": dice.choice(OWNERS),
        "name": f"try {dice.randrange(1000)}",
        "dataset": spec.dataset,
        "method": spec.method,
        "ipc": spec.ipc,
        **_TEXTS[spec.dataset, spec.method, spec.ipc],
        "metadata": json.dumps({"team": dice.choice(TEAMS), "run": str(dice.randrange(50))}),
        "status": status,
        "result_summary": json.dumps({"accuracy": {"mean": accuracy, "std": 0.4, "n": 3}}) if succeeded else None,
        "accuracy": accuracy,
        "protocol_hash": "0" * 64 if succeeded else None,
        "partial": False,
        "queue": QUEUE,
        "priority": dice.choice((-1, 0, 0, 0, 1)),
        "attempt": 1 if over or held else 0,
        "worker": "host-1:1" if over or held else None,
        "lease_until": datetime.now(UTC) + timedelta(days=1) if held else None,
        "run_after": at,
        "rung_at": at,
        "losses": 0,
        "run_seconds": dice.uniform(30, 9000) if over else 0.0,
        "created_at": at,
        "queued_at": at,
        "started_at": at + timedelta(seconds=5) if over or held else None,
        "claimed_at": at + timedelta(seconds=5) if over or held else None,
        "finished_at": at + timedelta(hours=1) if over else None,
        "expires_at": at + timedelta(days=120) if succeeded else None,
        "version": 4 if over else 1,
        "event_seq": 3,
    }


_TEXTS = {
    (spec.dataset, spec.method, spec.ipc): {
        "spec": spec.model_dump_json(),
        "resolved_spec": spec.resolve().model_dump_json(),
    }
    for spec in SPECS
}


def _events(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for seq, (kind, data) in enumerate(
        (
            ("state", {"from": None, "to": "queued", "reason": None}),
            ("state", {"from": "queued", "to": "running", "reason": None, "worker": "host-1:1"}),
            ("metric", {"step": 100, "total": 2000, "loss": 1.25, "eta_s": 600.0}),
        ),
        start=1,
    ):
        yield {
            "job_id": row["id"],
            "seq": seq,
            "type": kind,
            "attempt": row["attempt"],
            "created_at": row["created_at"],
            "data": json.dumps(data),
        }


def _plain(model: type[Job] | type[JobEvent]) -> sa.TableClause:
    """The table, its JSON taken as the text that it is: to serialise so many rows would take most of the time."""
    columns: sa.Table = model.__table__  # pyright: ignore[reportAssignmentType]
    types = [(column.name, NULLTYPE if isinstance(column.type, sa.JSON) else column.type) for column in columns.c]
    return sa.table(columns.name, *(sa.column(name, type_) for name, type_ in types))
