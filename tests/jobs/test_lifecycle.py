"""The table of transitions, and random histories of a job held against it."""

from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs import repository
from jobs.lifecycle import HELD, TERMINAL, TRANSITIONS, ErrorClass, IllegalTransition, Status, check
from jobs.spec import JobSpec

SPEC = JobSpec(dataset="digits", method="dream", ipc=1)
RECIPE = SPEC.resolve()


def test_every_state_is_in_the_table_and_can_be_reached():
    assert TRANSITIONS.keys() == set(Status)
    assert set().union(*TRANSITIONS.values()) == set(Status)
    assert {Status.SUCCEEDED, Status.FAILED, Status.CANCELLED} == TERMINAL
    assert not TERMINAL & HELD


def test_every_state_leads_to_an_end():
    ending = set(TERMINAL)
    for _ in Status:
        ending |= {status for status, following in TRANSITIONS.items() if following & ending}
    assert ending == set(Status)


def test_check():
    check(Status.RUNNING, Status.QUEUED)
    with pytest.raises(IllegalTransition) as refusal:
        check(Status.CANCELLED, Status.RUNNING)
    assert refusal.value.allowed == []


CHECKPOINT = {"type": "checkpoint", "created_at": "2026-01-01T00:00:00Z"}
COMMANDS = {
    "claim": lambda session, job, attempt: repository.claim(session, job, "worker", 60),
    "expire": lambda session, job, attempt: repository.requeue(session, job, attempt, ErrorClass.WORKER_LOST),
    "shutdown": lambda session, job, attempt: repository.requeue(session, job, attempt, ErrorClass.HOST_SHUTDOWN),
    "cancel": lambda session, job, attempt: repository.request_cancel(session, job),
    "cancel now": lambda session, job, attempt: repository.request_cancel(session, job, now=True),
    "pause": lambda session, job, attempt: repository.request_pause(session, job),
    "resume": lambda session, job, attempt: repository.resume(session, job),
    "give up": lambda session, job, attempt: repository.settle(session, job, attempt, Status.PAUSED),
    "keep a part": lambda session, job, attempt: repository.settle(
        session, job, attempt, Status.FAILED, result_summary={"partial": True}, partial=True
    ),
    "succeed": lambda session, job, attempt: repository.settle(session, job, attempt, Status.SUCCEEDED),
    "fail": lambda session, job, attempt: repository.settle(session, job, attempt, Status.FAILED),
    "renew": lambda session, job, attempt: repository.renew(session, job, attempt, 60),
    "checkpoint": lambda session, job, attempt: repository.append_events(
        session, job, attempt, [CHECKPOINT | {"data": {"step": attempt}}]
    ),
}


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(commands=st.lists(st.tuples(st.sampled_from(sorted(COMMANDS)), st.integers(0, 2)), max_size=25))
def test_no_history_leaves_the_table(sessions, commands):
    """Each command comes from the present attempt, or from one up to two attempts old."""
    with sessions.begin() as session:
        job_id = repository.create_job(session, SPEC, RECIPE).id
    previous = None
    for name, age in commands:
        with sessions.begin() as session, suppress(IllegalTransition):
            COMMANDS[name](session, job_id, max(0, previous.attempt - age) if previous else 0)
        with sessions.begin() as session:
            job = repository.get_job(session, job_id)
            events, _ = repository.list_events(session, job_id, 0, 1000)
        if previous:
            assert job.attempt == previous.attempt + (job.status is Status.RUNNING and previous.status is Status.QUEUED)
            assert job.version >= previous.version
            assert previous.status not in TERMINAL or job.version == previous.version
        assert (job.status in HELD) == (job.lease_until is not None)
        assert (job.status in TERMINAL) == (job.finished_at is not None)
        assert job.status is not Status.PAUSED or job.paused_at
        previous = job
        assert [event.seq for event in events] == list(range(1, job.event_seq + 1))
        states = [event.data for event in events if event.type == "state"]
        assert states[-1]["to"] == job.status
        for before, after in pairwise(states):
            assert after["from"] == before["to"]
            assert Status(after["to"]) in TRANSITIONS[Status(after["from"])]
