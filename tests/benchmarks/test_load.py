"""The measurement of the API under load: what it fills in, how it counts, and that it runs."""

import json
import subprocess
import sys
from pathlib import Path

import sqlalchemy as sa

from benchmarks.load.filling import OWNERS, fill, make_keys
from benchmarks.load.plan import Sample
from benchmarks.load.report import rows_of
from jobs import keys, repository
from jobs.lifecycle import HELD, Status
from jobs.settings import Settings
from jobs.tables import Job

ROOT = Path(__file__).parents[2]


def test_jobs_that_are_filled_in_are_jobs(sessions, tmp_path):
    with sessions() as session:
        engine = session.get_bind()
    filled = fill(engine, 300, running=4)
    with sessions() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(Job)) == 300
        held = [job for jobs in filled.running.values() for job in jobs]
        assert sorted(session.scalars(sa.select(Job.id).where(Job.status.in_(HELD)))) == sorted(held)
        for owner, known in filled.jobs.items():
            assert {repository.get_job(session, job).owner for job in known} == {owner}
        job = repository.get_job(session, filled.finished, OWNERS[0])
        assert (job.status, job.resolved_spec["method"]) == (Status.SUCCEEDED, job.method)
        assert [event.seq for event in repository.list_events(session, job.id, 0, 9)[0]] == [1, 2, 3]
    with sessions.begin() as session:
        event = {"type": "metric", "created_at": "2026-01-02T03:04:05Z", "data": {"step": 1, "total": 2}}
        assert repository.append_events(session, held[0], 1, [event])
    settings = Settings(home=tmp_path)
    tokens = make_keys(sessions, settings)
    with sessions() as session:
        found = {o: keys.find_live(session, keys.digest(keys.hashing_key(settings), t)) for o, t in tokens.items()}
    assert {owner: key.owner for owner, key in found.items()} == {owner: owner for owner in OWNERS}


def test_the_first_seconds_do_not_count_but_streams_are_opened_in_them():
    samples = [Sample("poll", 100 + second, 10.0 if second else 5000.0, True) for second in range(11)]
    samples += [Sample("prepare", 99.5, 7000.0, True), Sample("stream", 100.5, 80.0, True)]
    samples += [Sample("poll", 105, 200.0, False)]
    poll, stream = rows_of(samples, warm_up_s=1.0)
    assert (poll.what, poll.count, poll.failures, poll.worst_ms) == ("poll", 11, 1, 200.0)
    assert (poll.p50_ms, poll.p95_ms) == (10.0, 200.0)
    assert 1.0 <= poll.per_second <= 1.2
    assert (stream.what, stream.count, stream.p95_ms) == ("stream", 1, 80.0)


def test_a_small_run_from_end_to_end(tmp_path):
    command = [sys.executable, "benchmarks/load.py", "--database", "sqlite", "--jobs", "100", "--seconds", "1"]
    command += ["--phases", "submits", "downloads", "--megabytes", "2", "--clients", "2", "--results", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    submits = json.loads((tmp_path / "sqlite-submits.json").read_text())
    assert [(row["what"], row["failures"]) for row in submits["rows"]] == [("submit", 0)]
    assert submits["rows"][0]["count"] > 10
    downloads = json.loads((tmp_path / "sqlite-downloads.json").read_text())["downloads"]
    assert (downloads["bytes"], downloads["failures"]) == (2 * 2 << 20, 0)
    table = (tmp_path / "load.md").read_text()
    assert "submits: p95 of submit below 100 ms" in table
    assert str(Path.home()) not in table
