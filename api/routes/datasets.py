"""Built-in datasets, and users' own: created, uploaded in parts, completed, examined by a worker."""

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Body, Depends, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from sqlalchemy.orm import Session

from api.auditing import note
from api.dependencies import Readings, Sessions, SettingsDep
from api.pagination import decode_cursor, next_cursor
from api.problems import Problem, invalid, not_found
from api.receiving import receive, require_digest
from api.schemas.base import PageQuery
from api.schemas.datasets import Dataset, DatasetComplete, DatasetCreate, DatasetList, PartResource, UploadResource
from api.security import CanRead, CanUpload, Principal
from api.submitting import POLL_S, require_room
from dream_core.catalog import DATASETS
from dream_core.inventory import Found, find, inventory
from jobs import quotas, uploads
from jobs.parts import MAX_PARTS, Incoming, Part, UploadFiles
from jobs.redaction import scrub
from jobs.settings import Settings
from jobs.tables import UploadedDataset

router = APIRouter(prefix="/v1/datasets", tags=["datasets"])

_PART_BODY = {
    "required": True,
    "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
}


async def _dataset_id(dataset_id: Annotated[str, Path(description="`ds_` and 32 hexadecimal digits")]) -> str:
    if not uploads.DATASET_ID.fullmatch(dataset_id):
        raise not_found("dataset", dataset_id)
    return dataset_id


DatasetId = Annotated[str, Depends(_dataset_id)]
PartNumber = Annotated[int, Path(ge=1, le=MAX_PARTS)]


@router.get("")
def list_datasets(
    query: Annotated[PageQuery, Query()], reader: CanRead, readings: Readings, settings: SettingsDep
) -> DatasetList:
    """The built-in datasets, and one's own. `folder:NAME` means images in the service's data directory."""
    with readings.begin() as session:
        found, more = uploads.list_uploads(session, query.limit, reader.sees, decode_cursor(query.cursor))
    return DatasetList(
        data=[_builtin(one, settings) for one in inventory(settings.data_dir)],
        uploads=[_resource(dataset, settings) for dataset in found],
        has_more=more,
        next_cursor=next_cursor(found, more),
    )


@router.post("", status_code=201)
def create_dataset(
    body: DatasetCreate,
    uploader: CanUpload,
    sessions: Sessions,
    settings: SettingsDep,
    request: Request,
    response: Response,
) -> UploadResource:
    """Begin to upload a dataset: PUT the zip's parts to `urls.parts`, then POST to `urls.complete`."""
    require_room(settings)
    _require_fitting(body.bytes or 0, settings)
    with sessions.begin() as session:
        quotas.admit_bytes(session, uploader.owner, body.bytes or 1, settings)
        dataset = uploads.create(session, uploader.owner, body.name, body.bytes, body.sha256)
        note(session, request, "dataset.created", dataset.id)
    response.headers["Location"] = f"/v1/datasets/{dataset.id}"
    return UploadResource.of(dataset, [])


@router.get("/{dataset_id}")
def get_dataset(
    dataset_id: Annotated[str, Path(description="The id of an uploaded dataset, or the name of a built-in one")],
    reader: CanRead,
    readings: Readings,
    settings: SettingsDep,
    response: Response,
) -> UploadResource | Dataset:
    """One dataset. What has arrived of an upload is in `parts`, so that one that was interrupted can go on."""
    if dataset_id in DATASETS:
        return _builtin(find(dataset_id, settings.data_dir), settings)
    with readings.begin() as session:
        known = uploads.get(session, dataset_id, reader.sees) if uploads.DATASET_ID.fullmatch(dataset_id) else None
        dataset = _found(known, dataset_id)
    if dataset.status == uploads.VALIDATING:
        response.headers["Retry-After"] = str(POLL_S)
    return _resource(dataset, settings)


@router.put("/{dataset_id}/parts/{number}", openapi_extra={"requestBody": _PART_BODY})
async def put_part(
    dataset_id: DatasetId,
    number: PartNumber,
    uploader: CanUpload,
    sessions: Sessions,
    readings: Readings,
    settings: SettingsDep,
    request: Request,
) -> PartResource:
    """Send a part of the zip, as plain bytes. Parts may come in any order; the same number again replaces the part.

    Content-Digest or Repr-Digest (RFC 9530, sha-256) are compared with what arrives.
    """
    require_room(settings)
    files = UploadFiles(settings.uploads, dataset_id)
    await run_in_threadpool(_require_uploading, readings, dataset_id, uploader)
    with files.incoming() as incoming:
        await receive(request, incoming)
        require_digest(request, incoming)
        await run_in_threadpool(incoming.finish)
        part = await run_in_threadpool(_keep, sessions, settings, files, uploader, number, incoming)
    return PartResource.model_validate(part, from_attributes=True)


