"""What is removed, and what is not, on SQLite and on PostgreSQL."""

import os
from datetime import timedelta
from itertools import pairwise

import pytest

from jobs import previews, repository, retention
from jobs.lifecycle import Status
from jobs.repository import utcnow
from jobs.retention import KEPT_METRICS, sweep
from jobs.settings import Settings
from tests.jobs.test_repository import call, claim, events_of, read, report, submit

DAY = timedelta(days=1)


@pytest.fixture
def settings(tmp_path):
    return Settings(home=tmp_path / "a home", redis_url="redis://127.0.0.1:1/0")


@pytest.fixture
def finished(sessions, settings):
    """A job that has succeeded, with all the files that one leaves."""

    def finished():
        job = submit(sessions)
        claim(sessions, job)
        summary = {"accuracy": {"mean": 60.0}}
        call(sessions, repository.settle, job.id, 1, Status.SUCCEEDED, result_summary=summary, retention_days=30)
        leave(settings, job.id)
        return job

    return finished


def leave(settings, job_id):
    for path in places(settings, job_id):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("content")


def places(settings, job_id):
    return [
        settings.artifacts / job_id / "v1" / "manifest.json",
        settings.previews / job_id / "step-00000001.webp",
        settings.job_logs / f"{job_id}.log",
        settings.checkpoints / job_id / "ckpt-a-00000001" / "state.json",
        settings.scratch / job_id / "1" / "job.json",
    ]


def left(settings, job_id):
    return [path.relative_to(settings.home).parts[0] for path in places(settings, job_id) if path.exists()]


def age(path, days):
    then = (utcnow() - days * DAY).timestamp()
    os.utime(path, (then, then))


def test_files_are_kept_as_long_as_was_said(sessions, settings, finished):
    job = finished()
    sweep(sessions, settings, utcnow() + 6 * DAY)
    assert left(settings, job.id) == ["artifacts", "previews", "job_logs", "checkpoints"]
    sweep(sessions, settings, utcnow() + 8 * DAY)
    assert left(settings, job.id) == ["artifacts", "previews", "job_logs"]
    assert sweep(sessions, settings, utcnow() + 31 * DAY).purged == 1
    assert left(settings, job.id) == []
    assert read(sessions, job).purged_at
    assert events_of(sessions, job)[-1][1] == "purged"
    assert read(sessions, job).event_seq == events_of(sessions, job)[-1][0]
    assert sweep(sessions, settings, utcnow() + 31 * DAY).purged == 0


def test_a_failed_job_leaves_nothing_for_ever(sessions, settings):
    job = submit(sessions)
    call(sessions, repository.request_cancel, job.id)
    leave(settings, job.id)
    sweep(sessions, settings, utcnow() + 31 * DAY)
    assert left(settings, job.id) == []


def test_jobs_that_go_on_lose_nothing(sessions, settings):
    job = submit(sessions)
    claim(sessions, job)
    leave(settings, job.id)
    sweep(sessions, settings, utcnow() + 1000 * DAY)
    assert len(left(settings, job.id)) == 5


def test_a_checkpoint_is_kept_for_a_job_that_is_to_go_on_from_it(sessions, settings, finished):
    parent = finished()
    child = submit(sessions)
    with sessions.begin() as session:
        session.get(type(child), child.id).parent_job_id = parent.id
    sweep(sessions, settings, utcnow() + 8 * DAY)
    assert "checkpoints" in left(settings, parent.id)
    call(sessions, repository.request_cancel, child.id)
    sweep(sessions, settings, utcnow() + 8 * DAY)
    assert "checkpoints" not in left(settings, parent.id)


