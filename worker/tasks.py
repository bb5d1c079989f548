"""What the bell starts."""

from jobs.queue import TASK
from worker.app import app, supervisor


@app.task(name=TASK)
def run_job(job_id: str) -> None:
    """See jobs to their end until none waits: those whose own message was lost are taken as well."""
    while supervisor().run(job_id):
        pass
