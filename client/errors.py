"""What can go wrong between a client and the service, as exceptions that mirror the service's problem codes."""

from dataclasses import dataclass
from typing import Any


class ClientError(Exception):
    """Base of everything that this package raises. `advice` says what to do about it, where that is known."""

    code = "CLIENT_ERROR"

    def __init__(self, message: str, advice: str = ""):
        super().__init__(message)
        self.advice = advice

    def as_json(self) -> dict[str, Any]:
        return {"code": self.code, "message": str(self), "advice": self.advice}


class ServiceUnreachable(ClientError):
    """Nothing answers at the address, or the connection broke."""

    code = "UNREACHABLE"


class DownloadFailed(ClientError):
    """A file did not arrive as the manifest promises it."""

    code = "DOWNLOAD_FAILED"


class WaitTimeout(ClientError, TimeoutError):
    """The job was not finished in time. It goes on."""

    code = "WAIT_TIMEOUT"


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """One thing wrong with a request: `pointer` is a JSON pointer such as `#/spec/ipc`."""

    pointer: str
    message: str
    code: str = ""


class ApiError(ClientError):
    """The service's refusal: an RFC 9457 problem."""

    def __init__(
        self,
        code: str,
        status: int,
        detail: str,
        errors: tuple[FieldProblem, ...] = (),
        request_id: str | None = None,
        advice: str = "",
    ):
        super().__init__(detail, advice)
        self.code = code
        self.status = status
        self.detail = detail
        self.errors = errors
        self.request_id = request_id

    def as_json(self) -> dict[str, Any]:
        errors = [
            {"pointer": problem.pointer, "code": problem.code, "message": problem.message} for problem in self.errors
        ]
        return super().as_json() | {"status": self.status, "errors": errors, "request_id": self.request_id}


class ValidationFailed(ApiError):
    """The job cannot be accepted; `errors` names every field that is wrong."""


class DatasetMissing(ApiError):
    """The service does not have the dataset's files."""


class NotFound(ApiError):
    """There is no such job, file or page."""


class IllegalTransition(ApiError):
    """The job's status does not allow this, as in cancelling a job that has succeeded."""


class ArtifactNotReady(ApiError):
    """The job has no results yet."""


class Overloaded(ApiError):
    """The service cannot take the request now; try again later."""


BY_CODE: dict[str, type[ApiError]] = {
    "VALIDATION_FAILED": ValidationFailed,
    "DATASET_MISSING": DatasetMissing,
    "NOT_FOUND": NotFound,
    "ILLEGAL_TRANSITION": IllegalTransition,
    "ARTIFACT_NOT_READY": ArtifactNotReady,
    "OVERLOADED": Overloaded,
}


def from_problem(status: int, problem: dict[str, Any]) -> ApiError:
    """The exception for a problem+json body."""
    code = str(problem.get("code") or f"HTTP_{status}")
    errors = tuple(
        FieldProblem(str(item.get("pointer", "")), str(item.get("message", "")), str(item.get("code", "")))
        for item in problem.get("errors") or ()
    )
    detail = str(problem.get("detail") or problem.get("title") or f"the service answered {status}")
    return BY_CODE.get(code, ApiError)(code, status, detail, errors, problem.get("instance"))
