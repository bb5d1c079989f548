"""Download what a job has made."""

import base64
import os
from pathlib import Path
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse, RedirectResponse, Response, StreamingResponse
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker
from starlette.types import Receive, Scope, Send

from api.auditing import note
from api.conditional import Span, matches, require_match, wanted_ranges
from api.dependencies import Sessions, Store, TheJob
from api.openapi import PROBLEM_RESPONSES
from api.problems import Problem, invalid
from jobs.artifacts import MANIFEST, ArchiveFormat, ArtifactStore, Manifest, ManifestFile, Result
from jobs.tables import Job

log = structlog.get_logger()

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["artifacts"])

_FILE_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The file", "content": {"*/*": {}}},
    206: {"description": "The ranges asked for", "content": {"*/*": {}}},
    304: {"description": "The client has it"},
    416: PROBLEM_RESPONSES["default"] | {"description": "The file ends before the ranges begin"},
}
_ELSEWHERE: dict[int | str, dict[str, Any]] = {
    307: {
        "description": "The file is on another server, and for ten minutes to be had there, without a key",
        "headers": {"Location": {"schema": {"type": "string", "format": "uri"}}},
    }
}
_ARCHIVE_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The archive", "content": {"application/zip": {}}},
    304: {"description": "The client has it"},
}


@router.get("/artifacts", response_model=Manifest)
def get_manifest(job: TheJob, store: Store) -> Manifest:
    """The manifest: every file with its size and SHA-256, and how the images are to be used.

    Of a job that was stopped, it says `partial`: what there was then has been kept, and not been judged.
    """
    return _result(store, job).manifest


@router.get(
    "/artifacts/{path:path}",
    operation_id="download_artifact",
    response_class=FileResponse,
    responses=_FILE_RESPONSES | _ELSEWHERE,
)
@router.head("/artifacts/{path:path}", operation_id="head_artifact", response_class=Response, responses=_FILE_RESPONSES)
def download_artifact(path: str, job: TheJob, store: Store, request: Request, sessions: Sessions) -> Response:
    """A file by its path in the manifest, whole or in ranges. Its ETag is its SHA-256, for If-Range and the like."""
    result = _result(store, job)
    artifact = _find(result, job, path)
    headers = {
        "ETag": f'"{artifact.sha256}"',
        "Repr-Digest": f"sha-256=:{base64.b64encode(bytes.fromhex(artifact.sha256)).decode()}:",
        "Cache-Control": "private, max-age=31536000, immutable",
        "Accept-Ranges": "bytes",
    }
    require_match(request, headers["ETag"])
    if matches(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    place = result.files.locate(artifact)
    if isinstance(place, Path) and not place.is_file():
        raise _expired(job)
    ranges = wanted_ranges(request, artifact.bytes, headers["ETag"])
    if request.method == "GET" and (ranges is None or ranges[0][0] == 0):
        _note(sessions, request, "artifact.downloaded", job)
    headers["Content-Disposition"] = artifact.disposition
    if isinstance(place, Path):
        return PartsOfFile(ranges, place, headers=headers, media_type=artifact.media_type)
    if request.method == "GET" and path != MANIFEST:
        return RedirectResponse(place, 307, {"Cache-Control": "private, no-store"})
    headers["Content-Length"] = str(artifact.bytes)
    content = result.manifest_json if path == MANIFEST else b""
    return Response(content, headers=headers, media_type=artifact.media_type)


@router.get("/archive", response_class=StreamingResponse, responses=_ARCHIVE_RESPONSES)
def download_archive(
    job: TheJob,
    store: Store,
    request: Request,
    sessions: Sessions,
    wanted: Annotated[
        ArchiveFormat,
        Query(
            alias="format",
            description="`safetensors`: all files as they are. `npz`: the images for numpy.load. `imagefolder`, `hf`: "
            "PNG files for torchvision's ImageFolder, or for load_dataset; only of pixels in [0, 1].",
        ),
    ] = "safetensors",
) -> Response:
    """The result as one zip, made while it is sent; the same bytes every time."""
    from api.archives import Unsuitable, archive  # numpy and Pillow, which nothing else here needs

    result = _result(store, job)
    headers = {"ETag": f'W/"{wanted}-{_find(result, job, MANIFEST).sha256}"', "Cache-Control": "private, no-cache"}
    if matches(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    try:
        made = archive(result, wanted)
    except Unsuitable as error:
        told = f"{job.id} cannot be had as {wanted}: {error}"
        raise invalid("?format", "UNSUITABLE_FORMAT", str(error), told) from None
    except FileNotFoundError:
        raise _expired(job) from None
    _note(sessions, request, "archive.downloaded", job)
    headers["Content-Disposition"] = f'attachment; filename="{job.id}{made.suffix}"'
    if made.length is not None:
        headers["Content-Length"] = str(made.length)
    return StreamingResponse(made.content, headers=headers, media_type="application/zip")


class PartsOfFile(FileResponse):
    """Some ranges of a file, or all of it, whatever the request's own Range says."""

    def __init__(self, ranges: list[Span] | None, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        spans = ",".join(f"{start}-{end - 1}" for start, end in ranges or ())
        self._range = [(b"range", f"bytes={spans}".encode())] if ranges else []

    def set_stat_headers(self, stat_result: os.stat_result) -> None:
        """The length alone: there is a strong ETag, and dates are not compared."""
        self.headers.setdefault("content-length", str(stat_result.st_size))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send them."""
        headers = [(name, value) for name, value in scope["headers"] if name not in (b"range", b"if-range")]
        await super().__call__({**scope, "headers": headers + self._range}, receive, send)


def _note(sessions: sessionmaker[Session], request: Request, action: str, job: Job) -> None:
    """Put down that someone fetches it. Where that cannot be written, it is fetched all the same."""
    try:
        with sessions.begin() as session:
            note(session, request, action, job.id)
    except SQLAlchemyError as error:
        log.warning("audit.not_written", action=action, job_id=job.id, error=str(error))


def _result(store: ArtifactStore, job: Job) -> Result:
    if job.purged_at is not None:
        raise _expired(job)
    if not job.has_result:
        raise Problem("ARTIFACT_NOT_READY", f"{job.id} is {job.status}; artifacts exist once it is succeeded")
    try:
        return store.result(job.id, job.attempt)
    except FileNotFoundError:
        raise _expired(job) from None


def _find(result: Result, job: Job, path: str) -> ManifestFile:
    file = result.find(path)
    if file is None:
        raise Problem("NOT_FOUND", f"{path!r} is not in the manifest of {job.id}")
    return file


def _expired(job: Job) -> Problem:
    return Problem("ARTIFACT_EXPIRED", f"the files of {job.id} are no longer there")
