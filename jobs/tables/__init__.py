"""The tables, by subject."""

from jobs.tables.access import ApiKey, AuditEntry, IdempotencyRecord, Owner
from jobs.tables.base import Base
from jobs.tables.datasets import UploadedDataset
from jobs.tables.jobs import LOCAL, Job, JobEvent
from jobs.tables.operations import PausedQueue, WorkerRow
from jobs.tables.webhooks import Webhook, WebhookDelivery

__all__ = [
    "LOCAL",
    "ApiKey",
    "AuditEntry",
    "Base",
    "IdempotencyRecord",
    "Job",
    "JobEvent",
    "Owner",
    "PausedQueue",
    "UploadedDataset",
    "Webhook",
    "WebhookDelivery",
    "WorkerRow",
]
