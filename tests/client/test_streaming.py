import threading
import time
from datetime import datetime

import pytest

from client import Client, NotFound, WaitTimeout


def work(service, job_id, steps=5, pause=0.0):
    """What a worker does: claims the job, measures, and finishes it."""
    attempt = service.claim(job_id)
    for step in range(steps):
        time.sleep(pause)
        service.report(job_id, attempt, "metric", step=step, total=steps, loss=0.5)
    service.finish(job_id, attempt)


def in_the_background(*arguments, **keywords):
    thread = threading.Thread(target=work, args=arguments, kwargs=keywords, daemon=True)
    thread.start()
    return thread


def test_a_stream_has_what_was_and_what_comes_and_ends_with_the_job(client, service, job):
    attempt = service.claim(job.id)
    service.report(job.id, attempt, "phase", phase="distilling")
    arrived = []

    for event in client.jobs.stream(job.id):
        arrived.append(event)
        if event.type == "phase":
            service.report(job.id, attempt, "log", message="two\u2028lines")
            service.finish(job.id, attempt)

    assert [event.seq for event in arrived] == [1, 2, 3, 4, 5]
    assert [event.type for event in arrived] == ["state", "state", "phase", "log", "state"]
    assert arrived[3].data["message"] == "two\u2028lines"


def test_a_stream_begins_where_one_wants_and_has_the_types_that_one_wants(client, service, job):
    work(service, job.id)

    assert [event.seq for event in client.jobs.stream(job.id, after=6)] == [7, 8]
    assert {event.type for event in client.jobs.stream(job.id, types=["state"])} == {"state"}


def test_a_stream_that_breaks_goes_on_behind_the_last_event(service, cutting_proxy, job):
    in_the_background(service, job.id, steps=6, pause=0.1)

    with Client(cutting_proxy(900, 3)) as client:
        arrived = [event.seq for event in client.jobs.stream(job.id)]

    assert arrived == list(range(1, 10))


def test_a_stream_outlasts_a_restart_of_the_service(client, service, job):
    arrived = []

    def read():
        arrived.extend(event.seq for event in client.jobs.stream(job.id))

    reading = threading.Thread(target=read)
    reading.start()
    time.sleep(0.5)
    service.kill()
    service.start()
    work(service, job.id)
    reading.join(30)

    assert arrived == list(range(1, 9))


def test_a_stream_of_no_job_is_not_found(client):
    with pytest.raises(NotFound):
        list(client.jobs.stream("job_" + "0" * 32))


def test_waiting_hears_of_the_end_at_once(client, service, job):
    heard = []
    in_the_background(service, job.id, steps=3, pause=0.5)

    client.jobs.wait(job.id, on_event=lambda event: heard.append((event, time.time())))

    assert [event.seq for event, _ in heard] == list(range(1, len(heard) + 1))
    late = [at - datetime.fromisoformat(event.created_at).timestamp() for event, at in heard[1:]]
    assert max(late) < 2


def test_waiting_without_streams_polls(someone, guarded):
    """Its only stream is taken: what it may not follow, it asks for."""
    job = someone.jobs.create("digits", "dream", 1)
    other = someone.jobs.create("digits", "dream", 1)
    taken = someone.jobs.stream(other.id)
    assert next(taken).type == "state"
    seen = []
    in_the_background(guarded, job.id, steps=2, pause=0.3)

    done = someone.jobs.wait(job.id, on_event=seen.append)

    assert done.status == "succeeded"
    assert [event.seq for event in seen] == [1, 2, 3, 4, 5]
    taken.close()
    someone.jobs.cancel(other.id)


def test_waiting_ends_on_time_though_a_stream_is_open(client, service, job, monkeypatch):
    monkeypatch.setattr("client.waiting.PING_S", 1.0)  # so that it streams until a second before the end
    working = in_the_background(service, job.id, steps=12, pause=0.3)
    started = time.monotonic()

    with pytest.raises(WaitTimeout):
        client.jobs.wait(job.id, timeout=2, on_event=lambda _: None)

    assert 2 <= time.monotonic() - started < 3
    working.join()
