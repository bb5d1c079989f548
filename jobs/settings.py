"""Every setting of the service, read from the environment once."""

import re
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy import URL

from jobs.broker import NONE as NO_BROKER
from jobs.broker import parse_broker
from jobs.spec import GpuClass

Seconds = Annotated[float, Field(gt=0)]


def _sqlite_in(home: Path) -> str:
    return URL.create("sqlite", database=str(home / "db.sqlite3")).render_as_string(hide_password=False)


class Settings(BaseSettings):
    """Where things are and how long to wait for them. `DREAM_<NAME>` unless a field says otherwise."""

    model_config = SettingsConfigDict(
        env_prefix="DREAM_",
        env_ignore_empty=True,
        extra="ignore",
        validate_by_name=True,
        validate_default=True,
        use_attribute_docstrings=True,
        hide_input_in_errors=True,  # passwords are among it
    )

    home: Path = Path("~/.dream")
    """Everything the service writes lies under here."""
    data_dir: Path = Field(default_factory=lambda data: data["home"] / "data")
    """Where real images are read from."""
    allow_download: bool = False
    """Whether datasets that are not in `data_dir` may be downloaded."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:N`."""
    gpu_class: GpuClass | None = None
    """The class of this worker, for jobs that ask for one, as `a100`. None: what the driver calls its GPU."""

    launcher: Literal["process", "ray"] = "process"
    """Where workers start what computes: as a process beside them, or as a job of a Ray cluster."""
    ray_address: str | None = None
    """Ray's dashboard, as http://head:8265. Its nodes must see `home` and `data_dir` under the same paths."""
    ray_cpus: Annotated[float, Field(gt=0)] = 1
    """Cores that Ray sets aside for a job."""
    ray_gpus: Annotated[float, Field(ge=0)] = 0
    """GPUs that Ray sets aside for a job, or a share of one."""

    redis_url: str = Field(default="redis://127.0.0.1:6379/0", validation_alias="REDIS_URL", repr=False)
    database_url: str = Field(
        default_factory=lambda data: _sqlite_in(data["home"]), validation_alias="DATABASE_URL", repr=False
    )

    artifacts_url: str = ""
    """Where results are kept: `s3://bucket/prefix`. Empty: in `home`, on the disk."""
    s3_endpoint_url: str | None = None
    """The S3 server, as http://s3:9000. None: Amazon's."""
    s3_public_endpoint_url: str | None = None
    """The same server by the name that users reach it under, for links to results. None: by `s3_endpoint_url`."""
    aws_region: str | None = Field(default=None, validation_alias=AliasChoices("AWS_REGION", "AWS_DEFAULT_REGION"))
    aws_access_key_id: SecretStr | None = Field(default=None, validation_alias="AWS_ACCESS_KEY_ID")
    """None: what botocore finds by itself, as a machine's role."""
    aws_secret_access_key: SecretStr | None = Field(default=None, validation_alias="AWS_SECRET_ACCESS_KEY")
    aws_session_token: SecretStr | None = Field(default=None, validation_alias="AWS_SESSION_TOKEN")

    lease_s: Seconds = 60
    """A worker that has not renewed its claim for this long is lost."""
    heartbeat_s: Seconds = 10
    """How often a worker renews its claim."""
    grace_s: Seconds = 60
    """From asking a runner to stop to killing it."""
    dispatch_s: Seconds = 10
    """How often queued jobs are rung for again and expired leases are looked for."""
    ring_again_s: Seconds = 60
    """A queued job that no worker has taken for this long is rung for again: the broker may have lost the message."""
    checkpoint_interval_s: Seconds = 60
    stall_s: Seconds = 3600
    """A runner that reports nothing for this long hangs."""

    secret: SecretStr | None = None
    """What keys are hashed under and webhooks sign with. None: one is made and kept in `home`."""
    admin_key: SecretStr | None = None
    """A key for the first administrator, as `dream keys generate` makes them. Not stored."""
    require_key: bool = False
    """Whether every request must carry a key. An API that other machines can reach always asks for one."""
    rate_limit: str = "1200/minute"
    """Requests that a key may send; polls that find nothing new do not count."""
    failed_key_limit: str = "30/minute"
    """Wrong keys that one address may send."""
    max_streams: Annotated[int, Field(ge=1)] = 5
    """Event streams that a key may hold open at a time. Without keys there is no limit."""

    max_queued: Annotated[int, Field(ge=0)] | None = 1000
    """Jobs that an owner may have waiting; like the limits below, each owner may have one of their own."""
    max_running: Annotated[int, Field(ge=0)] | None = None
    run_seconds_per_day: Annotated[int, Field(ge=0)] | None = None
    """Seconds that an owner's jobs may run within 24 hours before new ones are refused."""
    storage_bytes: Annotated[int, Field(ge=0)] | None = None
    """Bytes of artifacts and uploads that an owner may have before new jobs and uploads are refused."""
    max_upload_bytes: Annotated[int, Field(ge=1)] = 8 << 30

    retention_days: Annotated[float, Field(ge=0)] = 30
    """How long artifacts, previews and logs are kept after a job has ended."""
    checkpoint_days: Annotated[float, Field(ge=0)] = 7
    disk_high_water: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Share of the disk under `home` that may be full before new jobs and uploads are refused."""

    webhook_allow_private: bool = False
    """Whether webhooks may lead to private addresses, and over plain http. For trying things out."""
    beat_file: Path | None = None
    """A file that a worker touches while it hears the broker, every two seconds: its age tells whether it is well."""
    metrics_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """A port on which this process also shows its metrics, without a key."""
    metrics_host: str = "127.0.0.1"
    """The address of `metrics_port`. Whoever reaches it needs no key, so that it is this machine alone. `0.0.0.0` is
    for containers on a network of their own, where a Prometheus in another container must reach it."""

    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    """Host names, beside the loopback ones, under which the API answers. Comma-separated; `*` means any."""

    @field_validator("home", "data_dir")
    @classmethod
    def _absolute(cls, path: Path) -> Path:
        return path.expanduser().absolute()

    @field_validator("allowed_hosts", mode="before")
    @classmethod
    def _split(cls, hosts: Any) -> Any:
        return tuple(name.strip() for name in hosts.split(",") if name.strip()) if isinstance(hosts, str) else hosts

    @field_validator("redis_url")
    @classmethod
    def _usable(cls, url: str) -> str:
        if url != NO_BROKER:
            parse_broker(url)
        return url

    @field_validator("artifacts_url")
    @classmethod
    def _a_bucket(cls, url: str) -> str:
        if url and not re.fullmatch(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[\w.-]+)*/?", url):
            raise ValueError(
                "must be like s3://bucket/prefix, the bucket of 3 to 63 small letters, digits, dots and hyphens; or "
                "empty, to keep results on the disk"
            )
        return url

    @field_validator("s3_endpoint_url", "s3_public_endpoint_url")
    @classmethod
    def _an_address(cls, url: str | None) -> str | None:
        if url and not re.fullmatch(r"https?://[^\s/@]+/?", url):
            raise ValueError("must be like http://host:9000, without a path and without a password")
        return url

    @model_validator(mode="after")
    def _leases_outlast_heartbeats(self) -> Self:
        if self.lease_s < 2 * self.heartbeat_s:
            raise ValueError(
                f"DREAM_LEASE_S ({self.lease_s:g}) must be at least twice DREAM_HEARTBEAT_S ({self.heartbeat_s:g}): "
                "a lease that ends between two renewals is lost"
            )
        return self

    @model_validator(mode="after")
    def _ray_is_somewhere(self) -> Self:
        if self.launcher == "ray" and not self.ray_address:
            raise ValueError("DREAM_LAUNCHER=ray needs DREAM_RAY_ADDRESS, the URL of Ray's dashboard: http://head:8265")
        return self

    @property
    def scratch(self) -> Path:
        """Working directories of running attempts, deleted when they end."""
        return self.home / "scratch"

    @property
    def checkpoints(self) -> Path:
        """What interrupted jobs go on from. Private: never served."""
        return self.home / "checkpoints"

    @property
    def cache(self) -> Path:
        """Experts and teachers, trained once for all jobs of their settings. May be deleted at any time."""
        return self.home / "cache"

    @property
    def staging(self) -> Path:
        """Artifacts that are still being written. On the file system of `artifacts`, so that a rename publishes."""
        return self.home / "staging"

    @property
    def previews(self) -> Path:
        """Pictures of synthetic sets as they grow."""
        return self.home / "previews"

    @property
    def job_logs(self) -> Path:
        """What runners print, a file per job."""
        return self.home / "job_logs"

    @property
    def uploads(self) -> Path:
        """Users' own datasets."""
        return self.home / "uploads"

    @property
    def artifacts(self) -> Path:
        """Published artifacts, which no one changes."""
        return self.home / "artifacts"


def complaint(error: ValidationError) -> str:
    """What is wrong with the environment, variable by variable, and no value of it."""
    wrong = [problem for problem in error.errors() if problem["type"] != "default_factory_not_called"]  # for another's
    return "; ".join(_say(problem["loc"], problem["msg"].removeprefix("Value error, ")) for problem in wrong)


def _say(where: tuple[int | str, ...], message: str) -> str:
    if not where:
        return message
    name = str(where[0])
    return f"{name if name.isupper() else 'DREAM_' + name.upper()}: {message}"


@cache
def get_settings() -> Settings:
    """The settings of this process."""
    return Settings()
