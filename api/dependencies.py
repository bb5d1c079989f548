"""What routes ask for, as types: `readings: Readings`, `job: TheJob`."""

from typing import Annotated

from fastapi import Depends, Path, Request
from sqlalchemy.orm import Session, sessionmaker

from api.problems import Problem, not_found
from api.security import CanRead, Principal
from jobs import repository
from jobs.artifacts import JOB_ID, ArtifactStore
from jobs.queue import Bell
from jobs.ringer import Ringer
from jobs.settings import Settings
from jobs.tables import Job

# What only looks something up is `async`: the framework sends every plain function to a thread.


async def _settings(request: Request) -> Settings:
    return request.app.state.settings


async def _sessions(request: Request) -> sessionmaker[Session]:
    return request.app.state.sessions


async def _readings(request: Request) -> sessionmaker[Session]:
    return request.app.state.readings


async def _bell(request: Request) -> Bell:
    return request.app.state.bell


async def _ringer(request: Request) -> Ringer:
    return request.app.state.ringer


async def _store(request: Request) -> ArtifactStore:
    return request.app.state.store


SettingsDep = Annotated[Settings, Depends(_settings)]
Sessions = Annotated[sessionmaker[Session], Depends(_sessions)]
"""For writing: the route opens its own transaction, and commits before it answers."""
Readings = Annotated[sessionmaker[Session], Depends(_readings)]
"""For reading: the route opens its own read-only transaction."""
BellDep = Annotated[Bell, Depends(_bell)]
RingerDep = Annotated[Ringer, Depends(_ringer)]
Store = Annotated[ArtifactStore, Depends(_store)]


async def _job_id(job_id: Annotated[str, Path(description="`job_` and 32 hexadecimal digits")]) -> str:
    if not JOB_ID.fullmatch(job_id):
        raise not_found("job", job_id)
    return job_id


JobId = Annotated[str, Depends(_job_id)]


def find_job(session: Session, job_id: str, principal: Principal) -> Job:
    """The job, if it is one that they may see. Raises a Problem: another's job is not there, a deleted one is gone."""
    job = repository.get_job(session, job_id, principal.sees)
    if job is None:
        raise not_found("job", job_id)
    if job.deleted_at is not None:
        raise Problem("GONE", f"{job_id} has been deleted")
    return job


def _the_job(job_id: JobId, reader: CanRead, readings: Readings) -> Job:
    with readings.begin() as session:
        return find_job(session, job_id, reader)


TheJob = Annotated[Job, Depends(_the_job)]
