"""A real Caddy with our Caddyfile before a real service: streams, uploads and ranges pass through as they are."""

import os
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import httpx2
import pytest

from tests.deployment import passage
from tests.deployment.figures import DOCKER
from tests.fixtures.broker import free_port
from tests.fixtures.cluster import until
from tests.fixtures.serving import serving

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
                until(lambda: passage.answers(http), "caddy answers", 20)
                yield Proxy(http, f"http://localhost:{plain}", f"http://127.0.0.1:{lives}")
        finally:
            caddy.terminate()
            caddy.wait(30)


@pytest.mark.parametrize(
    "passes",
    [
        passage.events_come_when_they_happen,
        passage.a_part_of_an_upload_may_be_as_large_as_the_api_takes,
        passage.a_part_of_a_download,
    ],
)
def test_what_must_pass(passes, proxy):
    passes(proxy.http)


def test_what_the_proxy_says_itself(proxy):
    passage.what_the_proxy_says_itself(proxy.http, proxy.plain)
    assert httpx2.get(proxy.lives, trust_env=False).status_code == 204
