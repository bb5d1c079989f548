"""Backups: all that a service must not lose, in one directory, taken while it runs; and put back into an empty place.

The database is copied first. What it says has been published lies on the disk by then, and nobody changes it, so that
copying it may take its time; what is published meanwhile is copied for nothing, and swept away a day after it has been
put back. The other way round a row could name files that were not there yet when files were copied. Putting back goes
the other way, for the same reason: the rows come last, when all that they name is there.
"""

import json
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlalchemy import URL, inspect, make_url
from sqlalchemy.exc import SQLAlchemyError

from jobs import repository, secrets
from jobs.advice import Advised
from jobs.database import make_engine, make_sessions, migrate
from jobs.moving import copy_rows
from jobs.settings import Settings

FACTS = "backup.json"
"""Written last: a directory without it is half of a backup."""
SQLITE, POSTGRESQL = "database.sqlite3", "database.dump"
DIRECTORIES = ("artifacts", "uploads", "checkpoints", "previews", "job_logs")
"""What is kept of the home. The rest is made anew."""


class BackupError(Advised):
    """It cannot be done."""


@dataclass(frozen=True, slots=True)
class Backup:
    """What `backup.json` says of a backup."""

    version: str
    created_at: str
    database: str
    files: int
    bytes: int
    """Of the files, the database not among them."""
    artifacts_url: str
    """Where results are if not in here."""
    secret: str | None
    """What the server's secret is known by; None if none was ever needed."""


