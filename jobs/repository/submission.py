"""New jobs."""

from collections.abc import Mapping

import uuid_utils
from sqlalchemy.orm import Session

from dream_core.recipes import Recipe
from jobs.lifecycle import Status
from jobs.queue import queue_of
from jobs.repository.transition import state_event, utcnow
from jobs.spec import JobSpec
from jobs.tables import LOCAL, Job


def create_job(
    session: Session,
    spec: JobSpec,
    recipe: Recipe,
    name: str | None = None,
    metadata: Mapping[str, str] | None = None,
    *,
    owner: str = LOCAL,
    priority: int = 0,
    dataset_id: str | None = None,
    parent: Job | None = None,
    parent_step: int | None = None,
) -> Job:
    """A new queued job. It counts as rung for: the caller rings after the commit, or says `not_rung`.

    A job with a `parent` does again what that one did, or goes on from its checkpoint at `parent_step`.
    """
    now = utcnow()
    job = Job(
        id=f"job_{uuid_utils.uuid7().hex}",
        owner=owner,
        name=name,
        dataset=spec.dataset,
        dataset_id=dataset_id,
        method=spec.method,
        ipc=spec.ipc,
        spec=spec.model_dump(mode="json"),
        resolved_spec=recipe.model_dump(mode="json"),
        labels=dict(metadata or {}),
        status=Status.QUEUED,
        queue=queue_of(spec.resources.gpu_class, spec.resources.gpus),
        priority=priority,
        created_at=now,
        queued_at=now,
        run_after=now,
        rung_at=now,
        attempt=0,
        losses=0,
        partial=False,
        run_seconds=0.0,
        version=1,
        event_seq=1,
        parent_job_id=parent.id if parent else None,
        parent_step=parent_step,
    )
    session.add(job)
    session.flush()
    session.add(state_event(job, None, now))
    session.flush()
    return job
