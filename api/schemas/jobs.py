"""Jobs as they come in and go out."""

import re
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StrictInt, StringConstraints, model_validator

from api.schemas.base import Input, Moment, Output, PageQuery, Text
from jobs.lifecycle import Status
from jobs.repository import utcnow
from jobs.spec import JobSpec
from jobs.tables import Job

_PAIR = re.compile(r"metadata\[([^\x00-\x1f]{1,64})\]")
MetadataKey = Annotated[str, StringConstraints(min_length=1, max_length=64)]
MetadataValue = Annotated[str, StringConstraints(max_length=512)]


Metadata = Annotated[dict[MetadataKey, MetadataValue], Field(max_length=16)]
Name = Annotated[Text, Field(max_length=200)]
Priority = Literal["high", "normal", "low"]
_PRIORITY_NAMES: dict[int, Priority] = {1: "high", 0: "normal", -1: "low"}


class JobCreate(Input):
    """A job to submit."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"spec": {"dataset": "digits", "method": "dream", "ipc": 1}},
                {
                    "spec": {
                        "dataset": "cifar10",
                        "method": "dream",
                        "ipc": 10,
                        "seed": 1,
                        "params": {"outer_iterations": 40},
                        "evaluation": {"epochs": 300, "repeats": 3},
                        "resources": {"max_runtime_s": 86400},
                    },
                    "name": "CIFAR-10, ten images a class",
                    "metadata": {"project": "survey"},
                    "priority": "high",
                },
            ]
        }
    )

    spec: JobSpec
    name: Name | None = None
    """For people; need not be unique."""
    metadata: Metadata = Field(default_factory=dict)
    """Up to 16 pairs of your own."""
    priority: Priority = "normal"
    """Among waiting jobs, those of higher priority come first."""


class JobAmend(Input):
    """What to change of a job; what is left out stays."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "a better name"}, {"priority": "low", "metadata": {"project": "b"}}]}
    )

    name: Name | None = None
    metadata: Metadata = Field(default_factory=dict)
    """All pairs, not only those that change."""
    priority: Priority = "normal"
    """Only while the job is queued."""


class JobRetry(Input):
    """How to do again what a job did."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{}, {"from_checkpoint": "latest"}, {"more_iterations": 100, "name": "longer"}]}
    )

    from_checkpoint: Literal["latest"] | Annotated[StrictInt, Field(ge=0)] | None = None
    """Go on from this job's newest checkpoint, or from the one at this step; none begins anew."""
    more_iterations: Annotated[StrictInt, Field(ge=1, lt=2**31)] | None = None
    """Iterations to do beyond those of this job. Needs a checkpoint to go on from: `latest` if none is named."""
    name: Name | None = None
    """None: the name of this job."""
    priority: Priority = "normal"


class JobQuery(PageQuery):
    """Which jobs to list."""

    status: list[Status] = Field(default_factory=list)
    """Repeat for several."""
    method: Text | None = None
    dataset: Text | None = None
    created_after: Moment | None = None
    created_before: Moment | None = None
    order: Literal["desc", "asc"] = "desc"
    """By the time of submission: the newest first, or the oldest."""

    @model_validator(mode="before")
    @classmethod
    def _without_metadata(cls, given: dict[str, Any]) -> dict[str, Any]:
        """`metadata[key]` is no field: `metadata_filter` reads it."""
        return {name: value for name, value in given.items() if not _PAIR.fullmatch(name)}


METADATA_PARAMETER: dict[str, Any] = {
    "name": "metadata",
    "in": "query",
    "description": "`metadata[key]=value`: only jobs with this pair; repeat for several",
    "style": "deepObject",
    "explode": True,
    "schema": {"type": "object", "additionalProperties": {"type": "string"}},
}


def metadata_filter(query: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The pairs that `metadata[key]=value` asks for. Control characters, which no pair can have, are dropped."""
    return {
        found[1]: "".join(letter for letter in value if letter.isprintable())
        for name, value in query
        if (found := _PAIR.fullmatch(name))
    }


class Progress(Output):
    """Of the phase: in steps of the distillation, or in epochs of all networks that judge its result."""

    step: int
    total: int
    ratio: float | None
    eta_s: float | None


class JobError(Output):
    """Why a job failed. `class` says what kind of thing went wrong, `code` what exactly."""

    class_: str = Field(alias="class")
    code: str
    message: str


class Timestamps(Output):
    """When the job came into each state, first or last."""

    created_at: datetime
    queued_at: datetime
    started_at: datetime | None
    pausing_at: datetime | None
    paused_at: datetime | None
    cancelling_at: datetime | None
    finished_at: datetime | None
    expires_at: datetime | None
    """When the files are removed."""


class Urls(Output):
    """Where to go from here."""

    self: str
    events: str
    cancel: str
    pause: str
    resume: str
    metrics: str
    previews: str
    logs: str
    artifacts: str

    @classmethod
    def of(cls, job_id: str) -> "Urls":
        """Those of a job."""
        url = f"/v1/jobs/{job_id}"
        return cls(self=url, **{name: f"{url}/{name}" for name in cls.model_fields if name != "self"})


class JobResource(Output):
    """A job and where it stands."""

    id: str
    object: Literal["distillation.job"]
    owner: str
    name: str | None
    status: Status
    status_reason: str | None
    phase: str | None
    """What a running job is at: loading, distilling, evaluating, publishing. May grow."""
    progress: Progress | None
    spec: JobSpec
    resolved_spec: dict[str, Any]
    """The complete recipe: every value that decides the result."""
    metadata: dict[str, str]
    priority: Priority
    attempt: int
    retries_left: int
    worker: str | None
    error: JobError | None
    result_summary: dict[str, Any] | None
    partial: bool
    """Whether what a job had made when it was stopped has been kept: it can be downloaded as results can."""
    run_seconds: float
    """What all attempts that have ended took."""
    timestamps: Timestamps
    estimated_finish_at: datetime | None
    """Of the phase that it is in, by its pace so far."""
    parent_job_id: str | None
    parent_step: int | None
    """The step of the parent's checkpoint that it goes on from."""
    urls: Urls
    version: int
    """Grows with every change; also in the ETag."""

    @classmethod
    def of(cls, job: Job) -> "JobResource":
        """The public side of a row."""
        progress = Progress.model_validate(job.progress) if job.progress else None
        eta_s = progress.eta_s if progress and job.status is Status.RUNNING else None
        return cls(
            id=job.id,
            object="distillation.job",
            owner=job.owner,
            name=job.name,
            status=job.status,
            status_reason=job.status_reason,
            phase=job.phase,
            progress=progress,
            spec=JobSpec.model_validate(job.spec),
            resolved_spec=job.resolved_spec,
            metadata=job.labels,
            priority=_PRIORITY_NAMES[job.priority],
            attempt=job.attempt,
            retries_left=job.retries_left,
            worker=job.worker,
            error=JobError.model_validate(job.error) if job.error else None,
            result_summary=job.result_summary,
            partial=job.partial,
            run_seconds=round(job.run_seconds, 1),
            timestamps=Timestamps.model_validate(job, from_attributes=True),
            estimated_finish_at=None if eta_s is None else utcnow() + timedelta(seconds=eta_s),
            parent_job_id=job.parent_job_id,
            parent_step=job.parent_step,
            urls=Urls.of(job.id),
            version=job.version,
        )


class JobPage(Output):
    """Jobs from the newest on."""

    data: list[JobResource]
    has_more: bool
    next_cursor: str | None
