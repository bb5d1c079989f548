import json

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text
from sqlalchemy.exc import OperationalError

from jobs.database import is_migrated, make_engine, make_sessions, migrate
from jobs.quotas import ensure_owner
from jobs.tables import Base, Job, JobEvent


def test_migrations_make_the_tables_that_the_code_knows(database_url):
    engine = make_engine(database_url)
    with engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), Base.metadata)
    assert differences == []
    assert is_migrated(engine)
    engine.dispose()


def test_down_and_up_again(database_url):
    engine = make_engine(database_url)
    migrate(database_url, "base")
    assert not is_migrated(engine)
    assert inspect(engine).get_table_names() == ["alembic_version"]
    migrate(database_url)
    assert is_migrated(engine)
    engine.dispose()


def test_an_upgrade_keeps_jobs_and_events_and_knows_what_they_say(database_url):
    engine = make_engine(database_url)
    migrate(database_url, "base")
    migrate(database_url, "0001")
    spec = {"dataset": "digits", "method": "dream", "ipc": 10}
    summary = {"accuracy": {"mean": 61.5, "std": 1.0}, "protocol_hash": "ab12"}
    row = {"spec": json.dumps(spec), "summary": json.dumps(summary), "now": "2026-01-02 03:04:05"}
    with engine.begin() as connection:
        connection.execute(text(OLD_JOB), row)
        connection.execute(text(OLD_EVENT), row)
    migrate(database_url)
    with make_sessions(engine).begin() as session:
        job = session.get(Job, "job_old")
        assert (job.owner, job.ipc, job.accuracy, job.protocol_hash) == ("local", 10, 61.5, "ab12")
        assert (job.queue, job.priority, job.partial, job.run_seconds) == ("default", 0, False, 0.0)
        assert session.get(JobEvent, ("job_old", 1)).data == spec
    migrate(database_url, "0001")
    with engine.begin() as connection:
        assert connection.scalar(text("SELECT count(*) FROM job_events")) == 1
        assert connection.scalar(text("SELECT status FROM jobs")) == "succeeded"
    migrate(database_url)
    assert is_migrated(engine)
    engine.dispose()


OLD_JOB = """
    INSERT INTO jobs (id, dataset, method, spec, resolved_spec, metadata, status, result_summary, attempt, run_after,
                      losses, created_at, queued_at, version, event_seq)
    VALUES ('job_old', 'digits', 'dream', :spec, :spec, '{}', 'succeeded', :summary, 1, :now, 0, :now, :now, 5, 1)
"""
OLD_EVENT = """
    INSERT INTO job_events (job_id, seq, type, attempt, created_at, data) VALUES ('job_old', 1, 'log', 1, :now, :spec)
"""


def test_migrating_twice_changes_nothing(database_url):
    migrate(database_url)


def test_several_processes_migrate_at_once(racers, tmp_path):
    url = f"sqlite:///{tmp_path}/new/db.sqlite3"
    for migrating in [racers.submit(migrate, url) for _ in range(3)]:
        migrating.result()
    engine = make_engine(url)
    assert is_migrated(engine)
    engine.dispose()


def test_sqlite_is_set_up_for_several_processes(sqlite_url):
    engine = make_engine(sqlite_url)
    with engine.connect() as connection:
        pragmas = {name: connection.scalar(text(f"PRAGMA {name}")) for name in ("journal_mode", "foreign_keys")}
        assert connection.scalar(text("PRAGMA busy_timeout")) == 10_000
    assert pragmas == {"journal_mode": "wal", "foreign_keys": 1}
    engine.dispose()


def test_readers_do_not_wait_for_a_writer(sqlite_url):
    engine = make_engine(sqlite_url)
    with make_sessions(engine).begin() as writer, make_sessions(engine, read_only=True).begin() as reader:
        assert writer.scalar(text("SELECT count(*) FROM jobs")) == 0
        assert reader.scalar(text("SELECT count(*) FROM jobs")) == 0
        assert is_migrated(engine)
    engine.dispose()


def test_readers_leave_no_transaction_open(database_url):
    engine = make_engine(database_url)
    with make_sessions(engine, read_only=True).begin() as reader, make_sessions(engine).begin() as writer:
        assert reader.scalar(text("SELECT count(*) FROM owners")) == 0
        ensure_owner(writer, "ann")
        writer.commit()
        assert reader.scalar(text("SELECT count(*) FROM owners")) == 1
    engine.dispose()


def test_a_connection_that_died_while_idle_is_not_used_again(postgres_url, monkeypatch):
    engine, other = make_engine(postgres_url), make_engine(postgres_url)
    monkeypatch.setattr("jobs.database.PING_AFTER_S", 0.0)
    with engine.connect() as connection:
        process = connection.scalar(text("SELECT pg_backend_pid()"))
    with other.connect() as connection:
        connection.execute(text("SELECT pg_terminate_backend(:process)"), {"process": process})
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT pg_backend_pid()")) != process
    engine.dispose()
    other.dispose()


def test_a_database_in_memory_is_refused():
    with pytest.raises(ValueError, match="must be a file"):
        make_engine("sqlite://")


def test_a_database_that_is_away():
    engine = make_engine("postgres://127.0.0.1:1/none")
    with pytest.raises(OperationalError):
        is_migrated(engine)
