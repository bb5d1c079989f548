"""Errors as `application/problem+json` (RFC 9457): a stable code for programs, a sentence for people."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.routing import Match

from dream_core.errors import InvalidRecipe
from jobs import repository, uploads
from jobs.artifacts import StorageUnavailable
from jobs.idempotency import KeyReused
from jobs.lifecycle import IllegalTransition
from jobs.quotas import QuotaExceeded

log = structlog.get_logger()

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 5
QUOTA_RETRY_AFTER_S = 60


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of problem: its status, its title, and what to do about it."""

    status: int
    title: str
    meaning: str


KINDS: dict[str, Kind] = {
    "BAD_REQUEST": Kind(400, "Bad request", "The request is not well-formed. Correct it before sending it again."),
    "HOST_NOT_ALLOWED": Kind(
        400,
        "Host not allowed",
        "The service answers only under host names it knows, so that web pages cannot reach it through a name of "
        "their own. Add the name you use to DREAM_ALLOWED_HOSTS.",
    ),
    "UNAUTHENTICATED": Kind(
        401, "No valid key", "Send a key of this service: `Authorization: Bearer drk_…`. Ask its operator for one."
    ),
    "FORBIDDEN": Kind(
        403, "Forbidden", "The key has not the scope for this; or a web page of another origin sent the request."
    ),
    "NOT_FOUND": Kind(404, "Not found", "There is nothing under this address."),
    "METHOD_NOT_ALLOWED": Kind(405, "Method not allowed", "The address exists; the Allow header says what it takes."),
    "ILLEGAL_TRANSITION": Kind(
        409, "Not possible in this state", "The job is in a state that does not lead where you want it to go."
    ),
    "JOB_NOT_OVER": Kind(409, "The job is not over", "This can be done once the job has ended. Wait, or cancel it."),
    "NO_CHECKPOINT": Kind(409, "No checkpoint", "There is no such checkpoint to go on from; begin anew."),
    "NAME_TAKEN": Kind(409, "Name taken", "Something of yours has this name already. Choose another."),
    "DATASET_IN_USE": Kind(409, "Dataset in use", "Jobs that are not over use it. Wait, or cancel them."),
    "DATASET_NOT_READY": Kind(409, "Dataset not ready", "The dataset is not in a state for this."),
    "WEBHOOK_DISABLED": Kind(409, "Webhook disabled", "Its address has said that it is gone. Create another."),
    "ARTIFACT_NOT_READY": Kind(409, "No artifacts", "Only jobs that have succeeded have artifacts."),
    "GONE": Kind(410, "Deleted", "It has been deleted."),
    "ARTIFACT_EXPIRED": Kind(410, "Artifacts removed", "The job has succeeded, but its files have been removed."),
    "PRECONDITION_FAILED": Kind(
        412, "Changed meanwhile", "It is not in the version that If-Match names. Look at it again, then decide."
    ),
    "PAYLOAD_TOO_LARGE": Kind(413, "Payload too large", "The body of the request may have 1 MiB at most."),
    "UNSUPPORTED_MEDIA": Kind(415, "Unsupported media type", "Send the body as application/json."),
    "RANGE_NOT_SATISFIABLE": Kind(416, "Range not satisfiable", "The range begins behind the end of the file."),
    "VALIDATION_FAILED": Kind(
        422, "Validation failed", "The content of the request cannot be accepted; `errors` says where and why."
    ),
    "IDEMPOTENCY_KEY_REUSED": Kind(
        422, "Idempotency key reused", "The key was sent with another request before. Take a new key for a new request."
    ),
    "QUOTA_EXCEEDED": Kind(429, "Quota used up", "Wait for running jobs, delete what is not needed, or ask for more."),
    "RATE_LIMITED": Kind(429, "Too many requests", "Send fewer; Retry-After says when to go on."),
    "DATASET_MISSING": Kind(
        422, "Dataset missing", "The files are not in the service's data directory, and may not be downloaded."
    ),
    "INTERNAL": Kind(500, "Internal error", "The service has a fault. Its log has more under the request id."),
    "STORAGE_UNAVAILABLE": Kind(
        503, "Artifacts not available", "The server that keeps the artifacts does not answer as it should. Try again."
    ),
    "OVERLOADED": Kind(503, "Not available", "The database cannot be reached or is too busy. Try again in a while."),
}  # fmt: skip

