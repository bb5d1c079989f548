"""What is removed, and when. The row says so first; the files follow, now or at the next sweep.

Any number of workers may sweep at the same time, and die at any moment: whatever is found removed already is as it
should be, and files without a row that wants them are found by looking at the directories.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import structlog
from sqlalchemy import ColumnElement, delete, func, or_, select, update
from sqlalchemy.orm import Session, aliased, sessionmaker

from jobs import idempotency, operations, outbox, previews, uploads
from jobs.artifacts import JOB_ID, ArtifactStore, StorageUnavailable
from jobs.database import make_sessions
from jobs.lifecycle import HELD, TERMINAL, Status
from jobs.repository import utcnow
from jobs.settings import Settings
from jobs.stores import open_store
from jobs.tables import Job, JobEvent, UploadedDataset
from jobs.thinning import evenly

log = structlog.get_logger()

BATCH = 100
DAY = timedelta(days=1)
KEPT_METRICS = 1000
"""Metric events that a job keeps once it is over."""
THINNED_WITHIN = timedelta(days=2)
"""Jobs that ended longer ago have been thinned."""
LEFT_WITHIN = timedelta(days=7)
"""Jobs that ended longer ago have been looked at for uploads of attempts that were lost."""


@dataclass(frozen=True, slots=True)
class Swept:
    """What was removed."""

    purged: int
    """Jobs whose files have been kept long enough."""
    deleted: int
    """Jobs that their owners had deleted."""
    thinned: int
    """Jobs whose metrics or previews were thinned out, each counted for itself."""
    directories: int
    """Directories, uploads and files that nothing wants any more."""


def sweep(sessions: sessionmaker[Session], settings: Settings, now: datetime | None = None) -> Swept:
    """Remove what is due, a batch of each kind at a time; nothing that is not. Raises what the database raises."""
    now = now or utcnow()
    readings = make_sessions(sessions.kw["bind"], read_only=True)  # the long looks must keep nobody from writing
    purged = _purge(sessions, settings, now)
    deleted = _delete(sessions, now)
    thinned = _thin(sessions, readings, now) + _thin_previews(sessions, readings, settings, now)
    with sessions.begin() as session:
        idempotency.forget_expired(session)
        outbox.forget_old(session, now)
        operations.forget_workers(session)
    directories = _remove_files(readings, settings, now) + _remove_uploads(sessions, settings, now)
    try:
        directories += _remove_results(readings, open_store(settings), now)
    except StorageUnavailable as error:
        log.warning("storage.unavailable", error=str(error), advice=error.advice)
    swept = Swept(len(purged), len(deleted), thinned, directories)
    if swept != Swept(0, 0, 0, 0):
        log.info("retention.swept", purged=swept.purged, deleted=swept.deleted, directories=directories)
    return swept


def _purge(sessions: sessionmaker[Session], settings: Settings, now: datetime) -> list[str]:
    """Mark jobs whose files are no longer kept. Those without a result have no date of their own."""
    unlimited = Job.finished_at < now - timedelta(days=settings.retention_days)
    due = or_(Job.expires_at < now, Job.expires_at.is_(None) & unlimited)
    with sessions.begin() as session:
        ids = _some(session, Job.status.in_(TERMINAL), Job.purged_at.is_(None), due)
        for job_id in ids:
            _purge_one(session, job_id, now)
    return ids


def _purge_one(session: Session, job_id: str, now: datetime) -> None:
    seq, attempt = session.execute(
        update(Job)
        .where(Job.id == job_id)
        .values(purged_at=now, artifact_bytes=None, version=Job.version + 1, event_seq=Job.event_seq + 1)
        .returning(Job.event_seq, Job.attempt)
        .execution_options(synchronize_session=False)
    ).one()
    session.add(JobEvent(job_id=job_id, seq=seq, type="purged", attempt=attempt, created_at=now, data={}))


def _delete(sessions: sessionmaker[Session], now: datetime) -> list[str]:
    """Remove rows a day after their owners deleted them."""
    with sessions.begin() as session:
        ids = _some(session, Job.deleted_at < now - DAY)
        if ids:
            session.execute(update(Job).where(Job.parent_job_id.in_(ids)).values(parent_job_id=None))
            session.execute(delete(Job).where(Job.id.in_(ids)))
    return ids


def _some(session: Session, *where: ColumnElement[bool]) -> list[str]:
    return list(session.scalars(select(Job.id).where(*where).limit(BATCH).with_for_update(skip_locked=True)))


def _thin(sessions: sessionmaker[Session], readings: sessionmaker[Session], now: datetime) -> int:
    """Thin out the metrics of jobs that are over: KEPT_METRICS of each, evenly, the first and the last among them."""
    ids = _crowded(readings, "metric", KEPT_METRICS, now)
    for job_id in ids:
        with sessions.begin() as session:
            where = (JobEvent.job_id == job_id, JobEvent.type == "metric")
            session.execute(delete(JobEvent).where(*where, JobEvent.seq.in_(_superfluous(session, where))))
    return len(ids)


def _thin_previews(
    sessions: sessionmaker[Session], readings: sessionmaker[Session], settings: Settings, now: datetime
) -> int:
    """Leave the events of frames that are still there: one each, of the attempt that drew it last."""
    ids = _crowded(readings, "preview", previews.KEPT, now)
    for job_id in ids:
        there = {frame.step for frame in previews.list_previews(settings.previews / job_id)}
        where = (JobEvent.job_id == job_id, JobEvent.type == "preview")
        with sessions.begin() as session:
            told = session.execute(select(JobEvent.seq, JobEvent.data).where(*where).order_by(JobEvent.seq)).all()
            kept = {data["step"]: seq for seq, data in told if data["step"] in there}
            session.execute(delete(JobEvent).where(*where, JobEvent.seq.not_in(kept.values())))
    return len(ids)


def _crowded(readings: sessionmaker[Session], kind: str, keep: int, now: datetime) -> list[str]:
    """Jobs that ended lately, with more events of a kind than are kept."""
    with readings.begin() as session:
        crowded = (
            select(Job.id)
            .join(JobEvent, JobEvent.job_id == Job.id)
            .where(Job.finished_at > now - THINNED_WITHIN, JobEvent.type == kind)
            .group_by(Job.id)
            .having(func.count() > keep)
            .limit(BATCH)
        )
        return list(session.scalars(crowded))


def _superfluous(session: Session, where: tuple[ColumnElement[bool], ...]) -> list[int]:
    found = list(session.scalars(select(JobEvent.seq).where(*where).order_by(JobEvent.seq)))
    kept = evenly(len(found), KEPT_METRICS)
    return [seq for number, seq in enumerate(found) if number not in kept]


def _remove_files(readings: sessionmaker[Session], settings: Settings, now: datetime) -> int:
    """Remove what lies about of jobs that no longer want it."""
    removed = 0
    for root in (settings.previews, settings.job_logs):
        removed += _remove_unwanted(readings, root, now, _wants_results)
    ended = now - timedelta(days=settings.checkpoint_days)
    removed += _remove_unwanted(readings, settings.checkpoints, now, _wants_checkpoints(ended))
    # not only those that run: one that is queued now may be claimed before its directory is removed
    removed += _remove_unwanted(readings, settings.scratch, now, Job.status.not_in(TERMINAL))
    with readings.begin() as session:
        first_claim = session.scalar(select(func.min(Job.claimed_at)).where(Job.status.in_(HELD)))
    before = min(now - DAY, first_claim or now)  # a running attempt made its own when it began
    return removed + sum(_remove(path) for path in _entries(settings.staging) if _age(path) < before.timestamp())


_wants_results = Job.purged_at.is_(None)


def _wants_checkpoints(ended: datetime) -> ColumnElement[bool]:
    child = aliased(Job)
    going_on = select(child.id).where(child.parent_job_id == Job.id, child.status.not_in(TERMINAL)).exists()
    return or_(Job.status.not_in(TERMINAL), Job.finished_at > ended, going_on)


def _remove_unwanted(readings: sessionmaker[Session], root: Path, now: datetime, wanted: ColumnElement[bool]) -> int:
    """Remove what is named after jobs in a directory, where they do not want it."""
    paths = {path.name.removesuffix(".log"): path for path in _entries(root)}
    ids = [name for name in paths if JOB_ID.fullmatch(name)]
    unwanted = _unwanted(readings, ids, lambda job_id: _age(paths[job_id]), now, wanted)
    return sum(_remove(paths[job_id]) for job_id in unwanted)


def _unwanted(
    readings: sessionmaker[Session],
    ids: Sequence[str],
    age: Callable[[str], float],
    now: datetime,
    wanted: ColumnElement[bool],
) -> Iterator[str]:
    """Jobs that do not want what there is of them; jobs that are not there, once it is a day old."""
    for some in _batches(ids):
        with readings.begin() as session:
            known = set(session.scalars(select(Job.id).where(Job.id.in_(some))))
            wanting = set(session.scalars(select(Job.id).where(Job.id.in_(some), wanted)))
        for job_id in some:
            strange = job_id not in known and age(job_id) < (now - DAY).timestamp()
            if strange or job_id in known - wanting:
                yield job_id


def _batches(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (ids[start : start + BATCH] for start in range(0, len(ids), BATCH))


def _remove_results(readings: sessionmaker[Session], store: ArtifactStore, now: datetime) -> int:
    """Remove results of jobs that do not want them any more, and what attempts have uploaded that were lost."""
    ids = store.jobs()
    unwanted = set(_unwanted(readings, ids, store.changed_at, now, _wants_results))
    for job_id in unwanted:
        store.delete(job_id)
    lost = list(_lost_uploads(readings, store, [job_id for job_id in ids if job_id not in unwanted], now))
    for job_id, attempt in lost:
        store.withdraw(job_id, attempt)
    return len(unwanted) + len(lost)


def _lost_uploads(
    readings: sessionmaker[Session], store: ArtifactStore, ids: Sequence[str], now: datetime
) -> Iterator[tuple[str, int]]:
    """Attempts whose uploads are a day old and are not, and cannot become, what their jobs have published."""
    may_have_some = or_(Job.attempt > 1, Job.status != Status.SUCCEEDED)
    lately = or_(Job.finished_at.is_(None), Job.finished_at > now - LEFT_WITHIN)
    for some in _batches(ids):
        with readings.begin() as session:
            jobs = list(session.scalars(select(Job).where(Job.id.in_(some), may_have_some, lately)))
        for job in jobs:
            kept = job.attempt if job.has_result or job.status in HELD else None
            for attempt, changed in store.uploads(job.id).items():
                if attempt != kept and changed < (now - DAY).timestamp():
                    yield job.id, attempt


def _remove_uploads(sessions: sessionmaker[Session], settings: Settings, now: datetime) -> int:
    """Give up uploads that nobody goes on with, and remove what belongs to none."""
    with sessions.begin() as session:
        for dataset_id in uploads.abandoned(session, settings.uploads, now - DAY):
            session.execute(delete(UploadedDataset).where(UploadedDataset.id == dataset_id))
    with sessions() as session:
        orphans = uploads.orphans(session, settings.uploads)
    return sum(_remove(settings.uploads / name) for name in orphans)


def _entries(root: Path) -> list[Path]:
    return list(root.iterdir()) if root.is_dir() else []


def _age(path: Path) -> float:
    """When it was last changed, in seconds since 1970; now, if it is gone."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return utcnow().timestamp()


def _remove(path: Path) -> int:
    """Remove a file or a directory; 1 if it is gone."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
    return int(not path.exists())
