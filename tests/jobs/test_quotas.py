"""What owners may use, also when they ask for it many times at once, on SQLite and on PostgreSQL."""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from threading import Barrier

import pytest

from jobs import quotas, repository, usage
from jobs.database import make_engine, make_sessions
from jobs.lifecycle import ErrorClass, Status
from jobs.quotas import Limits, QuotaExceeded
from jobs.repository import utcnow
from jobs.settings import Settings
from jobs.spec import JobSpec
from jobs.tables import Job, JobEvent, Owner, UploadedDataset
from jobs.usage import Span
from tests.jobs.test_repository import call, claim, submit

HOUR = timedelta(hours=1)


@pytest.fixture
def settings(tmp_path):
    return Settings(home=tmp_path, max_queued=3, storage_bytes=100)


def admit(sessions, settings, owner="anna", **spec):
    """Submit as the API does."""
    with sessions.begin() as session:
        quotas.admit_job(session, owner, settings)
        wanted = JobSpec(**({"dataset": "digits", "method": "dream", "ipc": 1} | spec))
        return repository.create_job(session, wanted, wanted.resolve(), owner=owner)


def try_to_admit(sessions, settings):
    try:
        return bool(admit(sessions, settings))
    except QuotaExceeded:
        return False


def ran(sessions, job, *moments):
    """Give the job's state events these times, as many hours ago."""
    with sessions.begin() as session:
        events = session.query(JobEvent).filter_by(job_id=job.id, type="state").order_by(JobEvent.seq).all()
        for event, hours in zip(events, moments, strict=True):
            event.created_at = utcnow() - hours * HOUR
        row = session.get(Job, job.id)
        if row.finished_at:
            row.finished_at = events[-1].created_at


def finished(sessions, job, *moments):
    claim(sessions, job)
    call(sessions, repository.settle, job.id, 1, Status.SUCCEEDED)
    ran(sessions, job, *moments)


def test_an_owner_without_own_limits_has_the_services(sessions, settings):
    assert call(sessions, quotas.limits_of, "anna", settings) == Limits(3, None, None, 100, 30)


def test_own_limits_count_zero_too_and_can_be_taken_back(sessions, settings):
    own = {"max_queued": 0, "max_running": 2, "run_seconds_per_day": 60, "storage_bytes": None, "retention_days": 1}
    call(sessions, quotas.set_limits, "anna", own)
    assert call(sessions, quotas.limits_of, "anna", settings) == Limits(0, 2, 60, 100, 1)
    with pytest.raises(QuotaExceeded, match="0 of your jobs wait already, and 0 may"):
        admit(sessions, settings)
    call(sessions, quotas.set_limits, "anna", dict.fromkeys(own))
    assert call(sessions, quotas.limits_of, "anna", settings).max_queued == 3


def test_waiting_and_paused_jobs_count_running_ones_do_not(sessions, settings):
    first, second, _ = (admit(sessions, settings) for _ in range(3))
    with pytest.raises(QuotaExceeded, match="3 of your jobs wait already"):
        admit(sessions, settings)
    admit(sessions, settings, "bela")
    call(sessions, repository.request_pause, first.id)
    with pytest.raises(QuotaExceeded):
        admit(sessions, settings)
    claim(sessions, second)
    admit(sessions, settings)
    used = call(sessions, quotas.used_by, "anna")
    assert (used.queued, used.running) == (3, 1)


def test_of_many_requests_at_once_only_as_many_fit_as_may(database_url, sessions, settings):
    """The first of all, too, when there is no row of the owner's yet."""
    barrier = Barrier(8)

    def at_once(_):
        barrier.wait()
        return try_to_admit(sessions, settings)

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(at_once, range(8))) == 3
    assert call(sessions, quotas.used_by, "anna").queued == 3


def _admit_at(url, settings, moment):
    engine = make_engine(url)
    sessions = make_sessions(engine)
    time.sleep(max(0, moment - time.time()))
    admitted = sum(try_to_admit(sessions, settings) for _ in range(4))
    engine.dispose()
    return admitted


def test_of_many_processes_at_once_too(racers, database_url, sessions, settings):
    moment = time.time() + 0.5
    racing = [racers.submit(_admit_at, database_url, settings, moment) for _ in range(3)]
    assert sum(future.result() for future in racing) == 3


