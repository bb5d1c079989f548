"""Brokers as they are met outside of a laptop: TLS, users of few rights, sentinels; and those that are refused."""

import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import ANY

import pytest
import redis
import trustme

from jobs.broker import parse_broker
from jobs.queue import Bell
from jobs.settings import Settings, complaint
from tests.fixtures.broker import RIGHTS, encrypted_redis, free_port, watched_redis
from tests.fixtures.serving import environment

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("redis://broker:6379/1", ("redis://broker:6379/1", {})),
        ("redis+socket:///run/x.sock?virtual_host=0", ("redis+socket:///run/x.sock?virtual_host=0", {})),
        ("rediss://broker/0", ("rediss://broker/0?ssl_cert_reqs=required", {})),
        ("rediss://broker/0?ssl_cert_reqs=none", ("rediss://broker/0?ssl_cert_reqs=none", {})),
        (
            "sentinel://:pw@a:26379/0;sentinel://b:26379?master_name=dream",
            ("sentinel://:pw@a:26379/0;sentinel://b:26379", {"master_name": "dream", "sentinel_kwargs": ANY}),
        ),
    ],
)
def test_celery_is_told(url, told):
    broker = parse_broker(url)
    assert (broker.url, broker.options) == told
    assert "pw" not in repr(broker)


REFUSED = [
    ("amqp://me:hidden@rabbit//", "cannot turn off prefetching"),
    ("pyamqp://me:hidden@rabbit//", "cannot turn off prefetching"),
    ("memory://", "workers would never hear of a job"),
    ("filesystem:///hidden", "workers would never hear of a job"),
    ("sqla+postgresql://me:hidden@db/x", "the database is the queue of record already"),
    ("kafka://hidden", "not tested"),
    ("hidden", "it is no URL"),
    ("redis://:hidden@a;redis://b", "through their sentinels"),
    ("sentinel://:hidden@a", "add ?master_name=NAME"),
    ("rediss://:hidden@a?ssl_ca_certs=/none", "ssl_ca_certs names no file: /none"),
    ("rediss://:hidden@a?ssl_cert_reqs=maybe", "ssl_cert_reqs is one of required, optional, none"),
]


@pytest.mark.parametrize(("url", "why"), REFUSED)
def test_what_cannot_be_the_broker_is_refused_with_the_reason_and_no_secret(monkeypatch, url, why):
    monkeypatch.setenv("REDIS_URL", url)
    with pytest.raises(ValueError, match="REDIS_URL") as refused:
        Settings()
    said = complaint(refused.value)
    assert said.startswith("REDIS_URL: ")
    assert why in said
    assert "hidden" not in said + str(refused.value)


@pytest.mark.parametrize("command", ["api", "celery -A worker.app worker"])
def test_no_process_starts_with_a_broker_that_cannot_be_used(command, tmp_path):
    env = environment({"REDIS_URL": "amqp://me:hidden@rabbit//", "DREAM_HOME": str(tmp_path)})
    process = [sys.executable, "-m", *command.split()]
    ended = subprocess.run(process, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode in (1, 2)
    assert "error: REDIS_URL: amqp:// cannot be the broker" in ended.stderr
    assert "hidden" not in ended.stderr + ended.stdout
    assert "Traceback" not in ended.stderr


def test_tls_is_verified_by_the_authority_that_the_url_names(tmp_path):
    trustme.CA().cert_pem.write_to_path(tmp_path / "theirs")
    port = free_port()
    url = f"rediss://127.0.0.1:{port}/"
    with encrypted_redis(port, trustme.CA(), tmp_path):
        assert Bell(f"{url}?ssl_ca_certs={tmp_path}/ours").ring("job_1")
        assert Bell(f"{url}?ssl_ca_certs={tmp_path}/ours").waiting() == 1
        # other databases each: within a process Celery shares what is open to one
        assert Bell(f"{url}1?ssl_ca_certs={tmp_path}/theirs").ring("job_2") is False
        assert Bell(f"{url}2").ring("job_2") is False  # by those that the machine trusts
        assert Bell(f"redis://127.0.0.1:{port}/3").ring("job_2") is False
        assert Bell(f"{url}4?ssl_cert_reqs=none").ring("job_2")


def test_a_user_needs_few_rights(redis_url):
    assert f"ACL SETUSER dream on >PASSWORD {' '.join(RIGHTS)}\n" in OPERATIONS.read_text(encoding="utf-8")
    with redis.Redis.from_url(redis_url) as server:
        server.execute_command("ACL", "SETUSER", "dream", "reset", "on", ">first", *RIGHTS)
        server.execute_command("ACL", "LOG", "RESET")
        try:
            url = redis_url.replace("redis://", "redis://dream:first@")
            bell = Bell(url)
            assert bell.ring("job_1")
            assert bell.waiting() == 1
            assert server.execute_command("ACL", "LOG") == []
            with redis.Redis.from_url(url) as client:
                for forbidden in (client.flushall, client.config_get, lambda: client.set("other", 1), client.keys):
                    with pytest.raises(redis.exceptions.NoPermissionError):
                        forbidden()
            server.execute_command("ACL", "SETUSER", "dream", ">second")  # while one is exchanged for the other
            assert Bell(url.replace("first", "second")).ring("job_2")
            server.execute_command("ACL", "SETUSER", "dream", "<first")
            assert bell.ring("job_3")  # whoever is in stays in
            with redis.Redis.from_url(url) as client, pytest.raises(redis.AuthenticationError):
                client.ping()
        finally:
            server.execute_command("ACL", "DELUSER", "dream")


def test_sentinels_lead_to_the_server_that_took_over(tmp_path):
    with watched_redis(tmp_path) as (url, servers):
        bell = Bell(url)
        assert bell.ring("job_1")
        servers.pop().kill()
        end = time.monotonic() + 30
        while not bell.ring("job_2"):
            assert time.monotonic() < end, "nobody took over"
            time.sleep(0.2)
        assert bell.waiting()


def test_sentinels_that_are_away_are_an_answer():
    bell = Bell(f"sentinel://127.0.0.1:{free_port()}/0?master_name=dream")
    started = time.monotonic()
    assert bell.ring("job_1") is False
    assert bell.waiting() is None
    assert time.monotonic() - started < 3
