"""Download what a job has made."""

import base64
import re
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, Response
from starlette.types import Receive, Scope, Send

from api.conditional import matches
from api.dependencies import Store, TheJob
from api.problems import Problem
from jobs.artifacts import Artifact, ArtifactStore, Manifest
from jobs.lifecycle import Status
from jobs.tables import Job

router = APIRouter(prefix="/v1/jobs/{job_id}/artifacts", tags=["artifacts"])

_RANGES = re.compile(
    r"bytes=\s*(?:[0-9]{1,18}-[0-9]{0,18}|-[0-9]{1,18})(?:\s*,\s*(?:[0-9]{1,18}-[0-9]{0,18}|-[0-9]{1,18}))*\s*"
)
_FILE_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The file", "content": {"application/octet-stream": {}}},
    206: {"description": "The ranges asked for"},
    304: {"description": "The client has it"},
}


@router.get("", response_model=Manifest)
def get_manifest(job: TheJob, store: Store) -> Manifest:
    """The manifest: every file with its size and SHA-256, and how the images are to be used."""
    _require_files(job)
    try:
        return store.manifest(job.id)
    except FileNotFoundError:
        raise _expired(job) from None


@router.get("/{path:path}", operation_id="download_artifact", response_class=FileResponse, responses=_FILE_RESPONSES)
@router.head("/{path:path}", operation_id="head_artifact", response_class=Response, responses=_FILE_RESPONSES)
def download_artifact(path: str, job: TheJob, store: Store, request: Request) -> Response:
    """A file by its path in the manifest. Ranges, If-Range and If-None-Match work; the ETag is the SHA-256."""
    artifact = _find(store, job, path)
    headers = {
        "ETag": f'"{artifact.sha256}"',
        "Repr-Digest": f"sha-256=:{base64.b64encode(bytes.fromhex(artifact.sha256)).decode()}:",
        "Cache-Control": "private, max-age=31536000, immutable",
        "Accept-Ranges": "bytes",
    }
    if matches(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    response = FileResponse if _wants_ranges(request, artifact, headers["ETag"]) else WholeFile
    return response(artifact.location, headers=headers, media_type=artifact.media_type, filename=artifact.name)


class WholeFile(FileResponse):
    """The file, whatever Range says."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        headers = [(name, value) for name, value in scope["headers"] if name != b"range"]
        await super().__call__({**scope, "headers": headers}, receive, send)


def _find(store: ArtifactStore, job: Job, path: str) -> Artifact:
    _require_files(job)
    try:
        artifact = store.find(job.id, path)
    except FileNotFoundError:
        raise _expired(job) from None
    if artifact is None:
        raise Problem("NOT_FOUND", f"{path!r} is not in the manifest of {job.id}")
    if not artifact.location.is_file():
        raise _expired(job)
    return artifact


def _require_files(job: Job) -> None:
    if job.purged_at is not None:
        raise _expired(job)
    if job.status is not Status.SUCCEEDED and not job.partial:
        raise Problem("ARTIFACT_NOT_READY", f"{job.id} is {job.status}; artifacts exist once it is succeeded")


def _expired(job: Job) -> Problem:
    return Problem("ARTIFACT_EXPIRED", f"the files of {job.id} are no longer there")


def _wants_ranges(request: Request, artifact: Artifact, etag: str) -> bool:
    """Whether Range is to be honoured. One that is no range of bytes, or of another version, is ignored (RFC 9110).

    Raises a Problem for ranges that all begin behind the end.
    """
    wanted = request.headers.get("range", "")
    if request.headers.get("if-range", etag) != etag or not _RANGES.fullmatch(wanted):
        return False
    spans = [span.strip().partition("-") for span in wanted.partition("=")[2].split(",")]
    if any(first and last and int(first) > int(last) for first, _, last in spans):
        return False
    if all(int(first) >= artifact.bytes if first else int(last) == 0 for first, _, last in spans):
        headers = {"Content-Range": f"bytes */{artifact.bytes}"}
        raise Problem("RANGE_NOT_SATISFIABLE", f"{artifact.name} has {artifact.bytes} bytes", headers=headers)
    return True
