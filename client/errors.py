"""What can go wrong between a client and the service, as exceptions that mirror the service's problem codes."""

from dataclasses import dataclass
from typing import Any, ClassVar


class ClientError(Exception):
    """Base of everything that this package raises. `advice` says what to do about it, where that is known."""

    code = "CLIENT_ERROR"

    def __init__(self, message: str, advice: str = ""):
        super().__init__(message)
        self.advice = advice

    def as_json(self) -> dict[str, Any]:
        return {"code": self.code, "message": str(self), "advice": self.advice}


class ServiceUnreachable(ClientError):
    """Nothing answers at the address, or the connection broke. `sent`: the request may have arrived."""

    code = "UNREACHABLE"

    def __init__(self, message: str, advice: str = "", sent: bool = False):
        super().__init__(message, advice)
        self.sent = sent


class DownloadFailed(ClientError):
    """A file did not arrive as the manifest promises it."""

    code = "DOWNLOAD_FAILED"


class UploadFailed(ClientError):
    """What was to be uploaded cannot be read, or did not arrive."""

    code = "UPLOAD_FAILED"


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
    """The service's refusal: an RFC 9457 problem. `facts` holds what its code adds to one, as `allowed`."""

    ADVICE: ClassVar[str] = ""

    def __init__(
        self,
        code: str,
        status: int,
        detail: str,
        errors: tuple[FieldProblem, ...] = (),
        request_id: str | None = None,
        retry_after_s: float | None = None,
        facts: dict[str, Any] | None = None,
    ):
        super().__init__(detail, self.ADVICE)
        self.code = code
        self.status = status
        self.detail = detail
        self.errors = errors
        self.request_id = request_id
        self.retry_after_s = retry_after_s
        self.facts = facts or {}

    def as_json(self) -> dict[str, Any]:
        errors = [
            {"pointer": problem.pointer, "code": problem.code, "message": problem.message} for problem in self.errors
        ]
        return super().as_json() | {"status": self.status, "errors": errors, "request_id": self.request_id}


class Unauthenticated(ApiError):
    """The service wants a key, and got none that it knows."""

    ADVICE = "set DREAM_API_KEY to a key of this service; its administrator makes one with `dream keys create`"


class Forbidden(ApiError):
    """The key is not allowed to do this."""

    ADVICE = "ask the service's administrator for a key with that scope (`dream keys create --scope`)"


class NotFound(ApiError):
    """There is no such job, file or page; or it is someone else's."""


class Conflict(ApiError):
    """What is there is not in a state for this."""


class IllegalTransition(Conflict):
    """The job's status does not allow this, as in cancelling a job that has succeeded."""


class JobNotOver(Conflict):
    """Only a job that has ended can be deleted or done again."""

    ADVICE = "wait for its end (`dream watch`), or stop it (`dream cancel`)"


class NoCheckpoint(Conflict):
    """The job left no checkpoint to go on from."""

    ADVICE = "`dream checkpoints` lists what is left; without --from the job begins anew"


class NameTaken(Conflict):
    """Something of yours has this name already."""

    ADVICE = "choose another name, or remove the old one first"


class DatasetInUse(Conflict):
    """Jobs that are not over use the dataset."""

    ADVICE = "wait for those jobs, or cancel them"


class DatasetNotReady(Conflict):
    """The dataset is still being uploaded or examined, or it was rejected."""

    ADVICE = "`dream datasets show` says how far it is, or what is wrong with it"


class ArtifactNotReady(Conflict):
    """The job has no results yet."""

    ADVICE = "follow it to its end with `dream watch`"


class WebhookDisabled(Conflict):
    """The webhook is switched off, and gets no messages."""

    ADVICE = "make a new one: `dream webhooks create`"


class Gone(ApiError):
    """It was there, and has been deleted."""


class ArtifactExpired(Gone):
    """The job's files have been removed."""

    ADVICE = "`dream retry` makes them again: the same recipe and seed"


class PreconditionFailed(ApiError):
    """It has changed since it was looked at."""

    ADVICE = "look at it again, and repeat the change if it is still wanted"


class PayloadTooLarge(ApiError):
    """The body of the request is larger than the service takes."""


class ValidationFailed(ApiError):
    """The request cannot be accepted; `errors` names every field that is wrong."""


class DatasetMissing(ApiError):
    """The service does not have the dataset's files."""


class QuotaExceeded(ApiError):
    """As much is in use as the owner may have."""

    ADVICE = "`dream usage` shows what is used: wait for jobs, or remove old ones with `dream rm`"


class RateLimited(ApiError):
    """Too many requests in a short time."""

    ADVICE = "send fewer requests, or wait a little"


class Overloaded(ApiError):
    """The service cannot take the request now."""

    ADVICE = "try again in a while; `dream doctor` shows how the service is"


BY_CODE: dict[str, type[ApiError]] = {
    "UNAUTHENTICATED": Unauthenticated,
    "FORBIDDEN": Forbidden,
    "NOT_FOUND": NotFound,
    "ILLEGAL_TRANSITION": IllegalTransition,
    "JOB_NOT_OVER": JobNotOver,
    "NO_CHECKPOINT": NoCheckpoint,
    "NAME_TAKEN": NameTaken,
    "DATASET_IN_USE": DatasetInUse,
    "DATASET_NOT_READY": DatasetNotReady,
    "ARTIFACT_NOT_READY": ArtifactNotReady,
    "WEBHOOK_DISABLED": WebhookDisabled,
    "GONE": Gone,
    "ARTIFACT_EXPIRED": ArtifactExpired,
    "PRECONDITION_FAILED": PreconditionFailed,
    "PAYLOAD_TOO_LARGE": PayloadTooLarge,
    "VALIDATION_FAILED": ValidationFailed,
    "DATASET_MISSING": DatasetMissing,
    "QUOTA_EXCEEDED": QuotaExceeded,
    "RATE_LIMITED": RateLimited,
    "STORAGE_UNAVAILABLE": Overloaded,
    "OVERLOADED": Overloaded,
}
BY_STATUS: dict[int, type[ApiError]] = {
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    412: PreconditionFailed,
    413: PayloadTooLarge,
    429: RateLimited,
    503: Overloaded,
}
"""For codes that are not known here, and for what answers in the service's place."""

KNOWN = {"type", "title", "status", "detail", "instance", "code", "errors"}


def from_problem(status: int, problem: dict[str, Any], retry_after: str | None = None) -> ApiError:
    """The exception for a problem+json body, and the Retry-After that came with it."""
    code = str(problem.get("code") or f"HTTP_{status}")
    errors = tuple(
        FieldProblem(str(item.get("pointer", "")), str(item.get("message", "")), str(item.get("code", "")))
        for item in problem.get("errors") or ()
    )
    return BY_CODE.get(code, BY_STATUS.get(status, ApiError))(
        code,
        status,
        str(problem.get("detail") or problem.get("title") or f"the service answered {status}"),
        errors,
        problem.get("instance"),
        float(retry_after) if retry_after and retry_after.isdigit() else None,
        {name: value for name, value in problem.items() if name not in KNOWN},
    )
