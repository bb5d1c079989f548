"""All SQL on datasets of users' own. `owner` None means everyone's; whoever opened the session commits.

An upload is `uploading` until it is complete, `validating` while a worker examines it, then `ready` or `rejected`. A
worker holds it by its `attempt`, as it holds a job: whoever was given up for lost finds no row to write to.
"""

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import uuid_utils
from sqlalchemy import exists, func, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from dream_core.catalog import UPLOAD_PREFIX
from jobs import outbox
from jobs.lifecycle import TERMINAL
from jobs.paging import page_by_age
from jobs.parts import UploadFiles
from jobs.repository import utcnow
from jobs.tables import Job, UploadedDataset

DATASET_ID = re.compile(r"ds_[0-9a-f]{32}")
UPLOADING, VALIDATING, READY, REJECTED = "uploading", "validating", "ready", "rejected"
Status = Literal["uploading", "validating", "ready", "rejected"]
MAX_LOSSES = 3
"""Lost examinations after which there is none again."""


class NameTaken(Exception):
    """The owner has a dataset of this name."""


class InUse(Exception):
    """Jobs that are not over use the dataset."""


class NotReady(Exception):
    """The dataset is not in a state for this."""


def create(session: Session, owner: str, name: str, size: int | None, sha256: str | None) -> UploadedDataset:
    """A dataset to which nothing has been uploaded yet. Raises NameTaken."""
    dataset = UploadedDataset(
        id=f"ds_{uuid_utils.uuid7().hex}",
        owner=owner,
        name=name,
        status=UPLOADING,
        bytes=size,
        sha256=sha256,
        attempt=0,
        created_at=utcnow(),
    )
    try:
        with session.begin_nested():
            session.add(dataset)
            session.flush()
    except IntegrityError:
        raise NameTaken(f"you have a dataset {name!r} already; delete it, or choose another name") from None
    return dataset


def get(session: Session, dataset_id: str, owner: str | None = None) -> UploadedDataset | None:
    """One, if it is theirs."""
    dataset = session.get(UploadedDataset, dataset_id)
    return dataset if dataset and owner in (None, dataset.owner) else None


def lock(session: Session, dataset_id: str, owner: str | None = None) -> UploadedDataset | None:
    """One, if it is theirs, kept from others until the transaction ends."""
    query = select(UploadedDataset).where(UploadedDataset.id == dataset_id).with_for_update()
    dataset = session.scalar(query.execution_options(populate_existing=True))
    return dataset if dataset and owner in (None, dataset.owner) else None


def list_uploads(
    session: Session, limit: int, owner: str | None, after: tuple[datetime, str] | None = None
) -> tuple[list[UploadedDataset], bool]:
    """Up to `limit`, newest first, and whether there are more."""
    query = select(UploadedDataset)
    if owner is not None:
        query = query.where(UploadedDataset.owner == owner)
    return page_by_age(session, query, (UploadedDataset.created_at, UploadedDataset.id), limit, after)


def find_ready(session: Session, owner: str, name: str) -> UploadedDataset | None:
    """The dataset that `upload:NAME` means for this owner, kept from being deleted until the transaction ends.

    Call it in the transaction that creates the job. None where there is none; raises NotReady where it cannot be used.
    """
    query = select(UploadedDataset).where(UploadedDataset.owner == owner, UploadedDataset.name == name)
    dataset = session.scalar(query.with_for_update(read=True).execution_options(populate_existing=True))
    if dataset is not None and dataset.status != READY:
        raise NotReady(f"{UPLOAD_PREFIX}{name} is {dataset.status}; a job can use it once it is {READY}")
    return dataset


def require_uploading(dataset: UploadedDataset) -> None:
    """Raise NotReady where nothing can be uploaded any more."""
    if dataset.status != UPLOADING:
        raise NotReady(f"{dataset.name} is {dataset.status}; parts can be sent until an upload is completed")


def complete(session: Session, dataset: UploadedDataset, size: int, sha256: str | None) -> None:
    """All parts of a locked dataset are there: a worker may examine it. Repeating is harmless."""
    if dataset.status == UPLOADING:
        dataset.status, dataset.bytes, dataset.completed_at = VALIDATING, size, utcnow()
        dataset.sha256 = sha256 or dataset.sha256
        session.flush()


