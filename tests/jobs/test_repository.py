"""Every statement, on SQLite and on PostgreSQL."""

import math

import pytest
from sqlalchemy.orm import Session, sessionmaker

from jobs import repository
from jobs.database import make_engine, make_sessions
from jobs.lifecycle import ErrorClass, IllegalTransition, Status
from jobs.repository import Filters
from jobs.spec import JobSpec
from jobs.tables import Job

Sessions = sessionmaker[Session]
NOW = "2026-01-02T03:04:05.678Z"


def submit(sessions: Sessions, **spec) -> Job:
    wanted = JobSpec(**({"dataset": "digits", "method": "dream", "ipc": 1} | spec))
    with sessions.begin() as session:
        return repository.create_job(session, wanted, wanted.resolve(), "a name", {"team": "vision"})


def claim(sessions: Sessions, job: Job, lease_s: float = 60) -> Job:
    with sessions.begin() as session:
        claimed = repository.claim(session, job.id, "worker-1", lease_s)
    assert claimed is not None
    return claimed


def read(sessions: Sessions, job: Job) -> Job:
    with sessions.begin() as session:
        found = repository.get_job(session, job.id)
    assert found is not None
    return found


def call(sessions: Sessions, function, *args, **kwargs):
    with sessions.begin() as session:
        return function(session, *args, **kwargs)


def events_of(sessions: Sessions, job: Job) -> list[tuple[int, str, dict]]:
    with sessions.begin() as session:
        events, _ = repository.list_events(session, job.id, 0, 1000)
    return [(event.seq, event.type, event.data) for event in events]


def report(kind: str, **data) -> dict:
    return {"type": kind, "created_at": NOW, "data": data}


def test_created_job_is_queued_with_an_event(sessions):
    job = read(sessions, submit(sessions))
    assert job.status is Status.QUEUED
    assert (job.attempt, job.version, job.retries_left) == (0, 1, 2)
    assert job.spec["dataset"] == "digits"
    assert job.resolved_spec["evaluation"]["epochs"] == 1000
    assert job.labels == {"team": "vision"}
    assert job.created_at.tzinfo is not None
    assert events_of(sessions, job) == [(1, "state", {"from": None, "to": "queued", "reason": None})]


def test_claim_takes_a_queued_job_once(sessions):
    job = submit(sessions)
    claimed = claim(sessions, job)
    assert (claimed.status, claimed.attempt, claimed.worker, claimed.version) == (Status.RUNNING, 1, "worker-1", 2)
    assert claimed.started_at is not None
    assert call(sessions, repository.claim, job.id, "worker-2", 60) is None
    assert call(sessions, repository.claim, "job_" + "0" * 32, "worker-2", 60) is None


def test_renew_tells_what_is_wanted_and_fences(sessions):
    job = claim(sessions, submit(sessions))
    assert call(sessions, repository.renew, job.id, 1, 60) is Status.RUNNING
    assert call(sessions, repository.renew, job.id, 2, 60) is None
    call(sessions, repository.request_cancel, job.id)
    assert call(sessions, repository.renew, job.id, 1, 60) is Status.CANCELLING
    assert call(sessions, repository.held_status, job.id, 1) is Status.CANCELLING
    assert call(sessions, repository.held_status, job.id, 0) is None


def test_events_are_numbered_and_move_the_job_along(sessions):
    job = claim(sessions, submit(sessions))
    reports = [
        report("phase", phase="distilling"),
        report("metric", step=1, total=4, loss=math.nan, eta_s=9.5),
        report("metric", step=2, total=4, loss=0.5, eta_s=6.0),
        report("checkpoint", step=2, bytes=10, seconds=0.1),
    ]
    assert call(sessions, repository.append_events, job.id, 1, reports)
    after = read(sessions, job)
    assert after.phase == "distilling"
    assert after.progress == {"step": 2, "total": 4, "ratio": 0.5, "eta_s": 6.0}
    assert (after.checkpoint_step, after.version) == (2, 3)
    events = events_of(sessions, job)
    assert [seq for seq, _, _ in events] == [1, 2, 3, 4, 5, 6]
    assert events[3][2]["loss"] is None  # not a number: JSON has no word for it