_BY_STATUS = {
    400: "BAD_REQUEST",
    401: "UNAUTHENTICATED",
    403: "FORBIDDEN",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    413: "PAYLOAD_TOO_LARGE",
    415: "UNSUPPORTED_MEDIA",
    503: "OVERLOADED",
}


class ProblemDetail(BaseModel):
    """One thing that is wrong. `pointer` is a JSON pointer into the body, or `?name` for a query parameter."""

    pointer: str
    code: str
    message: str


class ProblemDocument(BaseModel):
    """An error, as every failing request answers it. Some codes add fields of their own."""

    type: str
    """Address of a description of the code."""
    title: str
    status: int
    detail: str
    instance: str
    """The id of the request, as in the service's log."""
    code: str
    errors: list[ProblemDetail]


class Problem(HTTPException):
    """Raise this to answer with a problem. `facts` become fields of the document."""

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        errors: Sequence[ProblemDetail] = (),
        headers: Mapping[str, str] | None = None,
        **facts: Any,
    ) -> None:
        super().__init__(KINDS[code].status, detail, dict(headers or {}))
        self.code, self.errors, self.facts = code, list(errors), facts


def not_found(kind: str, given: str) -> Problem:
    """404: there is none of this kind that is called so."""
    return Problem("NOT_FOUND", f"there is no {kind} {given!r}")


def invalid(pointer: str, code: str, message: str, detail: str | None = None, **facts: Any) -> Problem:
    """422 for one thing that is wrong; `detail` says more than the message where the pointer is not seen."""
    errors = [ProblemDetail(pointer=pointer, code=code, message=message)]
    return Problem("VALIDATION_FAILED", detail or message, errors=errors, **facts)


def problem_response(request: Request, problem: Problem) -> JSONResponse:
    """The response that a problem means. Also for middleware, which exception handlers do not see."""
    kind = KINDS[problem.code]
    document = ProblemDocument(
        type=f"/problems/{slug(problem.code)}",
        title=kind.title,
        status=kind.status,
        detail=problem.detail,
        instance=request_id(request),
        code=problem.code,
        errors=problem.errors,
    )
    headers = {"X-Request-ID": request_id(request), **(problem.headers or {})}
    return JSONResponse(document.model_dump() | problem.facts, kind.status, headers, MEDIA_TYPE)


def request_id(request: Request) -> str:
    """The id that this request goes by in the log."""
    return getattr(request.state, "request_id", "unknown")


def slug(code: str) -> str:
    """The code as part of an address."""
    return code.lower().replace("_", "-")


def install(app: FastAPI) -> None:
    """Answer every error that a route, or the framework, raises with a problem."""
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(InvalidRecipe, _on_invalid_recipe)
    app.add_exception_handler(IllegalTransition, _on_illegal_transition)
    app.add_exception_handler(repository.StaleVersion, _answering("PRECONDITION_FAILED"))
    app.add_exception_handler(repository.NotQueued, _answering("ILLEGAL_TRANSITION"))
    app.add_exception_handler(repository.NotOver, _answering("JOB_NOT_OVER"))
    app.add_exception_handler(KeyReused, _answering("IDEMPOTENCY_KEY_REUSED"))
    app.add_exception_handler(QuotaExceeded, _answering("QUOTA_EXCEEDED"))
    app.add_exception_handler(uploads.NameTaken, _answering("NAME_TAKEN"))
    app.add_exception_handler(uploads.InUse, _answering("DATASET_IN_USE"))
    app.add_exception_handler(uploads.NotReady, _answering("DATASET_NOT_READY"))
    app.add_exception_handler(OperationalError, _on_database_away)
    app.add_exception_handler(PoolTimeout, _on_database_away)
    app.add_exception_handler(StorageUnavailable, _on_storage_away)
    app.add_exception_handler(Exception, _on_bug)


