"""What holds for every route: problems, ids, guards, health, catalogue, and a light process."""

import json
import os
import re
import subprocess
import sys
import time

import httpx2
import pytest

from api.__main__ import main
from api.app import create_app
from dream_core.catalog import METHODS
from dream_core.recipes.description import describe_all
from jobs.settings import Settings
from tests.api.conftest import problem, serving
from tests.fixtures.broker import free_port


def test_health(http):
    assert http.get("/livez").json() == {"status": "ok"}
    assert http.get("/readyz").json() == {"status": "ready", "database": "ok", "broker": "ok", "artifacts": "ok"}


def test_ready_without_a_broker(settings, dead_redis_url):
    with serving(settings.model_copy(update={"redis_url": dead_redis_url})) as service:
        response = httpx2.get(f"{service.url}/readyz")
    assert (response.status_code, response.json()["broker"]) == (200, "unreachable")


def test_ready_where_there_is_to_be_no_broker(settings):
    with serving(settings.model_copy(update={"redis_url": "none"})) as service:
        response = httpx2.get(f"{service.url}/readyz")
    assert (response.status_code, response.json()["broker"]) == (200, "none")


def test_not_ready_before_migration(settings, tmp_path):
    empty = settings.model_copy(update={"database_url": f"sqlite:///{tmp_path}/empty.sqlite3"})
    with serving(empty) as service:
        response = httpx2.get(f"{service.url}/readyz")
    assert (response.status_code, response.json()["database"]) == (503, "not migrated")


def test_methods(http):
    response = http.get("/v1/methods")
    listed = response.json()["data"]
    assert [method["name"] for method in listed] == list(METHODS)
    assert listed == describe_all()
    assert len(response.content) < 300_000
    for method in listed:
        assert http.get(f"/v1/methods/{method['name']}").json() == method
    method = next(method for method in listed if method["name"] == "dream")
    assert method["params_schema"]["properties"]["factor"]["maximum"] == 8
    assert "ipc" not in method["params_schema"]["properties"]
    assert method["evaluation_schema"]["properties"]["epochs"]["default"] == 1000


def test_methods_whose_names_are_no_plain_words(http):
    for address in ("dream+", "dream%2B"):
        assert http.get(f"/v1/methods/{address}").json()["title"] == "DREAM+"
    assert http.get("/v1/methods/k-center").json()["family"] == "coresets"


def test_an_unknown_method_is_not_found_and_the_names_are_listed(http):
    document = problem(http.get("/v1/methods/magic"), 404, "NOT_FOUND")
    assert document["detail"] == f"there is no method 'magic'; known: {', '.join(METHODS)}"


def test_a_preset_can_be_submitted(http):
    method = http.get("/v1/methods/dream+").json()
    preset = next(preset for preset in method["presets"] if preset["dataset"] == "digits")
    spec = {"method": "dream+"} | {word: preset[word] for word in ("dataset", "ipc", "params", "evaluation")}
    response = http.post("/v1/jobs", json={"spec": spec})
    assert response.status_code == 202
    resolved = response.json()["resolved_spec"]
    assert resolved["warmup_epochs"] == method["params_schema"]["properties"]["warmup_epochs"]["default"]


def test_datasets(http):
    datasets = {dataset["name"]: dataset for dataset in http.get("/v1/datasets").json()["data"]}
    assert (datasets["digits"]["available"], datasets["digits"]["advice"]) == (True, "")
    assert (datasets["cifar10"]["available"], datasets["cifar10"]["classes"]) == (False, 10)
    assert datasets["cifar10"]["missing"]
    assert "cifar-10-batches-py" in datasets["cifar10"]["advice"]


def test_unknown_addresses_and_methods(http):
    problem(http.get("/v1"), 404, "NOT_FOUND")
    problem(http.get("/v1/jobs/"), 404, "NOT_FOUND")
    response = http.delete("/v1/jobs")
    problem(response, 405, "METHOD_NOT_ALLOWED")
    assert response.headers["allow"] == "GET, POST"
    assert http.put("/v1/jobs/job_x/artifacts/y", json={}).headers["allow"] == "GET, HEAD"


def test_problems_are_described(http):
    document = problem(http.get("/nowhere"), 404, "NOT_FOUND")
    kind = http.get(document["type"]).json()
    assert (kind["code"], kind["status"]) == ("NOT_FOUND", 404)
    problem(http.get("/problems/none"), 404, "NOT_FOUND")


