"""What the service speaks of: jobs and their events. What is not known here is in `raw`: newer services are welcome."""

from dataclasses import dataclass, field
from typing import Any, Self

FINISHED = frozenset({"succeeded", "failed", "cancelled"})


@dataclass(frozen=True, slots=True)
class Progress:
    """Steps done of those to do in the current phase; `eta_s` in seconds where known."""

    step: int
    total: int
    eta_s: float | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """A distillation as the service sees it. `result_summary` holds accuracies in percent once there are any."""

    id: str
    status: str
    name: str | None
    phase: str | None
    status_reason: str | None
    progress: Progress | None
    spec: dict[str, Any]
    attempt: int
    error: dict[str, Any] | None
    result_summary: dict[str, Any] | None
    timestamps: dict[str, str | None]
    priority: str
    metadata: dict[str, str]
    partial: bool
    """Whether it was stopped on its way, and what it had made by then can be downloaded."""
    parent_job_id: str | None
    """The job that this one is a retry of."""
    version: int
    raw: dict[str, Any] = field(repr=False)

    @property
    def finished(self) -> bool:
        return self.status in FINISHED

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Self:
        progress = raw.get("progress")
        return cls(
            id=raw["id"],
            status=raw["status"],
            name=raw.get("name"),
            phase=raw.get("phase"),
            status_reason=raw.get("status_reason"),
            progress=Progress(progress["step"], progress["total"], progress.get("eta_s")) if progress else None,
            spec=raw.get("spec") or {},
            attempt=raw.get("attempt") or 0,
            error=raw.get("error"),
            result_summary=raw.get("result_summary"),
            timestamps=raw.get("timestamps") or {},
            priority=raw.get("priority") or "normal",
            metadata=raw.get("metadata") or {},
            partial=bool(raw.get("partial")),
            parent_job_id=raw.get("parent_job_id"),
            version=raw.get("version") or 0,
            raw=raw,
        )


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a job.

    `type` is one of state, phase, metric, preview, checkpoint, evaluation, warning, log.
    """

    seq: int
    type: str
    created_at: str
    data: dict[str, Any]
    raw: dict[str, Any] = field(repr=False)

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Self:
        return cls(raw["seq"], raw["type"], raw.get("created_at", ""), raw.get("data") or {}, raw)
