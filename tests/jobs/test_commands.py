"""What users ask of jobs, and which job a worker is given, on SQLite and on PostgreSQL."""

import pytest

from jobs import repository
from jobs.lifecycle import PRIORITIES, ErrorClass, IllegalTransition, Status
from jobs.operations import drain, pause_queue, report_worker, resume_queue
from jobs.queue import QUEUE
from jobs.repository import utcnow
from jobs.tables import Owner
from tests.jobs.test_repository import call, claim, events_of, read, submit


def urgent(sessions, job, priority):
    call(sessions, repository.amend, job.id, {"priority": PRIORITIES[priority]})


def next_of(sessions, worker="worker-1", **limits):
    job = call(sessions, repository.claim_next, worker, 60, **limits)
    return job and job.id


def test_a_waiting_job_is_paused_at_once_and_not_taken(sessions):
    job = submit(sessions)
    assert call(sessions, repository.request_pause, job.id).status is Status.PAUSED
    assert read(sessions, job).paused_at
    assert next_of(sessions) is None
    assert call(sessions, repository.resume, job.id).status is Status.QUEUED
    assert next_of(sessions) == job.id


def test_a_running_job_is_paused_by_its_worker_and_goes_on_uncharged(sessions):
    job = submit(sessions)
    claim(sessions, job)
    assert call(sessions, repository.request_pause, job.id).status is Status.PAUSING
    assert call(sessions, repository.renew, job.id, 1, 60) is Status.PAUSING
    assert call(sessions, repository.requeue, job.id, 1, ErrorClass.HOST_SHUTDOWN) is Status.PAUSED
    assert call(sessions, repository.resume, job.id).status is Status.QUEUED
    again = claim(sessions, job)
    assert (again.attempt, again.losses, again.retries_left) == (2, 0, 2)
    told = [(data["from"], data["to"]) for _, kind, data in events_of(sessions, job) if kind == "state"]
    assert told[2:] == [("running", "pausing"), ("pausing", "paused"), ("paused", "queued"), ("queued", "running")]


def test_pausing_and_resuming_twice_is_harmless(sessions):
    job = submit(sessions)
    for command, status in [(repository.request_pause, Status.PAUSED), (repository.resume, Status.QUEUED)]:
        call(sessions, command, job.id)
        version = read(sessions, job).version
        assert call(sessions, command, job.id).status is status
        assert read(sessions, job).version == version


def test_a_job_that_finishes_before_it_pauses_has_succeeded(sessions):
    job = submit(sessions)
    claim(sessions, job)
    call(sessions, repository.request_pause, job.id)
    assert call(sessions, repository.settle, job.id, 1, Status.SUCCEEDED) is Status.SUCCEEDED


def test_a_job_that_is_pausing_cannot_be_resumed_but_cancelled(sessions):
    job = submit(sessions)
    claim(sessions, job)
    call(sessions, repository.request_pause, job.id)
    with pytest.raises(IllegalTransition):
        call(sessions, repository.resume, job.id)
    assert call(sessions, repository.request_cancel, job.id).status is Status.CANCELLING


def test_cancelling_now_waits_for_nobody_and_fences_the_worker_out(sessions):
    job = submit(sessions)
    claim(sessions, job)
    assert call(sessions, repository.request_cancel, job.id, now=True).status is Status.CANCELLED
    assert call(sessions, repository.renew, job.id, 1, 60) is None
    assert call(sessions, repository.settle, job.id, 1, Status.SUCCEEDED) is None


def test_cancelling_now_after_asking_kindly(sessions):
    job = submit(sessions)
    claim(sessions, job)
    call(sessions, repository.request_cancel, job.id)
    assert call(sessions, repository.request_cancel, job.id, now=True).status is Status.CANCELLED


def test_a_partial_result_of_a_cancelled_job_is_kept_and_expires(sessions):
    job = submit(sessions)
    claim(sessions, job)
    call(sessions, repository.request_cancel, job.id)
    summary = {"partial": True, "step": 3, "steps": 9}
    settled = call(
        sessions, repository.settle, job.id, 1, Status.SUCCEEDED, result_summary=summary, partial=True, retention_days=2
    )
    assert settled is Status.CANCELLED
    job = read(sessions, job)
    assert (job.partial, job.result_summary, job.accuracy) == (True, summary, None)
    assert 1.9 < (job.expires_at - job.finished_at).total_seconds() / 86400 < 2.1


def test_an_owners_own_retention_counts(sessions):
    with sessions.begin() as session:
        session.add(Owner(name="local", retention_days=1, created_at=utcnow()))
    job = submit(sessions)
    claim(sessions, job)
    summary = {"accuracy": {"mean": 61.5}, "protocol_hash": "ab"}
    call(sessions, repository.settle, job.id, 1, Status.SUCCEEDED, result_summary=summary, retention_days=30)
    job = read(sessions, job)
    assert (job.expires_at - job.finished_at).days <= 1
    assert (job.accuracy, job.protocol_hash) == (61.5, "ab")


