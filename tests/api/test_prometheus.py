"""Figures: parsed as Prometheus does, and about what has happened."""

import httpx2
from prometheus_client.parser import text_string_to_metric_families

from api.app import create_app
from jobs import repository
from jobs.database import migrate
from jobs.lifecycle import Status
from jobs.metrics import serve_metrics
from jobs.settings import Settings
from tests.api.conftest import serving
from tests.fixtures.broker import free_port


def samples(http: httpx2.Client) -> dict[str, float]:
    """Every sample by its name and labels."""
    answer = http.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    return {
        sample.name + "".join(f" {name}={value}" for name, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_figures_of_jobs_and_requests(settings, tmp_path, redis_server):
    fresh = settings.model_copy(update={"home": tmp_path})
    with serving(fresh, create_app(fresh)) as service, httpx2.Client(base_url=service.url) as http:
        before = samples(http)
        job = http.post("/v1/jobs", json={"spec": {"dataset": "digits", "method": "idc", "ipc": 1}}).json()["id"]
        http.get(f"/v1/jobs/{job}")
        http.get("/v1/nothing")
    with serving(fresh, create_app(fresh)) as service, httpx2.Client(base_url=service.url) as http:
        after = samples(http)
    submitted = "dream_jobs_submitted_total dataset=digits method=idc"
    assert after[submitted] == before.get(submitted, 0) + 1
    assert after["dream_jobs status=queued"] == before["dream_jobs status=queued"] + 1
    assert after["dream_oldest_claimable_job_age_seconds queue=default"] >= 0
    polled = "dream_http_request_duration_seconds_count method=GET route=/v1/jobs/{job_id} status=200"
    assert after[polled] == before.get(polled, 0) + 1
    assert after["dream_http_request_duration_seconds_count method=GET route=none status=404"] >= 1
    assert after["dream_sse_streams"] == 0
    assert after["dream_database_up"] == after["dream_broker_up"] == 1
    assert after["dream_disk_total_bytes"] > after["dream_disk_free_bytes"] > 0
    assert not [name for name in after if job in name]


def test_figures_without_a_database(tmp_path, redis_server):
    away = Settings(home=tmp_path, database_url="postgres://127.0.0.1:1/none", redis_url=redis_server)
    with serving(away, create_app(away)) as service, httpx2.Client(base_url=service.url) as http:
        found = samples(http)
    assert "dream_jobs status=queued" not in found
    assert found["dream_database_up"] == 0
    assert any(name.startswith("dream_build_info") for name in found)


def test_bytes_that_are_kept(http, submit, service):
    job = submit()
    service.claim(job)
    service.call(repository.settle, job, 1, Status.SUCCEEDED, artifact_bytes=12345)
    with serving(service.settings, create_app(service.settings)) as other, httpx2.Client(base_url=other.url) as client:
        assert samples(client)["dream_storage_bytes kind=artifacts"] >= 12345


def test_a_port_without_a_key_shows_all_of_it(tmp_path, redis_server):
    port = free_port()
    own = Settings(home=tmp_path, database_url=f"sqlite:///{tmp_path}/db", redis_url=redis_server, metrics_port=port)
    migrate(own.database_url)
    app = create_app(own)
    serve_metrics(own, app.state.figures)
    shown = httpx2.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
    app.state.engine.dispose()
    assert "dream_build_info" in shown
    assert "dream_database_up 1.0" in shown
    assert "dream_broker_up 1.0" in shown
    assert own.metrics_host == "127.0.0.1"
