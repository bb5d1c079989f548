import pytest

from jobs import repository
from worker.relay import Relay

EVENT = b'{"type": "log", "created_at": "2026-11-22T12:00:00+00:00", "data": {"message": "%d"}}\n'


@pytest.fixture
def relay(sessions, submit, settings, tmp_path):
    job_id = submit()
    with sessions.begin() as session:
        attempt = repository.claim(session, job_id, "a worker", 60).attempt
    relay = Relay(tmp_path / "events.jsonl", sessions, job_id, attempt, settings)
    relay.job_id = job_id
    return relay


def messages(events, job_id):
    return [data["message"] for kind, data in events(job_id) if kind == "log"]


def test_without_a_file_there_is_nothing_to_tell(relay, events):
    assert relay.pump()
    assert messages(events, relay.job_id) == []


def test_a_line_that_is_still_being_written_waits(relay, events, tmp_path):
    with (tmp_path / "events.jsonl").open("ab", buffering=0) as file:
        file.write(EVENT % 1 + (EVENT % 2)[:30])
        assert relay.pump()
        assert messages(events, relay.job_id) == ["1"]

        file.write((EVENT % 2)[30:])
        assert relay.pump()
        assert relay.pump()

    assert messages(events, relay.job_id) == ["1", "2"]


@pytest.mark.parametrize(
    "line",
    [b"{", b"[]", b"7", b"{}", b'{"type": "log"}', b'{"type": "log", "created_at": "today", "data": {}}', b"\xff"],
)
def test_a_line_that_is_no_event_is_passed_over(relay, events, tmp_path, line):
    (tmp_path / "events.jsonl").write_bytes(EVENT % 1 + line + b"\n" + EVENT % 2)

    assert relay.pump()

    assert messages(events, relay.job_id) == ["1", "2"]


def test_an_attempt_that_no_longer_has_the_job_is_told_so(relay, sessions, tmp_path):
    with sessions.begin() as session:
        repository.requeue(session, relay.job_id, 1, "host_shutdown")
    (tmp_path / "events.jsonl").write_bytes(EVENT % 1)

    assert not relay.pump()
