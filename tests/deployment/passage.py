"""What must pass through a proxy as it is: events when they happen, large bodies, ranges."""

import hashlib
import os
import time
from typing import Any

import httpx2

from jobs.parts import PART_BYTES
from tests.fixtures.cluster import until
from tests.fixtures.serving import JUDGED, LONG, SHORT


def answers(http: httpx2.Client) -> bool:
    try:
        return http.get("/livez").status_code == 200
    except httpx2.TransportError:
        return False


def submit(http: httpx2.Client, params: dict[str, Any]) -> str:
    spec = {"dataset": "digits", "method": "dream", "ipc": 1, "params": params, "evaluation": JUDGED}
    answer = http.post("/v1/jobs", json={"spec": spec}, headers={"Origin": str(http.base_url).rstrip("/")})
    assert answer.status_code == 202, answer.text
    return answer.json()["id"]


def events_come_when_they_happen(http: httpx2.Client) -> float:
    """Returns the seconds between the first and the fourth."""
    job = submit(http, LONG)
    arrived: list[float] = []
    with http.stream("GET", f"/v1/jobs/{job}/events", headers={"Accept": "text/event-stream"}) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        for line in stream.iter_lines():
            arrived += [time.monotonic()] if line.startswith("event: metric") else []
            if len(arrived) == 4:
                break
    assert http.get(f"/v1/jobs/{job}").json()["status"] == "running"
    assert arrived[-1] - arrived[0] > 0.5, "they came one by one"
    http.post(f"/v1/jobs/{job}/cancel?mode=now")
    return arrived[-1] - arrived[0]


def a_part_of_an_upload_may_be_as_large_as_the_api_takes(http: httpx2.Client) -> None:
    dataset = http.post("/v1/datasets", json={"name": "large", "bytes": PART_BYTES + 1}).json()
    path = f"/v1/datasets/{dataset['id']}/parts/1"
    body = os.urandom(PART_BYTES)
    answer = http.put(path, content=body, headers={"Content-Type": "application/octet-stream"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["sha256"] == hashlib.sha256(body).hexdigest()
    more = http.put(path, content=body + bytes(2 << 20), headers={"Content-Type": "application/octet-stream"})
    assert more.status_code == 413


def a_part_of_a_download(http: httpx2.Client) -> None:
    job = submit(http, SHORT)
    until(lambda: http.get(f"/v1/jobs/{job}").json()["status"] == "succeeded", "the job is done", 120)
    path = f"/v1/jobs/{job}/artifacts/decoded.safetensors"
    whole = http.get(path)
    assert whole.headers["etag"] == f'"{hashlib.sha256(whole.content).hexdigest()}"'
    piece = http.get(path, headers={"Range": "bytes=10-19", "If-Range": whole.headers["etag"]})
    assert piece.status_code == 206
    assert piece.content == whole.content[10:20]
    assert http.get(path, headers={"If-None-Match": whole.headers["etag"]}).status_code == 304


def what_the_proxy_says_itself(http: httpx2.Client, plain: str) -> None:
    """`plain` is its address without TLS."""
    assert http.get("/metrics").status_code == 404
    assert "strict-transport-security" not in http.get("/livez").headers, "not for localhost"
    moved = httpx2.get(f"{plain}/v1/jobs", trust_env=False)
    assert moved.status_code == 308
    assert moved.headers["location"].startswith("https://localhost")