def test_bytes_of_artifacts_and_datasets_are_counted_until_they_are_deleted(sessions, settings):
    kept, deleted, purged = (admit(sessions, settings) for _ in range(3))
    with sessions.begin() as session:
        for job, size in [(kept, 30), (deleted, 40), (purged, 50)]:
            session.get(Job, job.id).artifact_bytes = size
        about = {"status": "ready", "created_at": utcnow()}
        session.add(UploadedDataset(id="ds_1", owner="anna", name="mine", bytes=7, **about))
        session.add(UploadedDataset(id="ds_2", owner="bela", name="mine", bytes=1000, **about))
    assert call(sessions, quotas.stored_bytes, "anna") == 127
    with sessions.begin() as session:
        session.get(Job, deleted.id).deleted_at = session.get(Job, purged.id).purged_at = utcnow()
    assert call(sessions, quotas.stored_bytes, "anna") == 37
    call(sessions, quotas.admit_bytes, "anna", 63, settings)
    with pytest.raises(QuotaExceeded, match="take 37 of the 100 bytes"):
        call(sessions, quotas.admit_bytes, "anna", 64, settings)


def test_no_job_is_taken_once_the_storage_is_used_up(sessions, settings):
    job = admit(sessions, settings)
    for size, fits in [(99, True), (100, False)]:
        with sessions.begin() as session:
            session.get(Job, job.id).artifact_bytes = size
        assert try_to_admit(sessions, settings) is fits


def test_of_many_uploads_at_once_only_as_many_fit_as_may(sessions, settings):
    barrier = Barrier(6)

    def upload(number):
        barrier.wait()
        try:
            with sessions.begin() as session:
                quotas.admit_bytes(session, "anna", 40, settings)
                about = {"status": "uploading", "created_at": utcnow(), "name": f"set-{number}"}
                session.add(UploadedDataset(id=f"ds_{number}", owner="anna", bytes=40, **about))
        except QuotaExceeded:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(upload, range(6))) == 2


def test_running_is_counted_within_the_last_day_waiting_is_not(sessions, settings):
    long, short, waiting = (submit(sessions) for _ in range(3))
    finished(sessions, long, 50, 30, 23)  # for seven hours, of which one falls into the last day
    finished(sessions, short, 20, 5, 3)
    assert call(sessions, quotas.run_seconds, "local") == pytest.approx(3 * 3600, abs=5)
    claim(sessions, waiting)
    ran(sessions, waiting, 9, 2)  # it still runs
    assert call(sessions, quotas.run_seconds, "local") == pytest.approx(5 * 3600, abs=5)
    assert call(sessions, quotas.run_seconds, "anna") == 0


def test_every_attempt_counts_and_the_time_between_them_does_not(sessions, settings):
    job = submit(sessions)
    claim(sessions, job)
    call(sessions, repository.request_pause, job.id)
    call(sessions, repository.requeue, job.id, 1, ErrorClass.HOST_SHUTDOWN)
    call(sessions, repository.resume, job.id)
    claim(sessions, job)
    ran(sessions, job, 9, 8, 7.5, 7, 3, 1)  # created, running, pausing, paused, queued, running
    assert call(sessions, quotas.run_seconds, "local") == pytest.approx(2 * 3600, abs=5)


def test_no_job_is_taken_once_the_days_running_is_used_up(sessions, settings):
    job = submit(sessions)
    finished(sessions, job, 4, 3, 2)
    strict = settings.model_copy(update={"run_seconds_per_day": 3599})
    with pytest.raises(QuotaExceeded, match="3599 s is what they may"):
        admit(sessions, strict, "local")
    admit(sessions, strict.model_copy(update={"run_seconds_per_day": 3700}), "local")


def test_running_is_split_at_midnight():
    begin = datetime(2026, 1, 30, 23, 0, tzinfo=UTC)
    spans = [Span("idc", begin, begin + 26 * HOUR), Span("dm", begin, begin + 0.5 * HOUR), Span("dm", begin, begin)]
    assert usage.by_day(spans) == {
        (date(2026, 1, 30), "dm"): 1800,
        (date(2026, 1, 30), "idc"): 3600,
        (date(2026, 1, 31), "idc"): 86400,
        (date(2026, 2, 1), "idc"): 3600,
    }


def test_jobs_are_counted_by_state(sessions):
    for _ in range(2):
        submit(sessions)
    claim(sessions, submit(sessions))
    assert call(sessions, usage.jobs_by_status, "local") == {Status.QUEUED: 2, Status.RUNNING: 1}
    assert call(sessions, usage.jobs_by_status, "anna") == {}


def test_owners_are_made_once(sessions):
    for _ in range(2):
        call(sessions, quotas.ensure_owner, "anna")
    with sessions() as session:
        assert [owner.name for owner in session.query(Owner)] == ["anna"]
