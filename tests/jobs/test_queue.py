import signal
import time

import pytest
import redis

from jobs.queue import QUEUE, Bell, make_worker_app
from tests.fixtures.broker import free_port, start_redis


def test_ringing_leaves_a_message(redis_url):
    bell = Bell(redis_url)
    assert bell.waiting() == 0
    assert bell.ring("job_1")
    assert bell.ring("job_2")
    assert bell.waiting() == 2
    with redis.Redis.from_url(redis_url) as client:
        assert b"dream.run_job" in client.lindex(QUEUE, 0)


def test_a_broker_that_is_away_is_an_answer(dead_redis_url):
    bell = Bell(dead_redis_url)
    started = time.monotonic()
    assert bell.ring("job_1") is False
    assert bell.waiting() is None
    assert time.monotonic() - started < 1.5


def test_a_broker_that_does_not_answer_is_not_waited_for(tmp_path):
    port = free_port()
    process = start_redis(port, tmp_path)
    bell = Bell(f"redis://127.0.0.1:{port}/0")
    assert bell.ring("job_1")
    process.send_signal(signal.SIGSTOP)
    started = time.monotonic()
    assert bell.ring("job_2") is False
    assert time.monotonic() - started < 2
    process.send_signal(signal.SIGCONT)
    assert bell.ring("job_3")
    process.kill()
    process.wait()


def test_a_broker_that_refuses_is_an_answer(redis_url):
    fresh = redis_url.replace("/0", "/7")  # to which no connection is kept
    with redis.Redis.from_url(redis_url) as client:
        client.config_set("requirepass", "secret")
        try:
            assert Bell(fresh).ring("job_1") is False
            assert Bell(fresh).waiting() is None
            assert Bell(fresh.replace("redis://", "redis://:secret@")).ring("job_1")
        finally:
            client.config_set("requirepass", "")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("task_acks_late", False),
        ("worker_disable_prefetch", True),
        ("task_ignore_result", True),
        ("accept_content", ["json"]),
    ],
)
def test_workers_take_one_message_and_forget_it(redis_url, name, value):
    app = make_worker_app(redis_url)
    assert app.conf[name] == value
    assert app.conf.broker_transport_options["visibility_timeout"] == 86_400


def test_without_a_broker_nobody_has_to_be_told_and_celery_says_what_to_start():
    assert Bell("none").ring("job_1") is True
    assert Bell("none").waiting() == 0
    with pytest.raises(ValueError, match="python -m worker"):
        make_worker_app("none")
