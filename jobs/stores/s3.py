"""Artifacts in a bucket of an S3 server: `<prefix>/<job>/v1-<attempt>/`, the manifest last.

There is no rename on S3. Every attempt uploads under a name of its own before the transaction that settles the job;
the job's row says whether there is a result, and which attempt was its last. What other attempts have uploaded is
never served, and is removed.
"""

import io
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import SecretStr

from jobs.artifacts import (
    JOB_ID,
    MANIFEST,
    VERSION,
    Manifest,
    ManifestFile,
    Result,
    StorageUnavailable,
    new_directory,
    require_id,
)
from jobs.settings import Settings

try:
    from aiobotocore.session import AioSession
    from botocore.exceptions import BotoCoreError, ClientError
    from fsspec.exceptions import FSTimeoutError
    from s3fs import S3FileSystem
except ModuleNotFoundError as error:
    message = f"DREAM_ARTIFACTS_URL names an S3 server, and {error.name} is not installed"
    raise StorageUnavailable(message, "pip install 'dream-distillation[s3]'") from None

LINK_S = 600
"""How long a link to a file is valid."""
PART = 16 << 20
"""Bytes of a part of a large upload; a few are in memory at a time."""
PARTS_AT_A_TIME = 4
READ_AHEAD = 4 << 20
"""Bytes that are fetched at a time of a file that is read here."""
PATIENCE = {"connect_timeout": 5, "read_timeout": 60, "retries": {"mode": "standard", "max_attempts": 3}}
HURRY = {"connect_timeout": 2, "read_timeout": 3, "retries": {"mode": "standard", "max_attempts": 1}}
_ATTEMPT = re.compile(rf"{VERSION}-([1-9][0-9]*)")