def test_a_deleted_job_is_gone_after_a_day_and_its_child_stays(sessions, settings, finished):
    job, child = finished(), submit(sessions)
    with sessions.begin() as session:
        session.get(type(child), child.id).parent_job_id = job.id
    call(sessions, repository.delete, job.id)
    sweep(sessions, settings)
    assert call(sessions, repository.get_job, job.id)
    assert sweep(sessions, settings, utcnow() + 1.1 * DAY).deleted == 1
    assert call(sessions, repository.get_job, job.id) is None
    assert events_of(sessions, job) == []
    assert read(sessions, child).parent_job_id is None
    sweep(sessions, settings, utcnow() + 2.2 * DAY)
    assert left(settings, job.id) == []


def test_files_are_found_again_after_a_crash_between_row_and_files(sessions, settings, finished, monkeypatch):
    job = finished()

    def crash(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(retention, "_remove_files", crash)
    with pytest.raises(KeyboardInterrupt):
        sweep(sessions, settings, utcnow() + 31 * DAY)
    assert read(sessions, job).purged_at
    assert "artifacts" in left(settings, job.id)
    monkeypatch.undo()
    sweep(sessions, settings, utcnow() + 31 * DAY)
    assert left(settings, job.id) == []


def test_files_of_unknown_jobs_are_given_a_day(sessions, settings):
    stranger = "job_" + "0" * 32
    leave(settings, stranger)
    sweep(sessions, settings)
    assert len(left(settings, stranger)) == 5
    sweep(sessions, settings, utcnow() + 1.1 * DAY)
    assert left(settings, stranger) == []


def test_what_is_not_named_after_a_job_is_left_alone(sessions, settings):
    note = settings.artifacts / "README"
    note.parent.mkdir(parents=True)
    note.write_text("mine")
    sweep(sessions, settings, utcnow() + 1000 * DAY)
    assert note.exists()


def test_old_staging_is_removed_unless_an_attempt_may_still_write_to_it(sessions, settings):
    old, new = settings.staging / "old", settings.staging / "new"
    for directory in (old, new):
        directory.mkdir(parents=True)
    age(old, days=3)
    job = submit(sessions)
    claim(sessions, job)
    with sessions.begin() as session:
        session.get(type(job), job.id).claimed_at = utcnow() - 4 * DAY
    sweep(sessions, settings)
    assert old.exists()
    with sessions.begin() as session:
        session.get(type(job), job.id).claimed_at = utcnow()
    sweep(sessions, settings)
    assert (old.exists(), new.exists()) == (False, True)


def test_metrics_of_a_job_that_is_over_are_thinned_evenly(sessions, settings):
    job = submit(sessions)
    claim(sessions, job)
    call(sessions, repository.append_events, job.id, 1, [report("metric", step=n, total=3000) for n in range(3000)])
    sweep(sessions, settings)
    assert len(events_of(sessions, job)) > 900
    call(sessions, repository.settle, job.id, 1, Status.SUCCEEDED)
    assert sweep(sessions, settings).thinned == 1
    with sessions() as session:
        kept = [event.data["step"] for event in repository.list_events(session, job.id, 0, 5000, ["metric"])[0]]
    assert (len(kept), kept[0], kept[-1]) == (KEPT_METRICS, 0, 2999)
    assert max(after - before for before, after in pairwise(kept)) <= 4
    assert sweep(sessions, settings).thinned == 0


def test_previews_that_were_thinned_out_are_told_of_no_more(sessions, settings):
    job = submit(sessions)
    claim(sessions, job)
    told = [*range(300), *range(250, 300)]  # by a second attempt once more
    call(sessions, repository.append_events, job.id, 1, [report("preview", step=step) for step in told])
    call(sessions, repository.settle, job.id, 1, Status.SUCCEEDED)
    for step in range(0, 300, 2):
        frame = previews.preview_path(settings.previews / job.id, step)
        frame.parent.mkdir(parents=True, exist_ok=True)
        frame.write_bytes(b"a picture")

    assert sweep(sessions, settings).thinned == 1

    with sessions() as session:
        left = repository.list_events(session, job.id, 0, 1000, ["preview"])[0]
    assert [event.data["step"] for event in left] == list(range(0, 300, 2))
    assert sweep(sessions, settings).thinned == 0
