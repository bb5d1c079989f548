"""What the bell starts."""

import structlog
from sqlalchemy.exc import DBAPIError

from jobs.queue import TASK
from worker.app import app, house

log = structlog.get_logger()


@app.task(name=TASK)
def run_job(job_id: str) -> None:
    """See jobs to their end until none waits: those whose own message was lost are taken as well."""
    try:
        while house().supervisor.run(job_id):
            pass
    except DBAPIError as error:  # whatever waits is rung for again once the database is back
        log.warning("database.unreachable", rung_for=job_id, error=str(error.orig))
