"""Events as they happen."""

import asyncio
import itertools
import json
import os
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

import httpx2
import pytest
from sqlalchemy import text

from api.app import create_app
from api.streams import Streams
from jobs import keys, repository
from jobs.lifecycle import Status
from tests.api.conftest import Service, problem, serving
from tests.api.test_app import wait_until_ready
from tests.api.test_jobs import GOOD, report
from tests.fixtures.broker import free_port

SSE = {"Accept": "text/event-stream"}


@contextmanager
def streaming(service: Service, **options) -> Iterator[tuple[Service, Streams]]:
    """Another process's worth of API on the same jobs, with streams of other habits."""
    app = create_app(service.settings)
    app.state.streams = Streams(app.state.readings, service.settings.max_streams, **options)
    with serving(service.settings, app) as running:
        yield running, app.state.streams


@contextmanager
def stream(url: str, headers: Mapping[str, str] = SSE, **params) -> Iterator[Iterator[dict]]:
    """The blocks of a stream: what fields each has, `comment` among them."""
    with (
        httpx2.Client(timeout=20) as http,
        http.stream("GET", url, headers={**SSE, **headers}, params=params) as response,
    ):
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        yield blocks(response.iter_lines())


def blocks(lines: Iterator[str]) -> Iterator[dict]:
    block: dict = {}
    for line in lines:
        name, _, value = line.partition(": ")
        if line:
            block[name or "comment"] = json.loads(value) if name == "data" else value
        elif block:
            yield block
            block = {}


def address(service: Service, job_id: str) -> str:
    return f"{service.url}/v1/jobs/{job_id}/events"


def numbers(found: Iterator[dict]) -> list[int]:
    return [int(block["id"]) for block in found if "id" in block]


def events_of(service: Service, job_id: str, count: int, size: int = 1) -> None:
    """A running job with so many events, the first two of which are its own."""
    service.claim(job_id)
    for first in range(2, count, 500):
        reports = [report("log", message="x" * size) for _ in range(first, min(first + 500, count))]
        service.call(repository.append_events, job_id, 1, reports)


def test_a_stream_tells_what_was_what_is_and_when_it_is_over(service, submit):
    job_id = submit()
    with stream(address(service, job_id)) as found:
        assert next(found) == {"retry": "1000"}
        first = next(found)
        assert (first["id"], first["event"], first["data"]["data"]["to"]) == ("1", "state", "queued")
        service.claim(job_id)
        assert next(found)["data"]["data"]["to"] == "running"
        service.call(repository.append_events, job_id, 1, [report("metric", step=1, total=2, loss=0.5)])
        metric = next(found)
        page = httpx2.get(address(service, job_id)).json()
        assert (metric["event"], metric["data"]) == ("metric", page["data"][2])
        service.call(repository.settle, job_id, 1, Status.SUCCEEDED)
        assert next(found)["data"]["data"]["to"] == "succeeded"
        assert next(found) == {"event": "end", "data": {"status": "succeeded"}}
        assert list(found) == []


def test_headers(service, submit):
    with httpx2.stream("GET", address(service, submit()), headers=SSE) as response:
        assert response.headers["cache-control"] == "no-cache"
        assert response.headers["x-accel-buffering"] == "no"
        assert response.headers["vary"] == "Accept"


def test_of_a_job_that_is_over_all_comes_at_once_in_pages(service, submit):
    job_id = submit()
    events_of(service, job_id, 1200)
    service.call(repository.settle, job_id, 1, Status.FAILED)
    started = time.monotonic()
    with stream(address(service, job_id)) as found:
        assert numbers(found) == list(range(1, 1202))
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("headers", "params", "first"),
    [
        ({}, {}, 1),
        ({}, {"after": 3}, 4),
        ({"Last-Event-ID": "5"}, {"after": 3}, 6),
        ({"Last-Event-ID": "99"}, {}, None),
    ],
)
def test_streams_begin_where_they_are_asked_to(service, submit, headers, params, first):
    job_id = submit()
    events_of(service, job_id, 7)
    service.call(repository.settle, job_id, 1, Status.SUCCEEDED)
    with stream(address(service, job_id), headers, **params) as found:
        assert numbers(found) == (list(range(first, 9)) if first else [])


@pytest.mark.parametrize("wrong", ["x", "-1", "9999999999"])
def test_a_last_event_id_that_is_none(http, submit, wrong):
    response = http.get(f"/v1/jobs/{submit()}/events", headers=SSE | {"Last-Event-ID": wrong})
    problem(response, 422, "VALIDATION_FAILED")


