"""Workers and queues as operators see and steer them, on SQLite and on PostgreSQL."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from jobs import operations, repository
from jobs.lifecycle import Status
from jobs.queue import QUEUE
from jobs.repository import utcnow
from jobs.tables import Job, WorkerRow
from tests.jobs.test_repository import call, claim, read, submit


def heard_of(sessions, worker_id="gpu0@host", job_id=None, **facts):
    call(sessions, operations.report_worker, worker_id, QUEUE, facts, job_id)
    return call(sessions, lambda session: session.get(WorkerRow, worker_id))


def long_ago(sessions, worker_id="gpu0@host", **ago):
    with sessions.begin() as session:
        session.get(WorkerRow, worker_id).seen_at = utcnow() - timedelta(**ago)


def queue(sessions, name=QUEUE):
    return next(found for found in call(sessions, operations.list_queues, 60) if found.name == name)


def test_a_worker_is_known_by_its_last_sign_of_life(sessions):
    first = heard_of(sessions, device="cpu")
    assert (first.facts, first.job_id, first.draining, first.started_at) == (
        {"device": "cpu"},
        None,
        False,
        first.seen_at,
    )
    again = heard_of(sessions, job_id="job_1", device="cuda")
    assert (again.facts, again.job_id, again.started_at) == ({"device": "cuda"}, "job_1", first.started_at)
    assert again.seen_at > first.seen_at
    assert len(call(sessions, operations.list_workers)) == 1


def test_a_worker_that_comes_back_has_been_started_anew_and_is_still_drained(sessions):
    first = heard_of(sessions)
    call(sessions, operations.drain, first.id, draining=True)
    long_ago(sessions, minutes=2)
    back = heard_of(sessions)
    assert back.started_at > first.started_at
    assert back.draining


def test_many_signs_of_life_at_once(sessions):
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda number: heard_of(sessions, number=number), range(12)))
    assert len(call(sessions, operations.list_workers)) == 1


def test_workers_are_listed_latest_first_and_forgotten_after_a_week(sessions):
    for name, days in [("old", 8), ("yesterday's", 1), ("here", 0)]:
        heard_of(sessions, name)
        long_ago(sessions, name, days=days)
    call(sessions, operations.forget_workers)
    assert [worker.id for worker in call(sessions, operations.list_workers)] == ["here", "yesterday's"]


def test_a_worker_that_is_not_known_cannot_be_drained(sessions):
    assert call(sessions, operations.drain, "nobody", draining=True) is None


def test_jobs_are_rung_for_once_a_worker_takes_jobs_again(sessions):
    job = submit(sessions)
    worker = heard_of(sessions)
    call(sessions, operations.drain, worker.id, draining=True)
    assert read(sessions, job).rung_at
    call(sessions, operations.drain, worker.id, draining=False)
    assert read(sessions, job).rung_at is None


def test_a_queue_with_nothing_in_it(sessions):
    assert call(sessions, operations.list_queues, 60) == [operations.Queue(QUEUE, None, 0, None, 0, 0)]


def test_what_a_queue_holds_and_who_takes_from_it(sessions):
    oldest, _, running, over, elsewhere = (submit(sessions) for _ in range(5))
    claim(sessions, running)
    call(sessions, repository.request_cancel, running.id)
    call(sessions, repository.request_cancel, over.id)
    with sessions.begin() as session:
        session.get(Job, elsewhere.id).queue = "gpu"
    heard_of(sessions)
    heard_of(sessions, "gone")
    long_ago(sessions, "gone", seconds=61)
    assert queue(sessions) == operations.Queue(QUEUE, None, 2, oldest.queued_at, 1, 1)
    assert (queue(sessions, "gpu").queued, queue(sessions, "gpu").workers) == (1, 0)


def test_pausing_and_resuming_a_queue_twice_is_harmless(sessions):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: call(sessions, operations.pause_queue, QUEUE), range(4)))
    since = queue(sessions).paused_at
    assert since
    call(sessions, operations.pause_queue, QUEUE)
    assert queue(sessions).paused_at == since
    for _ in range(2):
        call(sessions, operations.resume_queue, QUEUE)
    assert queue(sessions).paused_at is None


@pytest.mark.parametrize("held", [Status.PAUSED, Status.QUEUED])
def test_resuming_a_queue_rings_for_the_jobs_that_wait(sessions, held):
    job = submit(sessions)
    call(sessions, operations.pause_queue, QUEUE)
    if held is Status.PAUSED:
        call(sessions, repository.request_pause, job.id)
    call(sessions, operations.resume_queue, QUEUE)
    due = call(sessions, repository.due_for_ringing, 60)
    assert due == ([job.id] if held is Status.QUEUED else [])