def _answering(code: str) -> Callable[[Request, Any], Awaitable[JSONResponse]]:
    async def answer(request: Request, error: Any) -> JSONResponse:
        if KINDS[code].status != 429:
            return problem_response(request, Problem(code, str(error)))
        wait = {"Retry-After": str(QUOTA_RETRY_AFTER_S)}
        return problem_response(request, Problem(code, str(error), headers=wait, retry_after_s=QUOTA_RETRY_AFTER_S))

    return answer


async def _on_http_error(request: Request, error: Any) -> JSONResponse:
    if isinstance(error, Problem):
        return problem_response(request, error)
    code = _BY_STATUS.get(error.status_code, "INTERNAL" if error.status_code >= 500 else "BAD_REQUEST")
    detail = KINDS[code].meaning if error.detail == HTTPStatus(error.status_code).phrase else error.detail
    headers = {"Allow": _allowed(request)} if error.status_code == 405 else error.headers
    return problem_response(request, Problem(code, detail, headers=headers))


def _allowed(request: Request) -> str:
    """All methods of the address; the framework names those of the first route alone."""
    routes = request.app.routes
    methods = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
    return ", ".join(
        method
        for method in methods
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes)
    )


async def _on_invalid_request(request: Request, error: Any) -> JSONResponse:
    errors = [
        ProblemDetail(pointer=_pointer(details["loc"]), code=details["type"].upper(), message=details["msg"])
        for details in error.errors()
    ]
    return problem_response(request, Problem("VALIDATION_FAILED", _summary(errors), errors=errors))


async def _on_invalid_recipe(request: Request, error: Any) -> JSONResponse:
    errors = [
        ProblemDetail(pointer=_pointer(("body", "spec", *field.split("."))), code="INVALID_RECIPE", message=message)
        for field, message in error.problems
    ]
    return problem_response(request, Problem("VALIDATION_FAILED", _summary(errors), errors=errors))


async def _on_illegal_transition(request: Request, error: Any) -> JSONResponse:
    facts = {"from": error.source, "to": error.target, "allowed": error.allowed}
    return problem_response(request, Problem("ILLEGAL_TRANSITION", str(error), **facts))


async def _on_database_away(request: Request, error: Any) -> JSONResponse:
    log.error("database.unavailable", error=str(error))
    return _for_now(request, "OVERLOADED")


async def _on_storage_away(request: Request, error: Any) -> JSONResponse:
    log.error("storage.unavailable", error=str(error), advice=error.advice)
    return _for_now(request, "STORAGE_UNAVAILABLE")


def _for_now(request: Request, code: str) -> JSONResponse:
    headers = {"Retry-After": str(RETRY_AFTER_S)}
    return problem_response(request, Problem(code, KINDS[code].meaning, headers=headers, retry_after_s=RETRY_AFTER_S))


async def _on_bug(request: Request, error: Any) -> JSONResponse:
    return problem_response(request, Problem("INTERNAL", KINDS["INTERNAL"].meaning))


def _pointer(location: Sequence[str | int]) -> str:
    part, *rest = location
    if part != "body":
        return "?" + ".".join(str(step) for step in rest)
    if len(rest) == 1 and isinstance(rest[0], int):  # the offset of a syntax error, which no pointer can name
        return "#"
    return "#" + "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in rest)


def _summary(errors: Sequence[ProblemDetail]) -> str:
    return "; ".join(f"{error.pointer.removeprefix('#/') or 'body'}: {error.message}" for error in errors)