def test_events_that_change_nothing_visible_keep_the_version(sessions):
    job = claim(sessions, submit(sessions))
    call(sessions, repository.append_events, job.id, 1, [report("log", message="hello \x00 there")])
    assert read(sessions, job).version == job.version


def test_events_of_another_kind_or_shape_are_kept_as_they_are(sessions):
    job = claim(sessions, submit(sessions))
    reports = [report("phase"), report("metric", loss=1.0), report("checkpoint", bytes=1), report("future", x=1)]
    assert call(sessions, repository.append_events, job.id, 1, reports)
    after = read(sessions, job)
    assert (after.phase, after.progress, after.checkpoint_step, after.event_seq) == ("loading", None, None, 6)


def test_a_fenced_out_attempt_writes_nothing(sessions):
    job = claim(sessions, submit(sessions), lease_s=-1)
    assert call(sessions, repository.expire_leases) == {job.id: Status.QUEUED}
    second = claim(sessions, job)
    before = read(sessions, job).version
    assert call(sessions, repository.append_events, job.id, 1, [report("phase", phase="evaluating")]) is False
    assert call(sessions, repository.settle, job.id, 1, Status.SUCCEEDED, result_summary={"a": 1}) is None
    assert call(sessions, repository.requeue, job.id, 1, ErrorClass.WORKER_LOST) is None
    after = read(sessions, job)
    assert (after.attempt, after.status, after.version) == (second.attempt, Status.RUNNING, before)


def test_success(sessions):
    job = claim(sessions, submit(sessions))
    summary = {"accuracy": {"mean": 61.0}}
    assert call(sessions, repository.settle, job.id, 1, Status.SUCCEEDED, result_summary=summary) is Status.SUCCEEDED
    after = read(sessions, job)
    assert (after.status, after.result_summary, after.lease_until) == (Status.SUCCEEDED, summary, None)
    assert after.finished_at is not None
    assert call(sessions, repository.settle, job.id, 1, Status.FAILED) is None
    with pytest.raises(IllegalTransition, match="succeeded cannot become cancelled"):
        call(sessions, repository.request_cancel, job.id)


def test_failure_keeps_its_error(sessions):
    job = claim(sessions, submit(sessions))
    error = {"class": "user_error", "code": "DATASET_INVALID", "message": "no images"}
    assert call(sessions, repository.settle, job.id, 1, Status.FAILED, error=error) is Status.FAILED
    after = read(sessions, job)
    assert (after.error, after.status_reason) == (error, "user_error")


def test_cancel_a_queued_job_at_once(sessions):
    job = submit(sessions)
    cancelled = call(sessions, repository.request_cancel, job.id)
    assert (cancelled.status, cancelled.status_reason) == (Status.CANCELLED, "user")
    assert cancelled.finished_at is not None
    assert call(sessions, repository.request_cancel, job.id).status is Status.CANCELLED
    assert call(sessions, repository.claim, job.id, "worker-1", 60) is None
    assert call(sessions, repository.request_cancel, "job_nowhere") is None


def test_success_after_cancel_was_asked_for_is_a_cancel(sessions):
    job = claim(sessions, submit(sessions))
    assert call(sessions, repository.request_cancel, job.id).status is Status.CANCELLING
    assert call(sessions, repository.append_events, job.id, 1, [report("log", message="checkpoint written")])
    settled = call(sessions, repository.settle, job.id, 1, Status.SUCCEEDED, result_summary={"a": 1})
    assert settled is Status.CANCELLED
    assert read(sessions, job).result_summary is None


def test_three_losses_without_progress_are_poison(sessions):
    job = submit(sessions)
    outcomes = []
    for attempt in (1, 2, 3):
        claim(sessions, job, lease_s=-1)
        outcomes.append(call(sessions, repository.expire_leases)[job.id])
        assert read(sessions, job).attempt == attempt
    assert outcomes == [Status.QUEUED, Status.QUEUED, Status.FAILED]
    after = read(sessions, job)
    assert after.error["class"] == "poison"
    assert "worker-1" in after.error["message"]
    assert after.retries_left == 0