def test_a_stream_of_some_types(service, submit):
    job_id = submit()
    with stream(address(service, job_id), types="metric") as found:
        service.claim(job_id)
        time.sleep(0.7)
        events_of_both = [report("log", message="a"), report("metric", step=1, total=1), report("log", message="b")]
        service.call(repository.append_events, job_id, 1, events_of_both)
        service.call(repository.settle, job_id, 1, Status.SUCCEEDED)
        assert [(block.get("id"), block["event"]) for block in found if "event" in block] == [
            ("4", "metric"),
            (None, "end"),
        ]


def test_a_job_that_is_deleted_meanwhile_is_at_its_end(service, submit):
    job_id = submit()
    with stream(address(service, job_id)) as found, service.sessions.begin() as session:
        next(found)
        session.execute(text("DELETE FROM job_events"))
        session.execute(text("DELETE FROM jobs WHERE id = :id"), {"id": job_id})
        session.commit()
        assert [*found][-1] == {"event": "end", "data": {"status": None}}


def test_jobs_that_are_not_there(http):
    problem(http.get(f"/v1/jobs/job_{'0' * 32}/events", headers=SSE), 404, "NOT_FOUND")


def test_pings_while_nothing_happens_also_where_what_happens_is_not_wanted(service, submit):
    job_id, enough = submit(), threading.Event()
    service.claim(job_id)

    def chatter() -> None:
        while not enough.wait(0.1):
            service.call(repository.append_events, job_id, 1, [report("log", message="a")])

    chatting = threading.Thread(target=chatter)
    with streaming(service, ping_s=0.3, poll_s=0.05) as (running, _):
        with stream(address(running, job_id), types="metric") as found:
            assert next(found) == {"retry": "1000"}
            chatting.start()
            started = time.monotonic()
            assert [next(found) for _ in range(3)] == [{"comment": "ping"}] * 3
            assert time.monotonic() - started < 2
        enough.set()
        chatting.join()


def test_a_stream_is_ended_in_time_and_goes_on_where_it_was(service, submit):
    job_id = submit()
    service.claim(job_id)
    seen, last = [], "0"
    with streaming(service, lasts_s=0.4, poll_s=0.05) as (running, _):
        for _ in range(4):
            with stream(address(running, job_id), {"Last-Event-ID": last}) as found:
                service.call(repository.append_events, job_id, 1, [report("log", message="a")] * 3)
                seen += numbers(found)
                last = str(seen[-1])
    assert seen == list(range(1, 15))


def test_a_key_holds_so_many_streams_and_no_more(settings, service, submit):
    guarded = settings.model_copy(update={"require_key": True, "max_streams": 2})
    hashing = keys.hashing_key(guarded)
    tokens = [service.call(keys.create_key, hashing, "local", ["jobs:read"])[1] for _ in range(2)]
    mine, other = ({"Authorization": f"Bearer {token}"} for token in tokens)
    with serving(guarded) as running:
        url = address(running, submit())
        with stream(url, mine) as first, stream(url, mine) as second, stream(url, other) as third:
            for found in (first, second, third):
                next(found)
            refused = httpx2.get(url, headers=SSE | mine)
            assert "may hold no more" in problem(refused, 429, "RATE_LIMITED")["detail"]
            assert refused.headers["retry-after"] == "10"
            assert httpx2.get(url, headers=mine).status_code == 200
        until(lambda: httpx2.stream("GET", url, headers=SSE | mine).__enter__().status_code == 200)


def test_a_database_that_goes_away_and_comes_back(service, submit):
    job_id = submit()
    with streaming(service, ping_s=0.2) as (running, _), stream(address(running, job_id)) as found:
        assert numbers([next(found), next(found)]) == [1]
        with without(service, "jobs"):
            assert [next(found) for _ in range(5)] == [{"comment": "ping"}] * 5
        service.claim(job_id)
        assert next(block for block in found if "id" in block)["data"]["data"]["to"] == "running"


def test_a_stream_begins_once_the_past_can_be_read(service, submit):
    job_id = submit()
    with streaming(service, ping_s=0.2) as (running, _), ExitStack() as away:
        away.enter_context(without(service, "job_events"))
        with stream(address(running, job_id)) as found:
            assert next(found) == {"retry": "1000"}
            assert [next(found) for _ in range(3)] == [{"comment": "ping"}] * 3
            away.close()
            assert next(block for block in found if "id" in block)["id"] == "1"


def test_who_comes_into_the_midst_of_news_hears_the_rest_of_them(service, submit):
    job_id = submit()
    service.claim(job_id)
    with streaming(service, poll_s=0.05) as (running, _), stream(address(running, job_id), after=2) as first:
        next(first)
        service.call(repository.append_events, job_id, 1, [report("log", message="a")] * 4)
        assert numbers(next(first) for _ in range(4)) == [3, 4, 5, 6]
        with stream(address(running, job_id), after=4) as second:
            assert numbers(next(second) for _ in range(3)) == [5, 6]