@router.post("/{dataset_id}/complete", status_code=202)
def complete_dataset(
    dataset_id: DatasetId,
    uploader: CanUpload,
    sessions: Sessions,
    settings: SettingsDep,
    request: Request,
    response: Response,
    body: Annotated[DatasetComplete | None, Body()] = None,
) -> UploadResource:
    """All parts have been sent: have the dataset examined. Poll `urls.self` until it is `ready` or `rejected`."""
    wanted = body or DatasetComplete()
    with sessions.begin() as session:
        dataset = _locked(session, dataset_id, uploader)
        if dataset.status == uploads.UPLOADING:
            parts = UploadFiles(settings.uploads, dataset_id).parts()
            _require_whole(dataset, parts, wanted)
            size = sum(part.bytes for part in parts)
            if dataset.bytes is None:
                quotas.admit_bytes(session, dataset.owner, size, settings)
            uploads.complete(session, dataset, size, wanted.sha256)
            note(session, request, "dataset.completed", dataset_id)
    response.headers["Retry-After"] = str(POLL_S)
    return _resource(dataset, settings)


@router.delete("/{dataset_id}", status_code=204)
def delete_dataset(
    dataset_id: DatasetId, uploader: CanUpload, sessions: Sessions, settings: SettingsDep, request: Request
) -> None:
    """Delete a dataset of one's own, in whatever state it is, unless jobs that are not over use it."""
    with sessions.begin() as session:
        if not uploads.delete(session, dataset_id, uploader.sees):
            raise not_found("dataset", dataset_id)
        note(session, request, "dataset.deleted", dataset_id)
    UploadFiles(settings.uploads, dataset_id).discard()


def _require_uploading(readings: Readings, dataset_id: str, uploader: Principal) -> None:
    """Before much is sent in vain."""
    with readings.begin() as session:
        uploads.require_uploading(_found(uploads.get(session, dataset_id, uploader.sees), dataset_id))


def _keep(
    sessions: Sessions, settings: Settings, files: UploadFiles, uploader: Principal, number: int, incoming: Incoming
) -> Part:
    """In a transaction, so that the dataset is not completed, or another part kept, at the same time."""
    with sessions.begin() as session:
        dataset = _locked(session, files.directory.name, uploader)
        uploads.require_uploading(dataset)
        others = sum(part.bytes for part in files.parts() if part.number != number)
        _require_fitting(others + incoming.size, settings, dataset.bytes)
        if dataset.bytes is None:
            quotas.admit_bytes(session, dataset.owner, others + incoming.size, settings)
        return files.keep(number, incoming)


def _require_fitting(size: int, settings: Settings, said: int | None = None) -> None:
    if size > settings.max_upload_bytes:
        most = settings.max_upload_bytes
        raise Problem("PAYLOAD_TOO_LARGE", f"a dataset may have {most:,} bytes as a zip; leave out some images")
    if said is not None and size > said:
        raise Problem("PAYLOAD_TOO_LARGE", f"that makes {size:,} bytes, and {said:,} were said to come")


def _require_whole(dataset: UploadedDataset, parts: list[Part], wanted: DatasetComplete) -> None:
    """Raise a Problem unless all has arrived."""
    last = wanted.parts or (parts[-1].number if parts else 1)
    arrived = {part.number for part in parts}
    if missing := [str(number) for number in range(1, last + 1) if number not in arrived]:
        raise Problem("DATASET_NOT_READY", f"parts have not arrived: {', '.join(missing[:20])}")
    if len(parts) > last:
        raise invalid(
            "#/parts", "TOO_MANY_PARTS", f"{len(parts)} parts have arrived; delete the dataset and begin anew"
        )
    size = sum(part.bytes for part in parts)
    if dataset.bytes not in (None, size):
        raise Problem("DATASET_NOT_READY", f"{size:,} bytes have arrived, and {dataset.bytes:,} were said to come")
    if wanted.sha256 and dataset.sha256 not in (None, wanted.sha256):
        raise invalid("#/sha256", "DIGEST_MISMATCH", "is not the SHA-256 that the dataset was created with")


def _locked(session: Session, dataset_id: str, uploader: Principal) -> UploadedDataset:
    """The dataset, for this transaction alone. Its owner comes first, as where a job is submitted: no deadlock."""
    quotas.lock_owner(session, _found(uploads.get(session, dataset_id, uploader.sees), dataset_id).owner)
    return _found(uploads.lock(session, dataset_id, uploader.sees), dataset_id)


def _found(dataset: UploadedDataset | None, dataset_id: str) -> UploadedDataset:
    if dataset is None:
        raise not_found("dataset", dataset_id)
    return dataset


def _resource(dataset: UploadedDataset, settings: Settings) -> UploadResource:
    arriving = dataset.status == uploads.UPLOADING
    return UploadResource.of(dataset, UploadFiles(settings.uploads, dataset.id).parts() if arriving else [])


def _builtin(found: Found, settings: Settings) -> Dataset:
    said = {"path": scrub(str(found.path), settings) if found.path else None, "advice": scrub(found.advice, settings)}
    return Dataset.model_validate(asdict(DATASETS[found.name]) | asdict(found) | said)
