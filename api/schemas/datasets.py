"""Datasets as they come in and go out."""

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, StrictInt

from api.schemas.base import Input, Output
from dream_core.catalog import UPLOAD_NAME, UPLOAD_PREFIX
from jobs.parts import MAX_PARTS, PART_BYTES, Part
from jobs.tables import UploadedDataset
from jobs.uploads import Status

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Dataset(Output):
    """A built-in dataset: what is known of it, and whether its files are here."""

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


class DatasetCreate(Input):
    """A dataset to be uploaded: a zip with a folder of images for every class, in `train/` and in `test/`."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "birds", "bytes": 73_400_320}]})

    name: Annotated[str, Field(pattern=f"^{UPLOAD_NAME.pattern}$")]
    """Jobs call it `upload:NAME`."""
    bytes: Annotated[StrictInt, Field(ge=1, le=2**53)] | None = None
    """Of the zip."""
    sha256: Sha256 | None = None
    """Of the zip: what arrives is compared with it."""


class DatasetComplete(Input):
    """What must have arrived."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"parts": 5}, {}]})

    parts: Annotated[StrictInt, Field(ge=1, le=MAX_PARTS)] | None = None
    """How many parts."""
    sha256: Sha256 | None = None
    """Of all of them together, in the order of their numbers."""


class PartResource(Output):
    """A part that has arrived."""

    number: int
    bytes: int
    sha256: str


class ReportProblem(Output):
    """Something to be mended before the dataset is uploaded again."""

    code: str
    path: str
    """Inside the zip; empty for the zip itself."""
    message: str


class ReportClass(Output):
    """A class, and how many images of it there are."""

    name: str
    train: int
    test: int


class ReportSize(Output):
    """The least and the greatest width and height of the images, in pixels, as they came."""

    min: list[int]
    max: list[int]


class DatasetReport(Output):
    """What came of the examination."""

    ok: bool
    expected: str
    """The tree that a zip must have."""
    found: str
    """The tree that it has."""
    problems: list[ReportProblem]
    more_problems: int
    """Problems beyond those that are listed."""
    warnings: list[str]
    classes: list[ReportClass]
    channels: int
    size: ReportSize | None
    fingerprint: str | None


class DatasetUrls(Output):
    """Where to go on."""

    self: str
    parts: str
    """`{n}` is the number of the part, from 1."""
    complete: str


class UploadResource(Output):
    """A dataset of one's own: `uploading` until it is complete, then `validating`, then `ready` or `rejected`."""

    id: str
    object: Literal["dataset"] = "dataset"
    owner: str
    name: str
    dataset: str
    """What jobs call it."""
    status: Status
    bytes: int | None
    """Of the zip: as was said, or as has arrived."""
    sha256: str | None
    part_bytes: int
    """The most that a part may have."""
    parts: list[PartResource]
    """What has arrived of a dataset that is `uploading`."""
    fingerprint: str | None
    """SHA-256 of split, class and content of all images: the same for the same images, however they are zipped."""
    smallest_class: int | None
    """Training images of the class that has the fewest."""
    report: DatasetReport | None
    created_at: datetime
    completed_at: datetime | None
    finished_at: datetime | None
    urls: DatasetUrls

    @classmethod
    def of(cls, dataset: UploadedDataset, parts: list[Part]) -> Self:
        """What of a row goes out."""
        own = f"/v1/datasets/{dataset.id}"
        return cls(
            id=dataset.id,
            owner=dataset.owner,
            name=dataset.name,
            dataset=f"{UPLOAD_PREFIX}{dataset.name}",
            status=dataset.status,  # type: ignore[arg-type]
            bytes=dataset.bytes,
            sha256=dataset.sha256,
            part_bytes=PART_BYTES,
            parts=[PartResource.model_validate(part, from_attributes=True) for part in parts],
            fingerprint=dataset.fingerprint,
            smallest_class=dataset.smallest_class,
            report=DatasetReport.model_validate(dataset.report) if dataset.report else None,
            created_at=dataset.created_at,
            completed_at=dataset.completed_at,
            finished_at=dataset.finished_at,
            urls=DatasetUrls(self=own, parts=f"{own}/parts/{{n}}", complete=f"{own}/complete"),
        )


class DatasetList(Output):
    """The built-in datasets, and a page of one's own, newest first."""

    data: list[Dataset]
    uploads: list[UploadResource]
    has_more: bool
    next_cursor: str | None
