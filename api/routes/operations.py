"""For operators: workers, queues, the audit log."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from sqlalchemy.orm import Session

from api.auditing import note
from api.dependencies import Readings, Sessions, SettingsDep
from api.pagination import decode_cursor, encode_cursor, no_cursor
from api.problems import not_found
from api.schemas.base import Text
from api.schemas.operations import (
    AuditPage,
    AuditQuery,
    AuditResource,
    QueueList,
    QueueResource,
    WorkerList,
    WorkerResource,
)
from api.security import IsAdmin
from jobs import audit, operations
from jobs.settings import Settings

router = APIRouter(prefix="/v1", tags=["operations"])


@router.get("/workers")
def list_workers(_: IsAdmin, readings: Readings, settings: SettingsDep) -> WorkerList:
    """The workers that have been heard of in the last days: what they are, and what they do."""
    with readings.begin() as session:
        found = operations.list_workers(session)
    return WorkerList(data=[WorkerResource.of(worker, settings.lease_s) for worker in found])


@router.post("/workers/{worker_id:path}/drain", status_code=202)
def drain_worker(
    worker_id: Text, _: IsAdmin, sessions: Sessions, settings: SettingsDep, request: Request
) -> WorkerResource:
    """Have a worker finish the job that it has, and take no other."""
    with sessions.begin() as session:
        return _drain(session, worker_id, True, settings, request)


@router.post("/workers/{worker_id:path}/undrain")
def undrain_worker(
    worker_id: Text, _: IsAdmin, sessions: Sessions, settings: SettingsDep, request: Request
) -> WorkerResource:
    """Have a worker take jobs again."""
    with sessions.begin() as session:
        return _drain(session, worker_id, False, settings, request)


@router.get("/queues")
def list_queues(_: IsAdmin, readings: Readings, settings: SettingsDep) -> QueueList:
    """The queues: how many jobs wait, and who takes them."""
    with readings.begin() as session:
        found = operations.list_queues(session, settings.lease_s)
    return QueueList(data=[QueueResource.of(queue) for queue in found])


@router.post("/queues/{name}/pause")
def pause_queue(name: str, _: IsAdmin, sessions: Sessions, settings: SettingsDep, request: Request) -> QueueResource:
    """Have no job taken from a queue. What runs goes on; new jobs wait."""
    with sessions.begin() as session:
        _find_queue(session, name, settings)
        operations.pause_queue(session, name)
        note(session, request, "queue.paused", name)
        return _find_queue(session, name, settings)


@router.post("/queues/{name}/resume")
def resume_queue(name: str, _: IsAdmin, sessions: Sessions, settings: SettingsDep, request: Request) -> QueueResource:
    """Have jobs taken from a queue again; workers are told within seconds."""
    with sessions.begin() as session:
        _find_queue(session, name, settings)
        operations.resume_queue(session, name)
        note(session, request, "queue.resumed", name)
        return _find_queue(session, name, settings)


@router.get("/audit")
def list_audit_entries(query: Annotated[AuditQuery, Query()], _: IsAdmin, readings: Readings) -> AuditPage:
    """Who did what, newest first."""
    with readings.begin() as session:
        found, more = audit.list_entries(
            session, query.limit, owner=query.owner, action=query.action, before=_entry_id(query.cursor)
        )
    next_cursor = encode_cursor(found[-1].at, str(found[-1].id)) if more else None
    return AuditPage(data=[AuditResource.of(entry) for entry in found], has_more=more, next_cursor=next_cursor)


def _drain(session: Session, worker_id: str, draining: bool, settings: Settings, request: Request) -> WorkerResource:
    worker = operations.drain(session, worker_id, draining=draining)
    if worker is None:
        raise not_found("worker", worker_id)
    note(session, request, "worker.drained" if draining else "worker.undrained", worker_id)
    return WorkerResource.of(worker, settings.lease_s)


def _find_queue(session: Session, name: str, settings: Settings) -> QueueResource:
    for queue in operations.list_queues(session, settings.lease_s):
        if queue.name == name:
            return QueueResource.of(queue)
    raise not_found("queue", name)


def _entry_id(cursor: str | None) -> int | None:
    """The entry that a cursor points behind."""
    place = decode_cursor(cursor)
    if place is None:
        return None
    if not place[1].isdecimal() or len(place[1]) > 18:
        raise no_cursor()
    return int(place[1])