def test_the_time_of_all_attempts_is_counted(sessions):
    job = submit(sessions)
    for _ in range(2):
        claim(sessions, job)
        call(sessions, repository.requeue, job.id, read(sessions, job).attempt, ErrorClass.HOST_SHUTDOWN)
    assert 0 < read(sessions, job).run_seconds < 60


def test_amending_needs_the_version_that_was_seen(sessions):
    job = submit(sessions)
    changed = call(sessions, repository.amend, job.id, {"name": "new", "labels": {"a": "b"}}, version=job.version)
    assert (changed.name, changed.labels, changed.version) == ("new", {"a": "b"}, job.version + 1)
    with pytest.raises(repository.StaleVersion, match="by now"):
        call(sessions, repository.amend, job.id, {"name": "newer"}, version=job.version)


def test_a_running_job_has_no_priority_to_change(sessions):
    job = submit(sessions)
    claim(sessions, job)
    call(sessions, repository.amend, job.id, {"priority": 0, "name": "unchanged priorities are fine"})
    with pytest.raises(repository.NotQueued):
        urgent(sessions, job, "high")


def test_deleted_jobs_are_listed_no_more(sessions):
    job, other = submit(sessions), submit(sessions)
    with pytest.raises(repository.NotOver):
        call(sessions, repository.delete, job.id)
    call(sessions, repository.request_cancel, job.id)
    assert call(sessions, repository.delete, job.id).deleted_at
    assert call(sessions, repository.delete, job.id) is None
    assert [found.id for found in call(sessions, repository.list_jobs, 9)[0]] == [other.id]


def test_owners_see_and_steer_their_own_jobs_alone(sessions):
    job = submit(sessions)
    assert call(sessions, repository.get_job, job.id, "someone else") is None
    assert call(sessions, repository.list_jobs, 9, owner="someone else") == ([], False)
    for command in (repository.request_cancel, repository.request_pause, repository.resume, repository.delete):
        assert call(sessions, command, job.id, "someone else") is None
    assert call(sessions, repository.amend, job.id, {"name": "mine"}, "someone else") is None
    assert read(sessions, job).version == job.version


def test_the_most_urgent_job_comes_first_then_the_oldest(sessions):
    low, first, second, high = (submit(sessions) for _ in range(4))
    urgent(sessions, low, "low")
    urgent(sessions, high, "high")
    assert [next_of(sessions) for _ in range(5)] == [high.id, first.id, second.id, low.id, None]


def test_position_in_the_queue(sessions):
    first, second = submit(sessions), submit(sessions)
    assert call(sessions, repository.ahead_of, 0, first.queued_at) == 0
    assert call(sessions, repository.ahead_of, 0, second.queued_at) == 1
    urgent(sessions, second, "high")
    assert call(sessions, repository.ahead_of, 0, first.queued_at) == 1


def test_an_owner_with_enough_running_jobs_waits_while_others_go_on(sessions):
    mine = [submit(sessions) for _ in range(2)]
    with sessions.begin() as session:
        other = repository.create_job(session, _spec(), _spec().resolve(), owner="other")
    assert next_of(sessions, max_running=1) == mine[0].id
    assert next_of(sessions, max_running=1) == other.id
    assert next_of(sessions, max_running=1) is None
    with sessions.begin() as session:
        session.add(Owner(name="local", max_running=2, created_at=utcnow()))
    assert next_of(sessions, max_running=1) == mine[1].id


def test_nothing_is_taken_from_a_paused_queue(sessions):
    job = submit(sessions)
    call(sessions, pause_queue, QUEUE)
    assert next_of(sessions) is None
    call(sessions, repository.nothing_rung)
    assert call(sessions, repository.due_for_ringing, 0) == []
    call(sessions, resume_queue, QUEUE)
    assert call(sessions, repository.due_for_ringing, 0) == [job.id]
    assert next_of(sessions) == job.id


def test_a_drained_worker_takes_no_more(sessions):
    job = submit(sessions)
    call(sessions, report_worker, "worker-1", QUEUE, {}, None)
    call(sessions, drain, "worker-1", draining=True)
    assert next_of(sessions, "worker-1") is None
    assert next_of(sessions, "worker-2") == job.id


def test_a_job_that_goes_on_from_another_knows_it(sessions):
    parent = submit(sessions)
    with sessions.begin() as session:
        job = repository.create_job(session, _spec(), _spec().resolve(), parent=parent, parent_step=7)
    assert (read(sessions, job).parent_job_id, job.parent_step) == (parent.id, 7)


def _spec():
    from jobs.spec import JobSpec

    return JobSpec(dataset="digits", method="dream", ipc=1)