class S3Store:
    """Results in a bucket. The credentials are the environment's, or what botocore finds by itself, as on EC2."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._staging = settings.staging
        self._root = settings.artifacts_url.removeprefix("s3://").strip("/")
        self._bucket, _, self._prefix = self._root.partition("/")
        self._server = self._connect(settings.s3_endpoint_url, PATIENCE)
        public = settings.s3_public_endpoint_url
        self._signer = self._connect(public, PATIENCE) if public else self._server
        self._probe = self._connect(settings.s3_endpoint_url, HURRY)
        self._probe.retries = 1

    def check(self) -> None:
        with self._asking():
            self._probe.call_s3("list_objects_v2", Bucket=self._bucket, Prefix=self._prefix, MaxKeys=1)

    def stage(self) -> Path:
        return new_directory(self._staging)

    def upload(self, staged: Path, manifest: Manifest, job_id: str, attempt: int) -> None:
        root = self._attempt(job_id, attempt)
        types = {file.path: file.media_type for file in manifest.files} | {
            MANIFEST: "application/json"
        }  # in this order
        sizes = {path: (staged / path).stat().st_size for path in types}
        with self._asking():
            there = self._sizes(root)
            for path, media_type in types.items():
                if there.get(path) != sizes[path]:
                    self._server.put_file(
                        str(staged / path),
                        f"{root}/{path}",
                        chunksize=PART,
                        max_concurrency=PARTS_AT_A_TIME,
                        ContentType=media_type,
                    )
            if self._sizes(root) != sizes:
                raise self._unusable("does not list what it was given")

    def publish(self, staged: Path, job_id: str) -> None:
        """Uploaded it was before; the row does the rest."""

    def withdraw(self, job_id: str, attempt: int) -> None:
        self._remove(self._attempt(job_id, attempt))

    def discard(self, staged: Path) -> None:
        shutil.rmtree(staged, ignore_errors=True)

    def delete(self, job_id: str) -> None:
        self._remove(f"{self._root}/{require_id(job_id)}")

    def result(self, job_id: str, attempt: int) -> Result:
        root = self._attempt(job_id, attempt)
        with self._asking():
            content = self._server.cat_file(f"{root}/{MANIFEST}")
        return Result.of(content, S3Files(self, root))

    def jobs(self) -> list[str]:
        with self._asking():
            try:
                names = [name.rpartition("/")[2] for name in self._server.ls(self._root, detail=False)]
            except FileNotFoundError as error:
                if _code(error):  # the bucket itself
                    raise
                return []
        return [name for name in names if JOB_ID.fullmatch(name)]

    def uploads(self, job_id: str) -> dict[int, float]:
        root, found = f"{self._root}/{require_id(job_id)}", dict[int, float]()
        for name, facts in self._listed(root).items():
            if number := _ATTEMPT.fullmatch(name.removeprefix(f"{root}/").partition("/")[0]):
                attempt = int(number[1])
                found[attempt] = max(found.get(attempt, 0), facts["LastModified"].timestamp())
        return found

    def changed_at(self, job_id: str) -> float:
        return max(self.uploads(job_id).values(), default=time.time())

    def read(self, name: str, start: int, end: int) -> bytes:
        """Bytes of an object. Raises FileNotFoundError."""
        with self._asking():
            return self._server.cat_file(name, start=start, end=end)

    def sign(self, name: str, file: ManifestFile) -> str:
        """A URL that gives the object to whoever has it, as a download, for LINK_S seconds. Asks nobody."""
        with self._asking():
            return self._signer.sign(
                name,
                expiration=LINK_S,
                ResponseContentDisposition=file.disposition,
                ResponseContentType=file.media_type,
                ResponseCacheControl="private, no-cache",
            )

    def _attempt(self, job_id: str, attempt: int) -> str:
        return f"{self._root}/{require_id(job_id)}/{VERSION}-{attempt}"

    def _listed(self, root: str) -> dict[str, dict[str, Any]]:
        with self._asking():
            return self._server.find(root, detail=True)

    def _sizes(self, root: str) -> dict[str, int]:
        return {name.removeprefix(f"{root}/"): facts["size"] for name, facts in self._listed(root).items()}

    def _remove(self, root: str) -> None:
        """The manifests first: what is half removed is no result."""
        with self._asking():
            for name in sorted(self._listed(root), key=lambda name: not name.endswith(f"/{MANIFEST}")):
                self._server.rm_file(name)

    def _connect(self, endpoint_url: str | None, patience: dict[str, Any]) -> Any:  # s3fs is not typed
        settings, config = self._settings, {"signature_version": "s3v4", **patience}
        if endpoint_url:  # what all servers know, not only Amazon's
            config |= {
                "s3": {"addressing_style": "path"},
                "request_checksum_calculation": "when_required",
                "response_checksum_validation": "when_required",
            }
        return S3FileSystem(
            key=_revealed(settings.aws_access_key_id),
            secret=_revealed(settings.aws_secret_access_key),
            token=_revealed(settings.aws_session_token),
            endpoint_url=endpoint_url,
            client_kwargs={"region_name": settings.aws_region} if settings.aws_region else {},
            config_kwargs=config,
            session=_session(),
            use_listings_cache=False,
            skip_instance_cache=True,
        )

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """What goes wrong is that an object is not there, or StorageUnavailable: its words are ours, since those of
        servers and libraries may have keys in them.
        """
        try:
            yield
        except StorageUnavailable:
            raise
        except (OSError, BotoCoreError, ClientError, FSTimeoutError) as error:
            code = _code(error)
            if isinstance(error, FileNotFoundError) and code != "NoSuchBucket":
                raise
            raise self._unusable(*_told(error, code)) from None

    def _unusable(self, what: str, advice: str = "") -> StorageUnavailable:
        where = self._settings.s3_endpoint_url or "Amazon's S3"
        return StorageUnavailable(
            f"the store of artifacts {what}",
            f"{advice or 'look at its log'} (DREAM_ARTIFACTS_URL: s3://{self._root} at {where})",
        )


class S3Files:
    """The files of one upload."""

    def __init__(self, store: S3Store, root: str) -> None:
        self._store, self._root = store, root

    def open(self, file: ManifestFile) -> BinaryIO:
        return io.BufferedReader(_Remote(self._store, f"{self._root}/{file.path}", file.bytes), READ_AHEAD)

    def locate(self, file: ManifestFile) -> str:
        return self._store.sign(f"{self._root}/{file.path}", file)


class _Remote(io.RawIOBase):
    """An object, read piece by piece."""

    def __init__(self, store: S3Store, name: str, size: int) -> None:
        super().__init__()
        self._store, self._name, self._size, self._at = store, name, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        end = min(self._at + len(buffer), self._size)
        if end <= self._at:
            return 0
        content = self._store.read(self._name, self._at, end)
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)


@cache
def _session() -> AioSession:
    """One of the process: to read botocore's descriptions of S3 takes half a second."""
    return AioSession()


def _revealed(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret else None


def _code(error: BaseException) -> str:
    """What the server calls it; nothing where it did not answer."""
    cause = error if isinstance(error, ClientError) else error.__cause__
    return str(cause.response.get("Error", {}).get("Code", "")) if isinstance(cause, ClientError) else ""


def _told(error: BaseException, code: str) -> tuple[str, str]:
    """What is wrong, and what to do about it."""
    match error:
        case _ if type(error).__name__ in ("NoCredentialsError", "PartialCredentialsError"):
            return "has no credentials", "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        case PermissionError():
            return (
                f"refuses the credentials ({code})",
                "look at AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and its policy",
            )
        case FileNotFoundError():
            return "has no such bucket", "create the bucket, or correct its name"
        case _ if code:
            return f"answers {code}", "look at its log"
    return f"does not answer ({type(error).__name__})", "start it, or correct DREAM_S3_ENDPOINT_URL"
