"""What the bell starts."""

from jobs.queue import TASK
from worker.app import app, supervisor


@app.task(name=TASK)
def run_job(job_id: str) -> None:
    """Take the job if it is still to be had, and see it to its end."""
    supervisor().run(job_id)
