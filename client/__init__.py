"""Python SDK and `dream` command of the dataset-distillation service. Talks HTTP only; imports no other package."""

from client.errors import (
    ApiError,
    ArtifactNotReady,
    ClientError,
    DatasetMissing,
    DownloadFailed,
    IllegalTransition,
    NotFound,
    Overloaded,
    ServiceUnreachable,
    ValidationFailed,
    WaitTimeout,
)
from client.resources import Event, Job
from client.sdk import Client

__all__ = [
    "ApiError",
    "ArtifactNotReady",
    "Client",
    "ClientError",
    "DatasetMissing",
    "DownloadFailed",
    "Event",
    "IllegalTransition",
    "Job",
    "NotFound",
    "Overloaded",
    "ServiceUnreachable",
    "ValidationFailed",
    "WaitTimeout",
]
