"""A real Prometheus on a real service: every query of the dashboard and of the alerts has an answer."""

import json
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
import yaml

from jobs.serve import CELERY
from tests.deployment.figures import PROMETHEUS, load, panels, rules
from tests.fixtures.broker import free_port
from tests.fixtures.cluster import HURRIED, TINY, Cluster, Part, deployed, until
from tests.fixtures.serving import JUDGED, LONG, SHORT, environment

pytestmark = pytest.mark.nightly

EMPTY_HERE = {"GPU memory", "GPU in use", "Webhooks: messages sent, per hour"}
"""Panels without data where there is no GPU and no webhook."""


@contextmanager
def watched(cluster: Cluster, home: Path, starter: ThreadPoolExecutor) -> Iterator[httpx2.Client]:
    """A worker that shows its figures, and a Prometheus, with our rules, that scrapes it and the API."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("needs prometheus (apt-get install prometheus)")
    figures, port = free_port(), free_port()
    ours = {"DREAM_HOME": str(cluster.home), "DATABASE_URL": cluster.database_url, "REDIS_URL": cluster.redis_url}
    env = environment(HURRIED | ours | {"DREAM_METRICS_PORT": str(figures)})
    worker = Part("worker", [sys.executable, "-m", *CELERY, "-n", "watched@%h"], home, starter, env=env)
    server = Part("prometheus", _command(program, port, home), home, starter)
    _configure(home, {"dream-api": cluster.url.rpartition("//")[2], "dream-worker": f"127.0.0.1:{figures}"})
    worker.start()
    server.start()
    try:
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=10) as http:
            yield http
    finally:
        worker.kill_all()
        server.kill()


def _command(program: str, port: int, home: Path) -> list[str]:
    listen, files = f"--web.listen-address=127.0.0.1:{port}", f"--config.file={home / 'prometheus.yml'}"
    return [program, listen, files, f"--storage.tsdb.path={home / 'tsdb'}"]


def _configure(home: Path, targets: dict[str, str]) -> None:
    """The rules as they are, and the configuration with what is scraped where it is here, and more often."""
    shutil.copy(PROMETHEUS / "alerts.yml", home)
    config = load(PROMETHEUS / "prometheus.yml")
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["scrape_configs"] = [
        {"job_name": scrape["job_name"], "static_configs": [{"targets": [targets[scrape["job_name"]]]}]}
        for scrape in config["scrape_configs"]
        if scrape["job_name"] in targets
    ]
    (home / "prometheus.yml").write_text(yaml.safe_dump(config))


def ask(http: httpx2.Client, query: str) -> list[dict]:
    """What Prometheus answers: series with a number."""
    answer = http.get("/api/v1/query", params={"query": query.replace("$__rate_interval", "1m")})
    assert answer.is_success, f"{query}: {answer.text}"
    return [series for series in answer.json()["data"]["result"] if series["value"][1] != "NaN"]


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory) -> Iterator[httpx2.Client]:
    """After two jobs, while one is running and one waits."""
    home = tmp_path_factory.mktemp("watched")
    with (
        ThreadPoolExecutor(1) as starter,
        deployed(tmp_path_factory.mktemp("cluster"), workers=0, database="sqlite") as cluster,
        watched(cluster, home, starter) as http,
    ):
        until(lambda: _scraped(http), "both are scraped")
        spec = {"dataset": f"folder:{TINY}", "method": "dream", "ipc": 1, "params": SHORT, "evaluation": JUDGED}
        for name, changes in {  # the second of a kind is the first that shows as an increase
            "short": {},
            "again": {},
            "endless": {"params": LONG},
            "waiting": {"params": LONG},
        }.items():
            cluster.submit(name, spec | changes)
        until(lambda: ask(http, "sum(dream_jobs_finished_total) == 2"), "two are over", 300)
        until(lambda: ask(http, "dream_oldest_claimable_job_age_seconds > 2"), "a job waits")
        until(lambda: ask(http, 'rate(dream_step_duration_seconds_count{phase="distilling"}[1m]) > 0'), "steps", 200)
        yield http


def _scraped(http: httpx2.Client) -> bool:
    try:
        return len(ask(http, "up == 1")) == 2
    except (httpx2.TransportError, AssertionError):
        return False


@pytest.mark.parametrize("panel", panels())
def test_panel_shows_data(panel, prometheus):
    for query in panels()[panel]:
        found = ask(prometheus, query)
        if panel.partition(" ")[2] not in EMPTY_HERE:
            assert found, query


def test_rules_are_loaded_and_evaluated(prometheus):
    groups = prometheus.get("/api/v1/rules").json()["data"]["groups"]
    health = {rule["name"]: rule["health"] for group in groups for rule in group["rules"]}
    assert health == {rule["alert"]: "ok" for rule in rules()}


def test_nothing_is_raised(prometheus):
    alerts = prometheus.get("/api/v1/alerts").json()["data"]["alerts"]
    assert [alert for alert in alerts if alert["state"] == "firing"] == [], json.dumps(alerts)