def test_a_bug_shows_its_request_id_only(settings):
    app = create_app(settings)

    @app.get("/bug")
    def bug() -> None:
        raise ZeroDivisionError("a secret")

    with serving(settings, app) as service:
        response = httpx2.get(f"{service.url}/bug")
    problem(response, 500, "INTERNAL")
    assert "secret" not in response.text
    assert "Zero" not in response.text


def test_request_ids(http):
    assert re.fullmatch(r"req_[0-9a-f]{32}", http.get("/livez").headers["x-request-id"])
    assert http.get("/livez", headers={"X-Request-ID": "mine-1"}).headers["x-request-id"] == "mine-1"
    assert http.get("/livez", headers={"X-Request-ID": "a b<>"}).headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "169.254.169.254", "", "127.0.0.1.nip.io"])
def test_foreign_host_names_are_refused(http, host):
    document = problem(http.get("/v1/jobs", headers={"Host": host}), 400, "HOST_NOT_ALLOWED")
    assert "DREAM_ALLOWED_HOSTS" in document["detail"]
    assert http.get("/livez", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1:1", "[::1]", "[::1]:8000"])
def test_loopback_names_are_ours(http, host):
    assert http.get("/v1/jobs", headers={"Host": host}).status_code == 200


def test_configured_host_names(settings):
    with serving(settings.model_copy(update={"allowed_hosts": ("Distil.example",)})) as service:
        assert httpx2.get(f"{service.url}/v1/jobs", headers={"Host": "distil.example:80"}).status_code == 200


def test_any_host_name_where_that_is_wanted(settings):
    with serving(settings.model_copy(update={"allowed_hosts": ("*",)})) as service:
        assert httpx2.get(f"{service.url}/v1/jobs", headers={"Host": "any.example"}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://["},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_pages_of_other_origins_cannot_write(http, submit, headers):
    job_id = submit()
    problem(http.post(f"/v1/jobs/{job_id}/cancel", headers=headers), 403, "FORBIDDEN")
    assert http.get(f"/v1/jobs/{job_id}").json()["status"] == "queued"


def test_own_pages_can_write(http, submit, service):
    headers = {"Origin": service.url, "Sec-Fetch-Site": "same-origin"}
    assert http.post(f"/v1/jobs/{submit()}/cancel", headers=headers).status_code == 200


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_bodies_must_be_json(http, media_type):
    response = http.post("/v1/jobs", content=b"{}", headers={"Content-Type": media_type})
    problem(response, 415, "UNSUPPORTED_MEDIA")


def test_the_process_stays_light():
    program = "import sys, api.app; print([m for m in ('torch', 'sklearn', 'numpy', 'worker') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_run_as_a_process(tmp_path, redis_url):
    port = free_port()
    environment = os.environ | {"DREAM_HOME": str(tmp_path / "new home"), "REDIS_URL": redis_url}
    command = [sys.executable, "-m", "api", "--port", str(port)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}") as http:
            wait_until_ready(http)
            assert http.get("/v1/jobs").json()["data"] == []
        process.terminate()
        output, _ = process.communicate(timeout=20)
    events = [json.loads(line) for line in output.splitlines()]
    request = next(event for event in events if event["event"] == "http.request")
    assert (request["path"], request["status"], request["level"]) == ("/v1/jobs", 200, "info")
    assert request["request_id"].startswith("req_")


def wait_until_ready(http: httpx2.Client) -> None:
    for _ in range(1200):
        try:
            assert http.get("/readyz").status_code == 200
        except httpx2.ConnectError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError("does not become ready")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "myhost"])
def test_other_machines_are_not_let_in_by_accident(host, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("api.__main__.get_settings", lambda: Settings(home=tmp_path))
    monkeypatch.setattr("api.__main__.configure_logging", lambda: None)
    with pytest.raises(SystemExit) as refusal:
        main(["--host", host])
    assert refusal.value.code == 2
    said = capsys.readouterr().err
    assert f"{host} can be reached from other machines" in said
    assert f"dream admin-key --home {tmp_path}" in said
    assert "--insecure-no-auth" in said


def test_settings_read_host_names(monkeypatch):
    monkeypatch.setenv("DREAM_ALLOWED_HOSTS", "a.example, b.example,")
    assert Settings().allowed_hosts == ("a.example", "b.example")