def delete(session: Session, dataset_id: str, owner: str | None = None) -> bool:
    """Remove its row; its files are the caller's to remove after the commit. False: there is none. Raises InUse."""
    dataset = lock(session, dataset_id, owner)
    if dataset is None:
        return False
    using = select(func.count()).where(Job.dataset_id == dataset_id, Job.status.not_in(TERMINAL))
    if count := session.scalar(using):
        raise InUse(f"{count} jobs that are not over use {dataset.name}; wait for them, or cancel them")
    session.delete(dataset)
    session.flush()
    return True


# ---- examining


def claim(session: Session, lease_s: float) -> UploadedDataset | None:
    """Take the one that has waited longest to be examined; None if there is none. Its `attempt` is the token."""
    now = utcnow()
    free = or_(UploadedDataset.lease_until.is_(None), UploadedDataset.lease_until < now)
    waiting = (UploadedDataset.status == VALIDATING, free)
    oldest = select(UploadedDataset.id).where(*waiting).order_by(UploadedDataset.completed_at).limit(1)
    dataset_id = session.scalar(oldest.with_for_update(skip_locked=True))
    return session.scalar(
        update(UploadedDataset)
        .where(UploadedDataset.id == dataset_id, *waiting)
        .values(attempt=UploadedDataset.attempt + 1, lease_until=now + timedelta(seconds=lease_s))
        .returning(UploadedDataset)
        .execution_options(populate_existing=True, synchronize_session=False)
    )


def renew(session: Session, dataset_id: str, attempt: int, lease_s: float) -> bool:
    """Hold it for another `lease_s` seconds. False: it is another's, or deleted."""
    return _write(session, dataset_id, attempt, {"lease_until": utcnow() + timedelta(seconds=lease_s)})


def release(session: Session, dataset_id: str, attempt: int, after_s: float) -> bool:
    """Give it back, to be examined after so many seconds. This attempt does not count. False: it is another's."""
    again_at = utcnow() + timedelta(seconds=after_s)
    return _write(session, dataset_id, attempt, {"lease_until": again_at, "attempt": attempt - 1})


def settle(session: Session, dataset_id: str, attempt: int, report: Mapping[str, Any], sha256: str | None) -> bool:
    """Ready or rejected, as the report says. False: it is another's, or deleted."""
    now, ok = utcnow(), report["ok"]
    counts = [of_class["train"] for of_class in report["classes"]]
    values = {
        "status": READY if ok else REJECTED,
        "report": dict(report),
        "fingerprint": report["fingerprint"],
        "smallest_class": min(counts) if ok else None,
        "sha256": func.coalesce(UploadedDataset.sha256, sha256),
        "lease_until": None,
        "finished_at": now,
    }
    settled = _write(session, dataset_id, attempt, values)
    if settled:
        owner = session.scalar(select(UploadedDataset.owner).where(UploadedDataset.id == dataset_id)) or ""
        event = outbox.EventType.DATASET_READY if ok else outbox.EventType.DATASET_REJECTED
        outbox.enqueue(session, owner, event, dataset_id, now)
    return settled


def _write(session: Session, dataset_id: str, attempt: int, values: Mapping[str, Any]) -> bool:
    held = (UploadedDataset.id == dataset_id, UploadedDataset.attempt == attempt, UploadedDataset.status == VALIDATING)
    statement = update(UploadedDataset).where(*held).values(values).returning(UploadedDataset.id)
    return session.scalar(statement.execution_options(synchronize_session=False)) is not None


# ---- cleaning up


def abandoned(session: Session, uploads: Path, before: datetime) -> list[str]:
    """Ids of uploads that have not been completed, and of which no part has come since."""
    begun = select(UploadedDataset.id).where(UploadedDataset.status == UPLOADING, UploadedDataset.created_at < before)
    return [
        dataset_id
        for dataset_id in session.scalars(begun)
        if (UploadFiles(uploads, dataset_id).last_written() or before) <= before
    ]


def orphans(session: Session, uploads: Path) -> list[str]:
    """Ids whose directories belong to no dataset any more: whoever should have removed them has died."""
    places = uploads.iterdir() if uploads.is_dir() else ()
    ids = [path.name for path in places if DATASET_ID.fullmatch(path.name)]
    return [dataset_id for dataset_id in ids if not is_there(session, dataset_id)]


def is_there(session: Session, dataset_id: str) -> bool:
    """Whether there is such a dataset."""
    return bool(session.scalar(select(exists().where(UploadedDataset.id == dataset_id))))