def test_a_newer_checkpoint_forgives_losses(sessions):
    job = submit(sessions)
    for attempt, step in enumerate([None, None, 5, 5, 5], start=1):
        claim(sessions, job)
        if step:
            call(sessions, repository.append_events, job.id, attempt, [report("checkpoint", step=step)])
        call(sessions, repository.requeue, job.id, attempt, ErrorClass.WORKER_LOST)
        expected = [1, 2, 0, 1, 2][attempt - 1]
        assert (read(sessions, job).status, read(sessions, job).losses) == (Status.QUEUED, expected)


def test_host_shutdown_is_not_charged(sessions):
    job = submit(sessions)
    for attempt in range(1, 6):
        claim(sessions, job)
        assert call(sessions, repository.requeue, job.id, attempt, ErrorClass.HOST_SHUTDOWN) is Status.QUEUED
    after = read(sessions, job)
    assert (after.retries_left, after.status_reason, after.worker) == (2, "host_shutdown", None)


def test_lost_worker_of_a_cancelling_job_cancels_it(sessions):
    job = claim(sessions, submit(sessions), lease_s=-1)
    call(sessions, repository.request_cancel, job.id)
    assert call(sessions, repository.expire_leases) == {job.id: Status.CANCELLED}


def test_live_leases_are_left_alone(sessions):
    claim(sessions, submit(sessions))
    assert call(sessions, repository.expire_leases) == {}


def test_ringing(sessions):
    first, second = submit(sessions), submit(sessions)
    assert call(sessions, repository.due_for_ringing, 60) == []  # rung for when submitted
    call(sessions, repository.not_rung, [first.id])
    assert call(sessions, repository.due_for_ringing, 60) == [first.id]
    assert call(sessions, repository.due_for_ringing, 60) == []
    assert call(sessions, repository.due_for_ringing, -1) == [second.id, first.id]  # the one rung for longest ago
    call(sessions, repository.nothing_rung)
    assert call(sessions, repository.due_for_ringing, 60) == [first.id, second.id]
    claim(sessions, first)
    assert call(sessions, repository.due_for_ringing, -1) == [second.id]


def test_list_is_complete_in_order_and_filtered(sessions):
    submitted = [submit(sessions, method=method) for method in ("dream", "idc", "dream", "idc", "dream")]
    seen, after, more = [], None, True
    while more:
        page, more = call(sessions, repository.list_jobs, 2, after=after)
        seen += page
        after = (page[-1].created_at, page[-1].id)
        submitted.append(submit(sessions))  # what comes in meanwhile moves nothing
    assert [job.id for job in seen] == [job.id for job in reversed(submitted[:5])]
    assert len(call(sessions, repository.list_jobs, 9, Filters(method="idc"))[0]) == 2
    assert call(sessions, repository.list_jobs, 9, Filters(dataset="mnist")) == ([], False)
    call(sessions, repository.request_cancel, submitted[0].id)
    cancelled, _ = call(sessions, repository.list_jobs, 9, Filters([Status.CANCELLED, Status.FAILED]))
    assert [job.id for job in cancelled] == [submitted[0].id]


def _claim_all(database_url: str, job_ids: list[str], worker: str) -> list[str]:
    engine = make_engine(database_url)
    sessions = make_sessions(engine)
    won = [job_id for job_id in job_ids if call(sessions, repository.claim, job_id, worker, 60)]
    engine.dispose()
    return won


def test_racing_workers_claim_every_job_once(racers, database_url, sessions):
    job_ids = [submit(sessions).id for _ in range(40)]
    racing = [racers.submit(_claim_all, database_url, job_ids, f"worker-{n}") for n in range(3)]
    won = [job_id for future in racing for job_id in future.result()]
    assert sorted(won) == sorted(job_ids)
    with sessions.begin() as session:
        assert {job.attempt for job in repository.list_jobs(session, 100)[0]} == {1}
