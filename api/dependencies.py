"""What routes ask for, as types: `reading: Reading`, `job: TheJob`."""

from collections.abc import Iterator
from typing import Annotated

from fastapi import Depends, Path, Request
from sqlalchemy.orm import Session, sessionmaker

from api.problems import Problem
from jobs import repository
from jobs.artifacts import JOB_ID, ArtifactStore
from jobs.queue import Bell
from jobs.settings import Settings
from jobs.tables import Job

# What only looks something up is `async`: the framework sends every plain function to a thread.


async def _settings(request: Request) -> Settings:
    return request.app.state.settings


async def _sessions(request: Request) -> sessionmaker[Session]:
    return request.app.state.sessions


def _reading(request: Request) -> Iterator[Session]:
    with request.app.state.readings.begin() as session:
        yield session


async def _bell(request: Request) -> Bell:
    return request.app.state.bell


async def _store(request: Request) -> ArtifactStore:
    return request.app.state.store


SettingsDep = Annotated[Settings, Depends(_settings)]
Sessions = Annotated[sessionmaker[Session], Depends(_sessions)]
"""For writing: the route opens its own transaction, and commits before it answers."""
Reading = Annotated[Session, Depends(_reading, scope="function")]
"""A read-only transaction that ends with the route."""
BellDep = Annotated[Bell, Depends(_bell)]
Store = Annotated[ArtifactStore, Depends(_store)]


async def _job_id(job_id: Annotated[str, Path(description="`job_` and 32 hexadecimal digits")]) -> str:
    if not JOB_ID.fullmatch(job_id):
        raise no_such_job(job_id)
    return job_id


JobId = Annotated[str, Depends(_job_id)]


def _the_job(job_id: JobId, reading: Reading) -> Job:
    job = repository.get_job(reading, job_id)
    if job is None:
        raise no_such_job(job_id)
    return job


TheJob = Annotated[Job, Depends(_the_job)]


def no_such_job(job_id: str) -> Problem:
    """404."""
    return Problem("NOT_FOUND", f"there is no job {job_id!r}")