def test_a_client_that_goes_is_noticed(service, submit):
    with streaming(service) as (running, streams):
        with stream(address(running, submit())) as one, stream(address(running, submit())) as other:
            next(one), next(other)
            assert streams.open_streams() == 2
        until(lambda: streams.open_streams() == 0)
        assert not streams._watches


def test_a_client_that_reads_nothing_holds_up_nobody_and_costs_no_memory(service, submit):
    job_id, count, size = submit(), 1500, 10_000
    events_of(service, job_id, count, size)
    with streaming(service, poll_s=0.05) as (running, streams), slow_client(running, job_id) as lazy:
        until(lambda: streams.open_streams() == 1)
        tracemalloc.start()
        with stream(address(running, job_id)) as found:
            assert [int(block["id"]) for block in itertools.islice((b for b in found if "id" in b), count)][-1] == count
            sent = time.monotonic()
            service.call(repository.append_events, job_id, 1, [report("log", message="news")])
            assert next(found)["data"]["data"] == {"message": "news"}
            assert time.monotonic() - sent < 1
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < count * size / 2, f"{peak / 1e6:.1f} MB"
        service.call(repository.settle, job_id, 1, Status.SUCCEEDED)
        assert numbers(blocks(line.decode().rstrip("\n") for line in lazy.makefile("rb"))) == list(range(1, count + 3))


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgresql", marks=pytest.mark.nightly)])
def test_five_hundred_streams_at_a_time(settings, request, kind):
    """No thread for each, and everyone hears what is new within two seconds."""
    url = settings.database_url if kind == "sqlite" else request.getfixturevalue("postgres_url")
    app = create_app(settings.model_copy(update={"database_url": url}))
    threads = threading.active_count()
    with serving(app.state.settings, app) as service, httpx2.Client(base_url=service.url) as http:
        jobs = [http.post("/v1/jobs", json={"spec": GOOD}).json()["id"] for _ in range(50)]
        lags = asyncio.run(hear(service, jobs, each=10))
        assert len(lags) == 500
        assert max(lags) < 2, f"{max(lags):.2f} s"
        assert threading.active_count() - threads < 60
        until(lambda: app.state.streams.open_streams() == 0)


async def hear(service: Service, jobs: list[str], each: int) -> list[float]:
    """How long after it is written a change is heard of, for every stream of every job."""
    connections = [(job_id, await connect(service, job_id)) for job_id in jobs for _ in range(each)]
    for _, (reader, _) in connections:
        await reader.readuntil(b"id: 1\n\n")
    written: dict[str, float] = {}

    async def heard(job_id: str, reader: asyncio.StreamReader) -> float:
        await reader.readuntil(b"id: 2\n\n")
        return time.monotonic() - written[job_id]

    hearing = [asyncio.create_task(heard(job_id, reader)) for job_id, (reader, _) in connections]
    for job_id in jobs:
        await asyncio.to_thread(service.claim, job_id)
        written[job_id] = time.monotonic()
    lags = await asyncio.gather(*hearing)
    for _, (_, writer) in connections:
        writer.close()
        await writer.wait_closed()
    return lags


async def connect(service: Service, job_id: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(service.url.rpartition(":")[2]))
    writer.write(asked(job_id))
    return reader, writer


def asked(job_id: str) -> bytes:
    return f"GET /v1/jobs/{job_id}/events HTTP/1.0\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n".encode()


@contextmanager
def slow_client(service: Service, job_id: str) -> Iterator[socket.socket]:
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", int(service.url.rpartition(":")[2])))
        client.settimeout(20)
        client.sendall(asked(job_id))
        yield client


@contextmanager
def without(service: Service, table: str) -> Iterator[None]:
    """While the database has not got a table."""
    rename(service, table, "gone")
    try:
        yield
    finally:
        rename(service, "gone", table)


def rename(service: Service, table: str, name: str) -> None:
    with service.sessions.begin() as session:
        session.execute(text(f"ALTER TABLE {table} RENAME TO {name}"))


def until(condition: Callable[[], bool], seconds: float = 5) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_service_that_is_told_to_stop_does_not_wait_for_streams(tmp_path, redis_url):
    port = free_port()
    environment = os.environ | {"DREAM_HOME": str(tmp_path), "REDIS_URL": redis_url}
    command = [sys.executable, "-m", "api", "--port", str(port)]
    with ExitStack() as stack:
        process = stack.enter_context(subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL))
        stack.callback(process.kill)
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}") as http:
            wait_until_ready(http)
            url = f"{http.base_url}" + http.post("/v1/jobs", json={"spec": GOOD}).json()["urls"]["events"]
        with stream(url) as one, stream(url) as other:
            next(one), next(other)
            told = time.monotonic()
            process.terminate()
            assert [len([*found]) for found in (one, other)] == [1, 1]  # the job's first event, and a proper end
            process.wait(10)
            assert time.monotonic() - told < 3
