"""What a soak says about a job once nothing more happens to it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

LINGER = timedelta(seconds=8)
"""How long after a blow a worker may still be found lost: a lease, and some."""


@dataclass(frozen=True, slots=True)
class Blow:
    """A fault that takes an attempt with it: whose job, or which worker's, or everyone's; and when."""

    moment: datetime
    job_id: str | None = None
    worker_pid: int | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a job. `job` is None if the service does not know it."""

    job: dict[str, Any] | None
    events: Sequence[dict[str, Any]] = ()
    manifests: int = 0
    digests: dict[str, str] = field(default_factory=dict)
    expected: dict[str, str] = field(default_factory=dict)
    cancel_asked: bool = False
    blows: Sequence[Blow] = ()


def faults_of(facts: Facts) -> dict[str, str]:
    """What is wrong with the job, and why: `lost`, `doubled`, `wrong`. Empty: all is well."""
    found = {"lost": _lost(facts), "doubled": _doubled(facts), "wrong": _wrong(facts)}
    return {name: why for name, why in found.items() if why}


def was_poisoned(facts: Facts) -> bool:
    """Whether three of its attempts were taken from it, so that the service was right to give it up."""
    job = facts.job or {}
    poisoned = job.get("status") == "failed" and (job.get("error") or {}).get("class") == "poison"
    return poisoned and sum(_was_hit(job["id"], attempt, facts.blows) for attempt in attempts(facts.events)) >= 3


def losses_without_a_blow(facts: Facts) -> int:
    """Attempts that were taken for lost though no fault had struck them."""
    return sum(
        attempt.lost and not _was_hit(facts.job["id"], attempt, facts.blows)
        for attempt in attempts(facts.events)
        if facts.job
    )


@dataclass(frozen=True, slots=True)
class Attempt:
    """One run of a job: by which worker, from when to when, and whether it was taken for lost."""

    worker_pid: int
    start: datetime
    end: datetime
    lost: bool


def attempts(events: Sequence[dict[str, Any]]) -> list[Attempt]:
    """The attempts that the events of a job tell of."""
    found: list[Attempt] = []
    states = [event for event in events if event["type"] == "state"]
    for state, after in zip(states, [*states, None][1:], strict=True):
        if state["data"]["to"] == "running":
            start = datetime.fromisoformat(state["created_at"])
            end = datetime.fromisoformat(after["created_at"]) if after else datetime.max.replace(tzinfo=start.tzinfo)
            worker = int(state["data"]["worker"].rpartition(":")[2])
            lost = after is not None and after["data"]["reason"] in ("worker_lost", "poison")
            found.append(Attempt(worker, start, end, lost))
    return found


def _was_hit(job_id: str, attempt: Attempt, blows: Sequence[Blow]) -> bool:
    return any(
        attempt.start <= blow.moment + LINGER
        and blow.moment <= attempt.end
        and blow.job_id in (None, job_id)
        and blow.worker_pid in (None, attempt.worker_pid)
        for blow in blows
    )


def _lost(facts: Facts) -> str:
    job = facts.job
    if job is None:
        return "the service does not know it"
    match job["status"]:
        case "succeeded":
            return ""
        case "cancelled":
            return "" if facts.cancel_asked else "cancelled, which nobody had asked for"
        case "failed":
            return "" if was_poisoned(facts) else f"failed: {job['error']}"
        case status:
            return f"still {status}"


def _doubled(facts: Facts) -> str:
    numbers = [event["attempt"] for event in facts.events]
    ends = [event for event in facts.events if event["data"].get("to") == "succeeded"]
    if len(ends) > 1:
        return f"succeeded {len(ends)} times"
    if facts.manifests > 1:
        return f"published {facts.manifests} times"
    if numbers != sorted(numbers):
        return "an attempt wrote after its successor had begun"
    return ""


def _wrong(facts: Facts) -> str:
    numbers = [event["seq"] for event in facts.events]
    if numbers != sorted(set(numbers)):
        return "two events have the same number"
    if facts.job is None or facts.job["status"] != "succeeded":
        return ""
    if not facts.manifests:
        return "succeeded, but published nothing"
    different = sorted(name for name in facts.expected if facts.digests.get(name) != facts.expected[name])
    return f"not the bytes of an undisturbed run: {', '.join(different)}" if different else ""