def back_up(settings: Settings, directory: Path) -> Backup:
    """Copy the database and the files into a new directory, for its owner's eyes alone. Raises BackupError."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(directory.iterdir()):
            raise BackupError(f"{directory} is not empty", "name a new directory: a backup is never added to")
        directory.chmod(0o700)  # it may have been there
        created_at = repository.utcnow().isoformat()
        database = _dump(make_url(settings.database_url), directory)
        copied = [_copy(settings.home / name, directory / name) for name in DIRECTORIES]
        own_secret = settings.home / secrets.FILE
        if settings.secret is None and own_secret.exists():
            shutil.copy2(own_secret, directory / secrets.FILE)
        known_by = _fingerprint(settings) if settings.secret or own_secret.exists() else None
        count, size = (sum(column) for column in zip(*copied, strict=True))
        backup = Backup(
            version("dream-distillation"), created_at, database, count, size, settings.artifacts_url, known_by
        )
        os.sync()
        (directory / FACTS).write_text(json.dumps(asdict(backup), indent=2) + "\n", encoding="utf-8")
    except (OSError, sqlite3.Error) as error:
        raise BackupError(f"the backup is not complete: {error}", "remove it, and try again elsewhere") from None
    return backup


def restore(settings: Settings, directory: Path) -> Backup:
    """Put a backup into a home and a database that are empty, while no part of a service runs there.

    A backup of SQLite may be put into PostgreSQL. Jobs that ran go on from their checkpoints. Raises BackupError.
    """
    try:
        backup = Backup(**json.loads((directory / FACTS).read_bytes()))
    except FileNotFoundError:
        raise BackupError(f"{directory} is no backup, or only half of one", f"look for {FACTS} in it") from None
    except (OSError, ValueError, TypeError) as error:
        raise BackupError(f"{directory / FACTS} cannot be read: {error}", "was it made by another version?") from None
    if backup.database == POSTGRESQL and make_url(settings.database_url).get_backend_name() != "postgresql":
        raise BackupError("this backup goes into PostgreSQL, and DATABASE_URL is none", "set it to an empty one")
    _require_empty(settings)
    _require_secret(settings, directory, backup)
    try:
        settings.home.mkdir(parents=True, exist_ok=True)
        for name in DIRECTORIES:
            _copy(directory / name, settings.home / name)
        if settings.secret is None and (directory / secrets.FILE).exists():
            shutil.copy2(directory / secrets.FILE, settings.home / secrets.FILE)
        _load(directory / backup.database, settings.database_url)
    except (OSError, SQLAlchemyError) as error:
        raise BackupError(f"not all of it was put back: {error}", "empty the place, and try again") from None
    engine = make_engine(settings.database_url)
    with make_sessions(engine).begin() as session:
        repository.nothing_rung(session)  # messages stayed with the broker of then
    engine.dispose()
    return backup


# ---- the database


def _dump(url: URL, directory: Path) -> str:
    if url.get_backend_name() == "sqlite":
        there = f"{Path(str(url.database)).absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(there, uri=True)) as connection:
            connection.execute("VACUUM INTO ?", [str(directory / SQLITE)])
        return SQLITE
    _run(url, ["pg_dump", "--format=custom", "--no-owner", "--no-privileges", f"--file={directory / POSTGRESQL}"])
    return POSTGRESQL


def _load(dump: Path, database_url: str) -> None:
    url = make_url(database_url)
    if dump.name == POSTGRESQL:
        _run(url, ["pg_restore", "--no-owner", "--no-privileges", "--single-transaction", str(dump)])
        migrate(database_url)
        return
    if url.get_backend_name() == "sqlite":
        shutil.copyfile(dump, str(url.database))
        migrate(database_url)
        return
    with TemporaryDirectory() as scratch:
        copy = shutil.copyfile(dump, Path(scratch) / SQLITE)
        present = URL.create("sqlite", database=str(copy)).render_as_string()
        migrate(present)
        migrate(database_url)
        copy_rows(make_engine(present), make_engine(database_url))


def _run(url: URL, command: Sequence[str]) -> None:
    """Run a program of PostgreSQL's. The password is not among its arguments, which everyone can see."""
    program, *options = command
    if shutil.which(program) is None:
        raise BackupError(
            f"{program} is not installed here",
            "install PostgreSQL's client programs; in containers, do as docs/deploy.md says",
        )
    address = url.set(drivername="postgresql", password=None).render_as_string()
    password = {"PGPASSWORD": str(url.password)} if url.password else {}
    command = [program, f"--dbname={address}", *options]
    done = subprocess.run(command, env=os.environ | password, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BackupError(f"{program} failed: {done.stderr.strip()}", "look at DATABASE_URL, and at its version")


# ---- the files


def _copy(source: Path, target: Path) -> tuple[int, int]:
    """Copy a tree that others add to and remove from: how many files, of how many bytes."""
    count = size = 0
    for place, _, names in os.walk(source):
        there = target / Path(place).relative_to(source)
        there.mkdir(parents=True, exist_ok=True)
        for name in names:
            try:
                shutil.copy2(Path(place) / name, there / name, follow_symlinks=False)
            except FileNotFoundError:  # removed since
                continue
            count, size = count + 1, size + (there / name).lstat().st_size
    return count, size


# ---- what is asked of the place


def _require_empty(settings: Settings) -> None:
    for path in (settings.home / name for name in DIRECTORIES):
        if path.is_dir() and any(path.iterdir()):
            raise BackupError(f"{path} is not empty", "put it back into an empty home, or move that one away")
    engine = make_engine(settings.database_url)
    try:
        tables = inspect(engine).get_table_names()
    except SQLAlchemyError as error:
        raise BackupError(f"cannot use the database: {error}", "look at DATABASE_URL") from None
    finally:
        engine.dispose()
    if tables:
        raise BackupError("the database is not empty", "put it back into an empty one")


def _require_secret(settings: Settings, directory: Path, backup: Backup) -> None:
    """Without the secret that keys were hashed under nobody could come in any more."""
    if backup.secret is None:
        return
    if settings.secret or (settings.home / secrets.FILE).exists():
        if _fingerprint(settings) != backup.secret:
            raise BackupError("the secret here is another than that of the backup", "set DREAM_SECRET as it was then")
    elif not (directory / secrets.FILE).exists():
        raise BackupError("keys were hashed under a DREAM_SECRET, which is not in the backup", "set it as it was then")


def _fingerprint(settings: Settings) -> str:
    return secrets.derive(secrets.server_secret(settings), "backup").hex()
