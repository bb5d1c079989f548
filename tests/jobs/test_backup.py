"""Backups: what is in them, where they can be put back, and where not."""

import shutil
import stat
from pathlib import Path

import pytest
from sqlalchemy import make_url, select

from jobs import audit, keys, outbox, repository, uploads, webhooks
from jobs.backup import FACTS, BackupError, back_up, restore
from jobs.database import is_migrated, make_engine, make_sessions, migrate
from jobs.lifecycle import Status
from jobs.settings import Settings
from jobs.tables import Base, Job
from tests.jobs.test_repository import call, claim, report, submit

FILES = (
    "artifacts/{0}/v1/manifest.json",
    "uploads/ds_1/train/a/1.png",
    "checkpoints/{0}/ckpt-a-00000001/state.json",
    "previews/{0}/step-00000001.webp",
    "job_logs/{0}.log",
)


def settings_of(home, database_url):
    return Settings(home=home, redis_url="redis://127.0.0.1:1/0", database_url=database_url)


def use(settings, sessions):
    """Leave in a service what one leaves that has been used; the id of a job that is over."""
    parent = submit(sessions)
    claim(sessions, parent)
    call(sessions, repository.append_events, parent.id, 1, [report("metric", step=n) for n in range(2500)])
    call(sessions, repository.settle, parent.id, 1, Status.SUCCEEDED, result_summary={"accuracy": {"mean": 60.0}})
    child = submit(sessions)
    with sessions.begin() as session:
        session.get(Job, child.id).parent_job_id = parent.id
        session.get(Job, child.id).rung_at = None
        keys.create_key(session, keys.hashing_key(settings), "ann", ["jobs:read"])
        webhooks.create_webhook(session, "local", "https://hooks.example.org/")
        outbox.enqueue(session, "local", outbox.EventType.JOB_SUCCEEDED, parent.id, repository.utcnow())
        uploads.create(session, "ann", "mine", 10, None)
        audit.record(session, "ann", None, "job.submitted", parent.id, None)
    for name in (*FILES, "scratch/{0}/1/job.json", "cache/expert", "staging/half/x"):
        path = settings.home / name.format(parent.id)
        path.parent.mkdir(parents=True)
        path.write_text("content")
    return parent.id


@pytest.fixture
def settings(tmp_path, database_url):
    return settings_of(tmp_path / "a home", database_url)


@pytest.fixture
def backup(tmp_path, settings, sessions):
    """Of a service that has been used."""
    use(settings, sessions)
    back_up(settings, tmp_path / "backup")
    return tmp_path / "backup"


@pytest.fixture
def elsewhere(tmp_path):
    """An empty place."""
    return settings_of(tmp_path / "new home", f"sqlite:///{tmp_path}/new.sqlite3")


def empty(database_url):
    """Leave nothing in a database."""
    migrate(database_url, "base")
    engine = make_engine(database_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE alembic_version")
    engine.dispose()


def rows_of(database_url):
    engine = make_engine(database_url)
    with engine.connect() as connection:
        found = {
            table.name: [row._asdict() for row in connection.execute(select(table).order_by(*table.primary_key))]
            for table in Base.metadata.sorted_tables
        }
    engine.dispose()
    return found


def files_in(directory):
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


def is_put_back(settings, rows, job_id):
    """Assert that all is there, and that the service can go on."""
    assert files_in(settings.home) == sorted(["secret", *(name.format(job_id) for name in FILES)])
    assert rows_of(settings.database_url) == rows
    engine = make_engine(settings.database_url)
    assert is_migrated(engine)
    with make_sessions(engine).begin() as session:
        audit.record(session, "ann", None, "job.deleted", job_id, None)  # numbers go on where they were
    engine.dispose()


def test_a_backup_is_put_back_into_a_database_of_its_kind(settings, sessions, tmp_path):
    job_id = use(settings, sessions)
    rows = rows_of(settings.database_url)
    made = back_up(settings, tmp_path / "backup")
    assert made.files == len(FILES)
    new = settings_of(tmp_path / "new home", settings.database_url)
    empty(settings.database_url)
    if settings.database_url.startswith("sqlite"):
        Path(make_url(settings.database_url).database).unlink()

    assert restore(new, tmp_path / "backup") == made

    is_put_back(new, rows, job_id)
    assert keys.hashing_key(new) == keys.hashing_key(settings)


def test_a_backup_of_sqlite_is_put_into_postgresql(sqlite_url, postgres_url, tmp_path):
    settings, engine = settings_of(tmp_path / "a home", sqlite_url), make_engine(sqlite_url)
    job_id = use(settings, make_sessions(engine))
    engine.dispose()
    back_up(settings, tmp_path / "backup")
    new = settings_of(tmp_path / "new home", postgres_url)
    empty(postgres_url)

    restore(new, tmp_path / "backup")

    is_put_back(new, rows_of(sqlite_url), job_id)


def test_a_backup_of_postgresql_does_not_go_into_sqlite(postgres_url, elsewhere, tmp_path):
    back_up(settings_of(tmp_path / "a home", postgres_url), tmp_path / "backup")
    with pytest.raises(BackupError, match="into PostgreSQL"):
        restore(elsewhere, tmp_path / "backup")


def test_a_backup_is_for_its_owner_alone_and_never_added_to(settings, backup):
    assert stat.S_IMODE(backup.stat().st_mode) == 0o700
    with pytest.raises(BackupError, match="is not empty"):
        back_up(settings, backup)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_where_there_is_something_nothing_is_put_back(settings, backup, elsewhere):
    with pytest.raises(BackupError, match="artifacts is not empty"):
        restore(settings, backup)
    with pytest.raises(BackupError, match="the database is not empty"):
        restore(settings_of(elsewhere.home, settings.database_url), backup)
    elsewhere.home.mkdir()
    (elsewhere.home / "secret").write_text("another")
    with pytest.raises(BackupError, match="the secret here is another"):
        restore(elsewhere, backup)
    (elsewhere.home / "secret").unlink()
    (backup / "secret").unlink()
    with pytest.raises(BackupError, match="hashed under a DREAM_SECRET"):
        restore(elsewhere, backup)
    (backup / FACTS).unlink()
    with pytest.raises(BackupError, match="only half of one"):
        restore(elsewhere, backup)
    assert files_in(elsewhere.home) == []


def test_what_is_wrong_with_the_database_is_said_without_its_password(tmp_path):
    settings = settings_of(tmp_path / "a home", "postgresql://me:hidden@127.0.0.1:1/dream")
    if not shutil.which("pg_dump"):
        pytest.skip("needs pg_dump")
    with pytest.raises(BackupError, match="pg_dump failed") as failed:
        back_up(settings, tmp_path / "backup")
    assert "hidden" not in str(failed.value)
