"""What happens to every new job, whichever route it comes by: admitted, written down once, rung for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Header, Request
from fastapi.responses import JSONResponse
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from api.auditing import note
from api.dependencies import RingerDep, Sessions, SettingsDep
from api.problems import Problem, ProblemDetail
from api.schemas.jobs import JobResource
from api.security import CanWrite, Principal
from dream_core.catalog import DATASETS, UPLOAD_PREFIX, is_folder, is_upload
from dream_core.inventory import find
from dream_core.recipes import Recipe, check_fits
from jobs import classes, idempotency, metrics, quotas, uploads
from jobs.files import room_at
from jobs.queue import QUEUE
from jobs.redaction import scrub
from jobs.ringer import Ringer
from jobs.settings import Settings
from jobs.spec import JobSpec
from jobs.tables import Job, UploadedDataset

POLL_S = 2
OVERLOADED_S = 60

IdempotencyKey = Annotated[
    str | None,
    Header(
        description="A text of your own, at most 255 characters: the same request sent again with it within 24 hours "
        "makes no second job, and gets the first one's answer.",
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
    ),
]


@dataclass(frozen=True, slots=True)
class Submission:
    """Submits jobs for the one who asks."""

    request: Request
    principal: Principal
    settings: Settings
    sessions: Sessions
    ringer: Ringer

    def submit(
        self, route: str, key: str | None, body: Mapping[str, Any], create: Callable[[Session], Job]
    ) -> JSONResponse:
        """The answer to a request for a new job. `create` is called once the job is admitted."""
        require_room(self.settings)
        try:
            return self._once(route, key, body, create)
        except IntegrityError:  # the same request came in at the same time, and has won
            return self._once(route, key, body, create)

    def _once(
        self, route: str, key: str | None, body: Mapping[str, Any], create: Callable[[Session], Job]
    ) -> JSONResponse:
        owner = self.principal.owner
        with self.sessions.begin() as session:
            if key and (known := idempotency.recall(session, owner, route, key, body)):
                return JSONResponse(known.body, known.status, known.headers | {"Idempotent-Replayed": "true"})
            quotas.admit_job(session, owner, self.settings)
            job = create(session)
            if job.queue != QUEUE:
                classes.tell_submitted(session, job)
            note(session, self.request, "job.submitted", job.id)
            headers = {"Location": f"/v1/jobs/{job.id}", "Retry-After": str(POLL_S)}
            answer = JobResource.of(job).model_dump(mode="json", by_alias=True)
            if key:
                idempotency.remember(session, owner, route, key, body, status=202, headers=headers, body=answer)
        metrics.SUBMITTED.labels(job.method, job.dataset if job.dataset in DATASETS else "own").inc()
        self.ringer.ring(job.id, job.queue)
        return JSONResponse(answer, 202, headers)


async def _submission(
    request: Request, principal: CanWrite, settings: SettingsDep, sessions: Sessions, ringer: RingerDep
) -> Submission:
    return Submission(request, principal, settings, sessions, ringer)


Submitting = Annotated[Submission, Depends(_submission)]


def require_room(settings: Settings) -> None:
    """Raise a Problem while the disk is nearly full: a job that cannot leave its result is better not begun."""
    full = room_at(settings.home).full
    if full > settings.disk_high_water:
        message = f"the service's disk is {full:.0%} full; new jobs and uploads wait until its operator has made room"
        raise Problem("OVERLOADED", message, headers={"Retry-After": str(OVERLOADED_S)}, retry_after_s=OVERLOADED_S)


def require_dataset(spec: JobSpec, settings: Settings) -> None:
    """Raise a Problem where the images are not there: better to be told now than by a failed job in an hour."""
    downloadable = settings.allow_download and not is_folder(spec.dataset)
    if downloadable or is_upload(spec.dataset):  # of uploads the database knows more: `uploaded_dataset`
        return
    found = find(spec.dataset, settings.data_dir)
    if not found.available:
        raise _missing(scrub(found.advice, settings))


def find_upload(session: Session, recipe: Recipe, owner: str) -> UploadedDataset | None:
    """What `upload:NAME` means, kept until the transaction ends; None for any other dataset.

    Raises a Problem where the owner has none of that name that could be used, or not enough images in it.
    """
    if not is_upload(recipe.dataset):
        return None
    dataset = uploads.find_ready(session, owner, recipe.dataset.removeprefix(UPLOAD_PREFIX))
    if dataset is None:
        raise _missing(f"you have uploaded no dataset of this name; `GET /v1/datasets` lists them: {recipe.dataset}")
    check_fits(recipe, dataset.smallest_class)
    return dataset


def uploaded_dataset(session: Session, recipe: Recipe, owner: str) -> str | None:
    """The id of what `upload:NAME` means; see `find_upload`."""
    dataset = find_upload(session, recipe, owner)
    return dataset.id if dataset else None


def _missing(advice: str) -> Problem:
    detail = ProblemDetail(pointer="#/spec/dataset", code="DATASET_MISSING", message=advice)
    return Problem("DATASET_MISSING", advice, errors=[detail])
