"""What goes in and out over HTTP. Independent of the tables: a column is not a promise, a field here is."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from api.pagination import decode_cursor
from jobs.lifecycle import Status
from jobs.spec import JobSpec
from jobs.tables import Job, JobEvent

MAX_PAGE = 100


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must not contain control characters")
    return text


Text = Annotated[str, AfterValidator(_printable)]
MetadataKey = Annotated[str, StringConstraints(min_length=1, max_length=64)]
MetadataValue = Annotated[str, StringConstraints(max_length=512)]
Limit = Annotated[int, Field(ge=1), AfterValidator(lambda limit: min(limit, MAX_PAGE))]


class _Input(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class _Output(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)


class JobCreate(_Input):
    """A job to submit."""

    spec: JobSpec
    name: Annotated[Text, Field(max_length=200)] | None = None
    """For people; need not be unique."""
    metadata: Annotated[dict[MetadataKey, MetadataValue], Field(max_length=16)] = Field(default_factory=dict)
    """Up to 16 pairs of your own."""


def _moment_and_id(cursor: str) -> str:
    decode_cursor(cursor)
    return cursor


class JobQuery(_Input):
    """Which jobs to list."""

    limit: Limit = 20
    """Jobs on a page; more than 100 means 100."""
    cursor: Annotated[str, Field(max_length=200), AfterValidator(_moment_and_id)] | None = None
    """`next_cursor` of the page before."""
    status: list[Status] = Field(default_factory=list)
    """Repeat for several."""
    method: Text | None = None
    dataset: Text | None = None


class EventQuery(_Input):
    """Which events to list."""

    after: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Events with a greater `seq`."""
    limit: Limit = MAX_PAGE


class Progress(_Output):
    """Of the phase: in steps of the distillation, or in epochs of all networks that judge its result."""

    step: int
    total: int
    ratio: float | None
    eta_s: float | None


class JobError(_Output):
    """Why a job failed. `class` says what kind of thing went wrong, `code` what exactly."""

    class_: str = Field(alias="class")
    code: str
    message: str


class Timestamps(_Output):
    """When the job came into each state, first or last."""

    created_at: datetime
    queued_at: datetime
    started_at: datetime | None
    cancelling_at: datetime | None
    finished_at: datetime | None


class Urls(_Output):
    """Where to go from here."""

    self: str
    events: str
    cancel: str
    artifacts: str


class JobResource(_Output):
    """A job and where it stands."""

    id: str
    object: Literal["distillation.job"]
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
    attempt: int
    retries_left: int
    worker: str | None
    error: JobError | None
    result_summary: dict[str, Any] | None
    timestamps: Timestamps
    parent_job_id: str | None
    urls: Urls
    version: int
    """Grows with every change; also in the ETag."""

    @classmethod
    def of(cls, job: Job) -> "JobResource":
        """The public side of a row."""
        url = f"/v1/jobs/{job.id}"
        return cls(
            id=job.id,
            object="distillation.job",
            name=job.name,
            status=job.status,
            status_reason=job.status_reason,
            phase=job.phase,
            progress=Progress.model_validate(job.progress) if job.progress else None,
            spec=JobSpec.model_validate(job.spec),
            resolved_spec=job.resolved_spec,
            metadata=job.labels,
            attempt=job.attempt,
            retries_left=job.retries_left,
            worker=job.worker,
            error=JobError.model_validate(job.error) if job.error else None,
            result_summary=job.result_summary,
            timestamps=Timestamps.model_validate(job, from_attributes=True),
            parent_job_id=job.parent_job_id,
            urls=Urls(self=url, events=f"{url}/events", cancel=f"{url}/cancel", artifacts=f"{url}/artifacts"),
            version=job.version,
        )


class JobPage(_Output):
    """Jobs from the newest on."""

    data: list[JobResource]
    has_more: bool
    next_cursor: str | None


class EventResource(_Output):
    """Something that happened in a job. `seq` counts from 1 without gaps."""

    object: Literal["distillation.job.event"]
    seq: int
    type: str
    """state, phase, metric, checkpoint, evaluation, warning, log. May grow."""
    attempt: int
    created_at: datetime
    data: dict[str, Any]

    @classmethod
    def of(cls, event: JobEvent) -> "EventResource":
        """The public side of a row."""
        return cls(
            object="distillation.job.event",
            seq=event.seq,
            type=event.type,
            attempt=event.attempt,
            created_at=event.created_at,
            data=event.data,
        )


class EventPage(_Output):
    """Events in order. Ask again with `after=next_after`, also when there are no more yet."""

    data: list[EventResource]
    has_more: bool
    next_after: int


class Dataset(_Output):
    """What is known of a dataset, and whether its files are here."""

    name: str
    title: str
    classes: int
    channels: int
    size: int
    train: int
    test: int
    smallest_class: int
    licence: str
    available: bool
    path: str | None
    missing: list[str]
    advice: str
    """What to do to make it available; empty when it is."""


class DatasetList(_Output):
    """The built-in datasets."""

    data: list[Dataset]


class Preset(_Output):
    """What a method takes by itself for a dataset and a number of images per class."""

    dataset: str
    ipc: int
    params: dict[str, Any]
    """Values of `params_schema` that have no default there, since they hang on dataset and ipc."""
    evaluation: dict[str, Any]
    """The same of `evaluation_schema`."""
    steps: int
    """Steps in all, those before and after the distillation included."""
    published: bool
    """Whether the papers ran this."""
    image_passes: int
    """About how many images go through a network in the distillation: a rough hint of what it costs."""


class MethodDetail(_Output):
    """A distillation method: what it is, what can be set for it, and what it takes by itself.

    Nothing has to be set. What is left out takes the schema's default, or where it has none the preset's value; what is
    set may change others, as `base` does.
    """

    name: str
    family: str
    """Methods of a family share their parameters: matching, unrolled, trajectory, recovery, coresets. May grow."""
    title: str
    summary: str
    paper: str
    cost: str
    """What the time is spent on."""
    source: str
    """Where the default values come from."""
    params_schema: dict[str, Any]
    """JSON Schema of `spec.params`."""
    evaluation_schema: dict[str, Any]
    """JSON Schema of `spec.evaluation`."""
    presets: list[Preset]
    """For every built-in dataset and 1, 10 and 50 images per class that the method can serve."""


class MethodList(_Output):
    """The methods."""

    data: list[MethodDetail]


class Live(_Output):
    """The process answers."""

    status: Literal["ok"]


class Ready(_Output):
    """Whether jobs can be taken. Without a broker they can: they wait in the database until it is back."""

    status: Literal["ready", "unavailable"]
    database: Literal["ok", "unreachable", "not migrated"]
    broker: Literal["ok", "unreachable"]


class ProblemKind(_Output):
    """What a problem's code means."""

    code: str
    status: int
    title: str
    meaning: str
