"""Where artifacts are kept: on the disk, or on an S3 server."""

from jobs.artifacts import ArtifactStore
from jobs.settings import Settings
from jobs.stores.local import LocalStore


def open_store(settings: Settings) -> ArtifactStore:
    """The store that `artifacts_url` names. Connects to nothing yet. Raises StorageUnavailable without `s3fs`."""
    if not settings.artifacts_url:
        return LocalStore(settings.artifacts, settings.staging)
    from jobs.stores.s3 import S3Store  # loads botocore and aiohttp

    return S3Store(settings)
