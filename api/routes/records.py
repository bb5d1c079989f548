"""What a job's workers leave to be looked at while they work: pictures of the synthetic set, and a log."""

import hashlib
from collections.abc import Iterator
from pathlib import Path as FilePath
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from fastapi.responses import Response, StreamingResponse

from api.conditional import matches, wanted_ranges
from api.dependencies import SettingsDep, TheJob
from api.openapi import PROBLEM_RESPONSES
from api.problems import Problem
from api.schemas.events import Preview, PreviewList
from jobs.lifecycle import TERMINAL
from jobs.previews import list_previews, preview_path

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["events"])

CHUNK = 1 << 16
TAIL_AGAIN_S = 2

_PREVIEW: dict[int | str, dict[str, Any]] = {
    200: {"description": "The picture", "content": {"image/webp": {}}},
    304: {"description": "The client has it"},
}
_LOG: dict[int | str, dict[str, Any]] = {
    200: {"description": "The log; empty as long as there is none", "content": {"text/plain": {}}},
    206: {"description": "The part asked for", "content": {"text/plain": {}}},
    304: {"description": "There is nothing new"},
    416: PROBLEM_RESPONSES["default"] | {"description": "There is nothing; where `at_end` is true, only not yet"},
}


@router.get("/previews")
def list_job_previews(job: TheJob, settings: SettingsDep) -> PreviewList:
    """The pictures that have been drawn of the synthetic set as it grows."""
    found = list_previews(settings.previews / job.id)
    url = f"/v1/jobs/{job.id}/previews"
    return PreviewList(
        data=[
            Preview(step=facts.step, url=f"{url}/{facts.step}.webp", bytes=facts.bytes, created_at=facts.created_at)
            for facts in found
        ]
    )


@router.get("/previews/{step}.webp", operation_id="get_job_preview", response_class=Response, responses=_PREVIEW)
@router.head("/previews/{step}.webp", operation_id="head_job_preview", response_class=Response, responses=_PREVIEW)
def get_job_preview(
    step: Annotated[int, Path(ge=0, lt=10**10)], job: TheJob, settings: SettingsDep, request: Request
) -> Response:
    """A picture, which stays as it is for as long as there is one."""
    try:
        content = preview_path(settings.previews / job.id, step).read_bytes()
    except FileNotFoundError:
        thinned = ", or no more: the frames of a job that is over are thinned out" if job.status in TERMINAL else ""
        raise Problem("NOT_FOUND", f"{job.id} has no preview of step {step}{thinned}") from None
    headers = {
        "ETag": f'"{hashlib.sha256(content).hexdigest()}"',
        "Cache-Control": "private, max-age=31536000, immutable",
    }
    if matches(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type="image/webp")


@router.get("/logs", operation_id="get_job_log", response_class=Response, responses=_LOG)
@router.head("/logs", operation_id="head_job_log", response_class=Response, responses=_LOG)
def get_job_log(job: TheJob, settings: SettingsDep, request: Request) -> Response:
    """What the job's workers said, all attempts in a row. `Range: bytes=N-` brings what has been added since.

    A range that begins at the end is answered 416 with `at_end`, as there is nothing more yet; Retry-After tells that
    there may be.
    """
    if job.purged_at is not None:
        raise Problem("ARTIFACT_EXPIRED", f"the log of {job.id} is no longer there")
    path = settings.job_logs / f"{job.id}.log"
    size = path.stat().st_size if path.exists() else 0
    headers = {"ETag": f'"{size}"', "Cache-Control": "private, no-cache", "Accept-Ranges": "bytes"}
    if matches(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    try:
        ranges = wanted_ranges(request, size, headers["ETag"])
    except Problem as problem:
        if job.status not in TERMINAL:
            problem.headers = {**(problem.headers or {}), "Retry-After": str(TAIL_AGAIN_S)}
        raise
    [(start, end)] = ranges if ranges and len(ranges) == 1 else [(0, size)]
    headers["Content-Length"] = str(end - start)
    if ranges and len(ranges) == 1:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    status = 206 if "Content-Range" in headers else 200
    content = _part(path, start, end) if request.method == "GET" else ()
    return StreamingResponse(content, status, headers, media_type="text/plain")


def _part(path: FilePath, start: int, end: int) -> Iterator[bytes]:
    """The bytes of a file that may be growing. None of a file that is not there."""
    if start == end:
        return
    with path.open("rb") as file:
        file.seek(start)
        while (left := end - file.tell()) > 0 and (chunk := file.read(min(left, CHUNK))):
            yield chunk
