"""All SQL on jobs. Every function takes the session first; whoever opened the session commits."""

from jobs.repository.attempts import (
    append_events,
    claim,
    claim_next,
    expire_leases,
    held_status,
    renew,
    requeue,
    settle,
)
from jobs.repository.commands import (
    NotOver,
    NotQueued,
    StaleVersion,
    amend,
    delete,
    lock_job,
    request_cancel,
    request_pause,
    resume,
)
from jobs.repository.reading import Filters, Standing, ahead_of, get_job, get_standing, list_events, list_jobs
from jobs.repository.ringing import RING_BATCH, due_for_ringing, not_rung, nothing_rung, queues_that_wait
from jobs.repository.submission import create_job
from jobs.repository.transition import utcnow

__all__ = [
    "RING_BATCH",
    "Filters",
    "NotOver",
    "NotQueued",
    "StaleVersion",
    "Standing",
    "ahead_of",
    "amend",
    "append_events",
    "claim",
    "claim_next",
    "create_job",
    "delete",
    "due_for_ringing",
    "expire_leases",
    "get_job",
    "get_standing",
    "held_status",
    "list_events",
    "list_jobs",
    "lock_job",
    "not_rung",
    "nothing_rung",
    "queues_that_wait",
    "renew",
    "request_cancel",
    "request_pause",
    "requeue",
    "resume",
    "settle",
    "utcnow",
]
