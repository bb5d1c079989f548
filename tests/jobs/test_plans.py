"""What is asked often never reads the whole table of jobs: SQLite, which has no statistics, says how it would go."""

import re
from datetime import timedelta

import pytest
import sqlalchemy as sa

from jobs import quotas, repository, retention
from jobs.database import make_engine, make_sessions
from jobs.lifecycle import Status
from jobs.repository import Filters, utcnow
from jobs.settings import Settings
from jobs.tables import Job

NOW = utcnow()
WHOLE_TABLE = re.compile(r"SCAN jobs(?! USING INDEX ix_jobs_created_at_id)")  # in order of that index it ends early


@pytest.fixture
def asked(sqlite_url):
    """Runs a function in a transaction; how SQLite goes about each statement on jobs."""
    engine = make_engine(sqlite_url)
    sessions = make_sessions(engine)
    statements = []

    @sa.event.listens_for(engine, "before_cursor_execute")
    def remember(connection, cursor, statement, parameters, context, many):
        if re.search(r"\bjobs\b", statement) and not statement.startswith(("INSERT", "EXPLAIN")):
            statements.append((statement, parameters))

    def asked(function, *arguments, **options):
        with sessions() as session:
            function(session, *arguments, **options)
        with engine.connect() as connection:
            plans = [connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", values) for sql, values in statements]
            return [step for plan in plans for *_, step in plan]

    asked.sessions = sessions
    yield asked
    engine.dispose()


@pytest.mark.parametrize("owner", [None, "anna"])
@pytest.mark.parametrize("filters", [Filters(), Filters([Status.RUNNING]), Filters([Status.FAILED])])
@pytest.mark.parametrize("after", [None, (NOW, "job_z")])
def test_lists(asked, owner, filters, after):
    steps = asked(repository.list_jobs, 20, filters, owner=owner, after=after)
    assert steps
    assert not [step for step in steps if WHOLE_TABLE.match(step) or "TEMP B-TREE" in step]


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (repository.get_job, ["job_1"]),
        (repository.get_standing, ["job_1"]),
        (repository.claim_next, ["worker", 60]),
        (repository.due_for_ringing, [60]),
        (repository.expire_leases, []),
        (repository.ahead_of, [0, NOW]),
        (quotas.admit_job, ["anna", Settings(max_queued=10)]),
    ],
)
def test_what_workers_and_submits_ask(asked, function, arguments):
    steps = asked(function, *arguments)
    assert steps
    assert not [step for step in steps if WHOLE_TABLE.match(step)]


def test_ringing_goes_along_the_index(asked):
    assert not [step for step in asked(repository.due_for_ringing, 60) if "TEMP B-TREE" in step]


def test_retention(asked, tmp_path):
    with asked.sessions.begin() as session:
        session.add(_old("job_" + "1" * 32))
    steps = asked(lambda _: retention.sweep(asked.sessions, Settings(home=tmp_path)))
    assert any("ix_jobs_parent_job_id" in step for step in steps)  # also asked for by the foreign key
    assert not [step for step in steps if WHOLE_TABLE.match(step)]


def _old(job_id: str) -> Job:
    then = NOW - timedelta(days=40)
    return Job(
        id=job_id, dataset="digits", method="dm", ipc=1, spec={}, resolved_spec={}, labels={}, status=Status.FAILED,
        queue="default", run_after=then, created_at=then, queued_at=then, finished_at=then, deleted_at=then,
    )  # fmt: skip
