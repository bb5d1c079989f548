"""What may run beside the stack, by profiles: Prometheus, Caddy, and an S3 server for results."""

import hashlib
import json
import shlex
import ssl
import time
from contextlib import suppress
from typing import Any
from urllib.parse import urlencode

import httpx2

from client.sdk import Client
from tests.containers.report import Report, Step
from tests.containers.stack import Stack
from tests.deployment import passage
from tests.deployment.figures import panels, rules
from tests.fixtures.broker import free_port
from tests.fixtures.cluster import until
from tests.fixtures.serving import JUDGED, LONG, SHORT

SERVICES = ("api", "worker", "db", "broker")
EMPTY_HERE = {"GPU memory", "GPU in use", "Webhooks: messages sent, per hour"}
"""Panels without data where there is no GPU and no webhook."""
NO_CAPABILITY = "0000000000000000"
TO_BIND_PORTS = "0000000000000400"
ROOT_CERTIFICATE = "/data/caddy/pki/authorities/local/root.crt"
BUCKET = "dream"
WAIT_S = 300


class Beside:
    def __init__(self, stack: Stack, report: Report, downloads: Any, *, grafana: bool):
        self._stack, self._report, self._downloads, self._grafana = stack, report, downloads, grafana

    def all(self, client: Client) -> None:
        """A step for each profile; each leaves on what it has started."""
        step = self._report.step
        with step("profile obs: Prometheus scrapes everything, and the dashboard has answers") as seen:
            self.watched(client, seen)
        with step("profile proxy: Caddy with a certificate of its own; events, uploads and ranges pass") as seen:
            self.proxied(seen)
        with step("profile s3: a result goes into a bucket, and out of it by signed links") as seen:
            self.stored(client, seen)

    def _start(self, profile: str, *services: str, **settings: str) -> None:
        profiles = f"{self._stack.settings['COMPOSE_PROFILES']},{profile}"
        self._stack.configure(COMPOSE_PROFILES=profiles, **settings)
        self._stack.up(*SERVICES, *services)

    def _confined(self, service: str, *, capabilities: str = NO_CAPABILITY) -> str:
        """Its account there, after a look at what it may do."""
        assert f"CapEff:\t{capabilities}" in self._stack.shell(service, "cat /proc/1/status")
        assert "Read-only file system" in self._stack.shell(service, "touch /usr/bin/probe 2>&1 || true")
        return self._stack.shell(service, "id -u")

    # ------------------------------------------------------------------ obs

    def watched(self, client: Client, seen: Step) -> None:
        self._start("obs", "prometheus", *(["grafana"] if self._grafana else []))
        version = self._stack.shell("prometheus", "prometheus --version 2>&1 | head -1")
        seen.saw(f"{version}, as uid {self._confined('prometheus')}")
        self._two_jobs(client)
        self._stack.scale("worker", 2)
        expected = {"dream-api": 1, "dream-worker": 2, "prometheus": 1}
        until(lambda: self._targets() == expected, f"these answer, and no others: {expected}", WAIT_S)
        seen.saw("targets that answer: " + ", ".join(f"{number} {name}" for name, number in expected.items()))
        asked = panels()
        # one for each of the two workers, and one that waits
        going_on = [client.jobs.create("digits", "dream", 1, params=LONG, evaluation=JUDGED).id for _ in range(3)]
        empty = list(asked)

        def complete() -> bool:
            empty[:] = self._empty(asked)
            return not empty

        with suppress(AssertionError):
            until(complete, "every panel of the dashboard has data", WAIT_S)
        assert not empty, empty
        for job in going_on:
            client.jobs.cancel(job, "now")
        queries = sum(map(len, asked.values()))
        seen.saw(f"{len(asked)} panels, {queries} queries: all with data but {', '.join(sorted(EMPTY_HERE))}")
        loaded = self._ask("rules")["groups"]
        health = {rule["name"]: rule["health"] for group in loaded for rule in group["rules"]}
        assert health == {rule["alert"]: "ok" for rule in rules()}, health
        assert not (firing := self._firing()), firing
        seen.saw(f"{len(health)} alerts are loaded and evaluated, none is raised")
        self._alarm(seen)
        self._stack.scale("worker", 1)
        self._dashboard(seen)

    def _two_jobs(self, client: Client) -> None:
        """Of one worker, each seen: the second of a kind is the first that shows as an increase."""
        for number in (1, 2):
            job = client.jobs.create("digits", "dream", 1, params=SHORT, evaluation=JUDGED)
            assert client.jobs.wait(job.id, WAIT_S).status == "succeeded"
            query = f"sum(dream_jobs_finished_total) == {number}"
            until(lambda query=query: self._numbers(query), f"Prometheus has seen {query}", WAIT_S)

    def _ask(self, path: str, **parameters: str) -> Any:
        """Prometheus, which is not published, from within its container."""
        url = f"http://127.0.0.1:9090/api/v1/{path}?{urlencode(parameters)}"
        return json.loads(self._stack.shell("prometheus", f"wget -qO- {shlex.quote(url)}"))["data"]

    def _targets(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for target in self._ask("targets", state="active")["activeTargets"]:
            if target["health"] == "up":
                found[target["labels"]["job"]] = found.get(target["labels"]["job"], 0) + 1
        return found

    def _empty(self, asked: dict[str, list[str]]) -> list[str]:
        """The panels of which a query has no number for an answer."""
        return [
            panel
            for panel, queries in asked.items()
            if panel.partition(" ")[2] not in EMPTY_HERE and not all(self._numbers(query) for query in queries)
        ]

    def _numbers(self, query: str) -> list[str]:
        found = self._ask("query", query=query.replace("$__rate_interval", "1m"))["result"]
        return [series["value"][1] for series in found if series["value"][1] != "NaN"]

    def _alarm(self, seen: Step) -> None:
        """Alerts of parts that go away, names and all, from their beginning to their end."""
        away = {"DreamBrokerDown", "DreamDatabaseDown"}
        self._stack.compose("stop", "broker", "db")
        began = time.monotonic()
        until(lambda: away <= self._firing(), f"{' and '.join(sorted(away))} are raised", WAIT_S, every=2)
        assert "DreamApiDown" not in self._firing(), "the API shows its figures all the same"
        seen.saw(f"{' and '.join(sorted(away))} are raised {time.monotonic() - began:.0f} s after these were stopped")
        self._stack.compose("start", "broker", "db")
        until(lambda: not away & self._firing(), "they are over", WAIT_S, every=2)
        # a worker tries again to reach the broker after ever longer pauses
        until(lambda: self._health() == {"healthy"}, "everything is well again", WAIT_S, every=2)

    def _health(self) -> set[str]:
        """Of all that runs."""
        return set(self._stack.compose("ps", "--format", "{{.Health}}").split())

    def _firing(self) -> set[str]:
        """The alerts that are raised, but for those of the disk: it is this machine's."""
        alerts = self._ask("alerts")["alerts"]
        firing = {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}
        return {name for name in firing if not name.startswith("DreamDisk")}

    def _dashboard(self, seen: Step) -> None:
        if not self._grafana:
            seen.saw("Grafana is left out: it can be pulled from nowhere, and no registry of packages has it")
            return
        url = f"http://127.0.0.1:{self._stack.settings.get('GRAFANA_PORT', '3000')}"
        found = httpx2.get(f"{url}/api/search?type=dash-db", trust_env=False).json()
        assert len(found) == 1, found
        seen.saw(f"Grafana shows {found[0]['title']}")

    # ------------------------------------------------------------------ proxy

    def proxied(self, seen: Step) -> None:
        plain, secure = free_port(), free_port()
        self._start("proxy", "proxy", HTTP_PORT=str(plain), HTTPS_PORT=str(secure), FORWARDED_ALLOW_IPS="*")
        account = self._confined("proxy", capabilities=TO_BIND_PORTS)
        seen.saw(
            f"Caddy {self._stack.shell('proxy', 'caddy version').split()[0]}, as uid {account}, with one capability"
        )
        certificate = self._stack.shell("proxy", f"cat {ROOT_CERTIFICATE}")
        key = {"Authorization": f"Bearer {self._stack.settings['DREAM_ADMIN_KEY']}"}
        trust = ssl.create_default_context(cadata=certificate + "\n")
        with httpx2.Client(
            base_url=f"https://localhost:{secure}", headers=key, verify=trust, trust_env=False, timeout=60
        ) as http:
            until(lambda: passage.answers(http), "caddy answers", 30)
            passage.what_the_proxy_says_itself(http, f"http://localhost:{plain}")
            apart = passage.events_come_when_they_happen(http)
            seen.saw(f"https with its own root certificate; four events came over {apart:.1f} s, not at once")
            passage.a_part_of_an_upload_may_be_as_large_as_the_api_takes(http)
            passage.a_part_of_a_download(http)
            seen.saw("a part of 64 MiB goes up, a larger one is refused; a range and a 304 come back")
            self._stack.compose("restart", "--timeout", "30", "proxy")
            until(lambda: passage.answers(http), "caddy answers again", 60)
            seen.saw("started anew, it has the same certificate")

    # ------------------------------------------------------------------ s3

    def stored(self, client: Client, seen: Step) -> None:
        port = free_port()
        public = f"http://127.0.0.1:{port}"
        self._start(
            "s3", "s3", S3_PORT=str(port), DREAM_ARTIFACTS_URL=f"s3://{BUCKET}",
            DREAM_S3_ENDPOINT_URL="http://s3:8333", DREAM_S3_PUBLIC_ENDPOINT_URL=public,
        )  # fmt: skip
        seen.saw(
            f"{self._stack.settings['S3_IMAGE']}, as uid {self._confined('s3')}; the API and the worker waited for it"
        )
        job = client.jobs.create("digits", "dream", 1, params=SHORT, evaluation=JUDGED)
        assert client.jobs.wait(job.id, WAIT_S).status == "succeeded"
        download = client.jobs.download(job.id, self._downloads / "from the bucket")
        for entry in download.manifest["files"]:
            content = (download.directory / entry["path"]).read_bytes()
            assert hashlib.sha256(content).hexdigest() == entry["sha256"], entry["path"]
        assert self._stack.shell("api", f"ls /var/lib/dream/artifacts | grep -c {job.id} || true") == "0"
        seen.saw(f"{len(download.manifest['files'])} files downloaded and verified; none of them on the volume")
        self._link(job.id, download.manifest["files"][0], public, seen)

    def _link(self, job_id: str, entry: dict[str, Any], public: str, seen: Step) -> None:
        """What a client without our code would do."""
        key = {"Authorization": f"Bearer {self._stack.settings['DREAM_ADMIN_KEY']}"}
        address = f"{self._stack.url}/v1/jobs/{job_id}/artifacts/{entry['path']}"
        answer = httpx2.get(address, headers=key, trust_env=False)
        link = answer.headers["location"]
        assert (answer.status_code, link.startswith(f"{public}/{BUCKET}/{job_id}/")) == (307, True), link
        whole = httpx2.get(link, trust_env=False)
        assert hashlib.sha256(whole.content).hexdigest() == entry["sha256"]
        piece = httpx2.get(link, headers={"Range": "bytes=10-19"}, trust_env=False)
        assert whole.content[10:20] == piece.content
        forged = link.replace(entry["path"], "manifest.json")
        assert httpx2.get(forged, trust_env=False).status_code == httpx2.codes.FORBIDDEN
        assert httpx2.get(link.partition("?")[0], trust_env=False).is_client_error
        seen.saw(f"307 to {public}; the link needs no key, gives ranges ({piece.status_code}), and opens no other file")
