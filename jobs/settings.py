"""Every setting of the service, read from the environment once."""

from functools import cache
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy import URL

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
    )

    home: Path = Path("~/.dream")
    """Everything the service writes lies under here."""
    data_dir: Path = Field(default_factory=lambda data: data["home"] / "data")
    """Where real images are read from."""
    allow_download: bool = False
    """Whether datasets that are not in `data_dir` may be downloaded."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:N`."""

    redis_url: str = Field(default="redis://127.0.0.1:6379/0", validation_alias="REDIS_URL", repr=False)
    database_url: str = Field(
        default_factory=lambda data: _sqlite_in(data["home"]), validation_alias="DATABASE_URL", repr=False
    )

    lease_s: Seconds = 60
    """A worker that has not renewed its claim for this long is lost."""
    heartbeat_s: Seconds = 10
    """How often a worker renews its claim."""
    grace_s: Seconds = 60
    """From asking a runner to stop to killing it."""
    dispatch_s: Seconds = 10
    """How often queued jobs are rung for again and expired leases are looked for."""
    checkpoint_interval_s: Seconds = 60
    stall_s: Seconds = 3600
    """A runner that reports nothing for this long hangs."""

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

    @model_validator(mode="after")
    def _leases_outlast_heartbeats(self) -> Self:
        if self.lease_s < 2 * self.heartbeat_s:
            raise ValueError(
                f"DREAM_LEASE_S ({self.lease_s:g}) must be at least twice DREAM_HEARTBEAT_S ({self.heartbeat_s:g}): "
                "a lease that ends between two renewals is lost"
            )
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
    def artifacts(self) -> Path:
        """Published artifacts, which no one changes."""
        return self.home / "artifacts"


@cache
def get_settings() -> Settings:
    """The settings of this process."""
    return Settings()
