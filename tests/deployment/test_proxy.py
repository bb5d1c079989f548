"""A real Caddy with our Caddyfile before a real service: streams, uploads and ranges pass through as they are."""

import hashlib
import os
import shutil
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx2
import pytest

from jobs.parts import PART_BYTES
from tests.deployment.figures import DOCKER
from tests.fixtures.broker import free_port
from tests.fixtures.cluster import until
from tests.fixtures.serving import JUDGED, LONG, SHORT, serving

pytestmark = pytest.mark.nightly

CADDYFILE = DOCKER / "caddy" / "Caddyfile"


@dataclass
class Proxy:
    http: httpx2.Client
    """Goes through the proxy, and trusts its certificate."""
    plain: str
    lives: str


@pytest.fixture(scope="module")
def proxy(tmp_path_factory) -> Iterator[Proxy]:
    program = shutil.which("caddy")
    if program is None:
        pytest.skip("needs caddy (apt-get install caddy)")
    home = tmp_path_factory.mktemp("proxy")
    plain, secure, lives = free_port(), free_port(), free_port()
    ports = f"admin off\n\thttp_port {plain}\n\thttps_port {secure}\n"
    ours = CADDYFILE.read_text().replace("admin off\n", ports).replace("http://:8080", f"http://:{lives}")
    (home / "Caddyfile").write_text(ours)
    with serving(tmp_path_factory.mktemp("service")) as service:
        env = os.environ | {
            "DREAM_DOMAIN": "localhost",
            "DREAM_UPSTREAM": service.url.rpartition("/")[2],
            "XDG_DATA_HOME": str(home),
            "HOME": str(home),
        }
        command = [program, "run", "--config", str(home / "Caddyfile"), "--adapter", "caddyfile"]
        with (home / "log").open("wb") as log:
            caddy = subprocess.Popen(command, env=env, stdout=log, stderr=log)
        try:
            root = home / "caddy" / "pki" / "authorities" / "local" / "root.crt"
            until(root.exists, "caddy has a certificate", 20)
            url = f"https://localhost:{secure}"
            trust = ssl.create_default_context(cafile=str(root))
            with httpx2.Client(base_url=url, verify=trust, trust_env=False, timeout=60) as http:
                until(lambda: _answers(http), "caddy answers", 20)
                yield Proxy(http, f"http://localhost:{plain}", f"http://127.0.0.1:{lives}")
        finally:
            caddy.terminate()
            caddy.wait(30)


@pytest.fixture
def proxied(proxy: Proxy) -> httpx2.Client:
    return proxy.http


def _answers(http: httpx2.Client) -> bool:
    try:
        return http.get("/livez").status_code == 200
    except httpx2.TransportError:
        return False


def submit(http: httpx2.Client, params: dict) -> str:
    spec = {"dataset": "digits", "method": "dream", "ipc": 1, "params": params, "evaluation": JUDGED}
    answer = http.post("/v1/jobs", json={"spec": spec}, headers={"Origin": str(http.base_url).rstrip("/")})
    assert answer.status_code == 202, answer.text
    return answer.json()["id"]


def test_events_come_when_they_happen(proxied):
    job = submit(proxied, LONG)
    arrived: list[float] = []
    with proxied.stream("GET", f"/v1/jobs/{job}/events", headers={"Accept": "text/event-stream"}) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        for line in stream.iter_lines():
            arrived += [time.monotonic()] if line.startswith("event: metric") else []
            if len(arrived) == 4:
                break
    assert proxied.get(f"/v1/jobs/{job}").json()["status"] == "running"
    assert arrived[-1] - arrived[0] > 0.5, "they came one by one"
    proxied.post(f"/v1/jobs/{job}/cancel?mode=now")


def test_a_part_of_an_upload_may_be_as_large_as_the_api_takes(proxied):
    dataset = proxied.post("/v1/datasets", json={"name": "large", "bytes": PART_BYTES + 1}).json()
    path = f"/v1/datasets/{dataset['id']}/parts/1"
    body = os.urandom(PART_BYTES)
    answer = proxied.put(path, content=body, headers={"Content-Type": "application/octet-stream"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["sha256"] == hashlib.sha256(body).hexdigest()
    more = proxied.put(path, content=body + bytes(2 << 20), headers={"Content-Type": "application/octet-stream"})
    assert more.status_code == 413


def test_a_part_of_a_download(proxied):
    job = submit(proxied, SHORT)
    until(lambda: proxied.get(f"/v1/jobs/{job}").json()["status"] == "succeeded", "the job is done", 120)
    path = f"/v1/jobs/{job}/artifacts/decoded.safetensors"
    whole = proxied.get(path)
    assert whole.headers["etag"] == f'"{hashlib.sha256(whole.content).hexdigest()}"'
    piece = proxied.get(path, headers={"Range": "bytes=10-19", "If-Range": whole.headers["etag"]})
    assert piece.status_code == 206
    assert piece.content == whole.content[10:20]
    assert proxied.get(path, headers={"If-None-Match": whole.headers["etag"]}).status_code == 304


def test_what_the_proxy_says_itself(proxy, proxied):
    assert proxied.get("/metrics").status_code == 404
    assert "strict-transport-security" not in proxied.get("/livez").headers, "not for localhost"
    with httpx2.Client(trust_env=False) as http:
        moved = http.get(f"{proxy.plain}/v1/jobs")
        assert moved.status_code == 308
        assert moved.headers["location"].startswith("https://localhost")
        assert http.get(proxy.lives).status_code == 204
