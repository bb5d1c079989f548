"""Jobs over HTTP: what a user can do, and everything a user can get wrong."""

import re

import httpx2
import pytest
import redis

from jobs import repository
from jobs.dispatcher import tick
from jobs.lifecycle import Status
from jobs.operations import report_worker
from jobs.queue import QUEUE, Bell
from jobs.settings import Settings
from jobs.tables import WorkerRow
from tests.api.conftest import problem, serving
from tests.fixtures.cluster import until

GOOD = {"dataset": "digits", "method": "dream", "ipc": 1}


def report(kind: str, **data) -> dict:
    return {"type": kind, "created_at": "2026-01-02T03:04:05Z", "data": data}


def test_submit(http, redis_url):
    body = {
        "spec": GOOD | {"params": {"outer_iterations": 2}, "evaluation": {"epochs": 5}},
        "name": "first try",
        "metadata": {"team": "vision"},
    }
    response = http.post("/v1/jobs", json=body)
    assert response.status_code == 202
    job = response.json()
    assert re.fullmatch(r"job_[0-9a-f]{32}", job["id"])
    assert response.headers["location"] == job["urls"]["self"] == f"/v1/jobs/{job['id']}"
    assert response.headers["retry-after"] == "2"
    assert (job["object"], job["status"], job["name"]) == ("distillation.job", "queued", "first try")
    assert job["spec"]["resources"] == {"gpus": 1, "max_runtime_s": None, "gpu_class": None}
    assert job["resolved_spec"]["outer_iterations"] == 2
    assert job["resolved_spec"]["evaluation"]["epochs"] == 5
    assert job["metadata"] == {"team": "vision"}
    assert job["timestamps"]["created_at"].endswith("Z")
    assert (job["attempt"], job["retries_left"], job["version"], job["error"]) == (0, 2, 1, None)
    with redis.Redis.from_url(redis_url) as client:
        assert client.brpop([QUEUE], timeout=5)


def test_a_job_for_a_class_of_gpu_that_nobody_has_is_taken_and_told_so(http, service):
    spec = GOOD | {"resources": {"gpu_class": "a100"}}
    job = http.post("/v1/jobs", json={"spec": spec}).json()
    assert (job["status"], job["status_reason"]) == ("queued", "no_worker")
    (said,) = http.get(job["urls"]["events"], params={"types": "warning"}).json()["data"]
    assert said["data"]["code"] == "NO_WORKER"
    service.call(report_worker, "worker-1", "gpu.a100", {})
    again = http.post("/v1/jobs", json={"spec": spec}).json()
    assert (again["status"], again["status_reason"]) == ("queued", None)
    with service.sessions.begin() as session:
        session.delete(session.get(WorkerRow, "worker-1"))


@pytest.mark.parametrize(
    ("spec", "pointer", "words"),
    [
        (GOOD | {"dataset": "imagenet21k"}, "#/spec/dataset", "there is no dataset 'imagenet21k'"),
        (GOOD | {"method": "magic"}, "#/spec/method", "there is no method 'magic'"),
        (GOOD | {"ipc": 0}, "#/spec/ipc", "greater than or equal to 1"),
        (GOOD | {"ipc": 10**6}, "#/spec/ipc", "the smallest class of digits has only"),
        (GOOD | {"ipc": "1"}, "#/spec/ipc", "valid integer"),
        (GOOD | {"ipc": True}, "#/spec/ipc", "valid integer"),
        (GOOD | {"seed": -1}, "#/spec/seed", "greater than or equal to 0"),
        (GOOD | {"seed": 2**63}, "#/spec/seed", "less than"),
        (GOOD | {"ipc": 10**400}, "#/spec/ipc", "less than"),
        (GOOD | {"dataset": "folder:x", "params": {"image_size": 10**200}}, "#/spec/params/image_size", "less than"),
        (GOOD | {"params": {"factor": 5}}, "#/spec/params/factor", "does not fit"),
        (GOOD | {"params": {"factr": 2}}, "#/spec/params/factr", "not permitted"),
        (GOOD | {"params": {"seed": 2}}, "#/spec/params/seed", "top level"),
        (GOOD | {"params": []}, "#/spec/params", "valid dictionary"),
        (GOOD | {"evaluation": {"epochs": 0}}, "#/spec/evaluation/epochs", "greater than or equal to 1"),
        (GOOD | {"eval": {}}, "#/spec/eval", "not permitted"),
        (GOOD | {"resources": {"gpu_class": "A 100"}}, "#/spec/resources/gpu_class", "pattern"),
        (GOOD | {"resources": {"max_runtime_s": 0}}, "#/spec/resources/max_runtime_s", "greater than"),
        (GOOD | {"resources": {"gpus": 0}}, "#/spec/resources/gpus", "greater than or equal to 1"),
        (GOOD | {"resources": {"gpus": 11}}, "#/spec/resources/gpus", "digits has only 10"),
        (GOOD | {"method": "mtt", "resources": {"gpus": 2}}, "#/spec/resources/gpus", "of all classes at once"),
        ({"method": "dream", "ipc": 1}, "#/spec/dataset", "required"),
        (GOOD | {"dataset": "folder:../secrets"}, "#/spec/dataset", "without '..'"),
        (GOOD | {"dataset": "folder:/etc"}, "#/spec/dataset", "relative"),
        (GOOD | {"dataset": "folder:"}, "#/spec/dataset", "there is no dataset"),
        (GOOD | {"dataset": "x" * 256}, "#/spec/dataset", "at most 255"),
    ],
)
def test_refused_specs(http, spec, pointer, words):
    document = problem(http.post("/v1/jobs", json={"spec": spec}), 422, "VALIDATION_FAILED")
    assert pointer in [error["pointer"] for error in document["errors"]]
    assert words in document["detail"]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "#/spec"),
        ([], "#"),
        ({"spec": GOOD, "nmae": "x"}, "#/nmae"),
        ({"spec": GOOD, "name": "a\x00b"}, "#/name"),
        ({"spec": GOOD, "name": "x" * 201}, "#/name"),
        ({"spec": GOOD, "metadata": {"a": 1}}, "#/metadata/a"),
        ({"spec": GOOD, "metadata": {str(n): "" for n in range(17)}}, "#/metadata"),
        ({"spec": GOOD, "metadata": {"k": "x" * 513}}, "#/metadata/k"),
    ],
)
def test_refused_bodies(http, body, pointer):
    document = problem(http.post("/v1/jobs", json=body), 422, "VALIDATION_FAILED")
    assert pointer in [error["pointer"] for error in document["errors"]]


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b'{"spec": ', 422, "VALIDATION_FAILED"),
        (b"", 422, "VALIDATION_FAILED"),
        (b"\xff\xfe", 422, "VALIDATION_FAILED"),
        (b'"\xff"', 400, "BAD_REQUEST"),
        (b"[" * 100_000, 400, "BAD_REQUEST"),
        (b'{"spec": {"dataset": "\\ud800", "method": "dream", "ipc": 1}}', 422, "VALIDATION_FAILED"),
        (
            b'{"spec": {"dataset": "digits", "method": "dream", "ipc": 1, "params": {"\\ud800": 1}}}',
            422,
            "VALIDATION_FAILED",
        ),
        (
            b'{"spec": {"dataset": "digits", "method": "dream", "ipc": 1, "params": {"lr_net": NaN}}}',
            422,
            "VALIDATION_FAILED",
        ),
        (
            b'{"spec": {"dataset": "digits", "method": "dream", "ipc": 1, "params": {"weight_decay_net": 1e999}}}',
            422,
            "VALIDATION_FAILED",
        ),
        (b" " * (1 << 20) + b"{}", 413, "PAYLOAD_TOO_LARGE"),
    ],
)
def test_broken_bodies(http, content, status, code):
    response = http.post("/v1/jobs", content=content, headers={"Content-Type": "application/json"})
    problem(response, status, code)


def test_a_large_body_without_length_is_cut_off(http):
    chunks = (b" " * 65536 for _ in range(32))
    response = http.post("/v1/jobs", content=chunks, headers={"Content-Type": "application/json"})
    problem(response, 413, "PAYLOAD_TOO_LARGE")


def test_missing_dataset_is_said_at_once(http, service):
    document = problem(http.post("/v1/jobs", json={"spec": GOOD | {"dataset": "cifar10"}}), 422, "DATASET_MISSING")
    assert "cifar-10-batches-py" in document["detail"]
    assert str(service.settings.home) not in document["detail"]
    assert "<data>" in document["detail"]
    assert document["errors"][0]["pointer"] == "#/spec/dataset"
    own = problem(http.post("/v1/jobs", json={"spec": GOOD | {"dataset": "folder:mine"}}), 422, "DATASET_MISSING")
    assert "mine" in own["detail"]


def test_datasets_that_may_be_downloaded_are_accepted(settings):
    with serving(settings.model_copy(update={"allow_download": True})) as service:
        assert httpx2.post(f"{service.url}/v1/jobs", json={"spec": GOOD | {"dataset": "cifar10"}}).status_code == 202
        response = httpx2.post(f"{service.url}/v1/jobs", json={"spec": GOOD | {"dataset": "folder:mine"}})
        problem(response, 422, "DATASET_MISSING")


@pytest.mark.usefixtures("empty")
def test_submit_without_a_broker(settings, dead_redis_url, redis_url):
    with serving(settings.model_copy(update={"redis_url": dead_redis_url})) as service:
        response = httpx2.post(f"{service.url}/v1/jobs", json={"spec": GOOD})
        assert response.status_code == 202
        assert response.elapsed.total_seconds() < 1.5
        job_id = response.json()["id"]
        until(lambda: tick(service.sessions, Bell(redis_url)).rung == [job_id], "it is rung for again")


def test_poll_with_etag(http, submit, service):
    url = f"/v1/jobs/{submit()}"
    first = http.get(url)
    etag = first.headers["etag"]
    assert etag == 'W/"1"'
    assert first.headers["retry-after"] == "2"
    unchanged = http.get(url, headers={"If-None-Match": f'"other", {etag}'})
    assert (unchanged.status_code, unchanged.content, unchanged.headers["etag"]) == (304, b"", etag)
    service.claim(first.json()["id"])
    changed = http.get(url, headers={"If-None-Match": etag})
    assert (changed.status_code, changed.json()["status"]) == (200, "running")


def test_a_finished_job(http, submit, service):
    job_id = submit()
    service.succeed(job_id, {"a.txt": b"a"})
    response = http.get(f"/v1/jobs/{job_id}")
    assert "retry-after" not in response.headers
    job = response.json()
    assert job["status"] == "succeeded"
    assert job["result_summary"]["accuracy"]["mean"] == 61.0
    assert job["timestamps"]["finished_at"] >= job["timestamps"]["started_at"]


def test_a_failed_job_says_why(http, submit, service):
    job_id = submit()
    service.claim(job_id)
    error = {"class": "out_of_memory", "code": "OUT_OF_MEMORY", "message": "batch_syn_max 64 needs less"}
    service.call(repository.settle, job_id, 1, Status.FAILED, error=error)
    assert http.get(f"/v1/jobs/{job_id}").json()["error"] == error


def test_progress(http, submit, service):
    job_id = submit()
    service.claim(job_id)
    reports = [report("phase", phase="distilling"), report("metric", step=3, total=4, loss=0.1, eta_s=1.5)]
    service.call(repository.append_events, job_id, 1, reports)
    job = http.get(f"/v1/jobs/{job_id}").json()
    assert job["phase"] == "distilling"
    assert job["progress"] == {"step": 3, "total": 4, "ratio": 0.75, "eta_s": 1.5}


@pytest.mark.parametrize("job_id", ["job_" + "0" * 32, "job_x", "%00", "..", "1' OR '1'='1", "😀"])
@pytest.mark.parametrize("rest", ["", "/events", "/artifacts", "/artifacts/x"])
def test_unknown_jobs(http, job_id, rest):
    assert problem(http.get(f"/v1/jobs/{job_id}{rest}"), 404, "NOT_FOUND")


def test_cancel_a_queued_job(http, submit):
    job_id = submit()
    response = http.post(f"/v1/jobs/{job_id}/cancel")
    assert (response.status_code, response.json()["status"]) == (200, "cancelled")
    again = http.post(f"/v1/jobs/{job_id}/cancel")
    assert (again.status_code, again.json()["version"]) == (200, response.json()["version"])


def test_cancel_a_running_job(http, submit, service):
    job_id = submit()
    service.claim(job_id)
    for _ in range(2):
        response = http.post(f"/v1/jobs/{job_id}/cancel", json={})
        assert (response.status_code, response.json()["status"]) == (202, "cancelling")
        assert response.headers["retry-after"] == "2"


def test_cancel_too_late(http, submit, service):
    job_id = submit()
    service.succeed(job_id, {"a.txt": b"a"})
    document = problem(http.post(f"/v1/jobs/{job_id}/cancel"), 409, "ILLEGAL_TRANSITION")
    assert (document["from"], document["to"], document["allowed"]) == ("succeeded", "cancelled", [])
    problem(http.post("/v1/jobs/job_" + "0" * 32 + "/cancel"), 404, "NOT_FOUND")


@pytest.mark.usefixtures("empty")
def test_list_in_pages(http, submit):
    submitted = [submit(method=method) for method in ("dream", "idc", "dream")]
    first = http.get("/v1/jobs", params={"limit": 2}).json()
    assert [job["id"] for job in first["data"]] == submitted[:0:-1]
    assert first["has_more"]
    submit()
    rest = http.get("/v1/jobs", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [job["id"] for job in rest["data"]] == submitted[:1]
    assert (rest["has_more"], rest["next_cursor"]) == (False, None)


@pytest.mark.usefixtures("empty")
def test_list_with_filters(http, submit):
    idc, dream = submit(method="idc"), submit()
    http.post(f"/v1/jobs/{dream}/cancel")

    def ids(**params) -> list[str]:
        return [job["id"] for job in http.get("/v1/jobs", params=params).json()["data"]]

    assert ids(method="idc") == [idc]
    assert ids(status="cancelled") == [dream]
    assert ids(status=["cancelled", "queued"]) == [dream, idc]
    assert ids(dataset="mnist") == []
    assert ids(limit=1000) == [dream, idc]


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("limit=0", "?limit"),
        ("limit=x", "?limit"),
        ("status=done", "?status.0"),
        ("cursor=abc", "?cursor"),
        ("cursor=WzEsMl0=", "?cursor"),
        ("dataset=%00", "?dataset"),
        ("staus=queued", "?staus"),
    ],
)
def test_refused_queries(http, query, pointer):
    document = problem(http.get(f"/v1/jobs?{query}"), 422, "VALIDATION_FAILED")
    assert document["errors"][0]["pointer"] == pointer


def test_events_in_pages(http, submit, service):
    job_id = submit()
    service.claim(job_id)
    reports = [report("metric", step=step, total=3, loss=1.0, eta_s=None) for step in (1, 2, 3)]
    service.call(repository.append_events, job_id, 1, reports)
    first = http.get(f"/v1/jobs/{job_id}/events", params={"limit": 3}).json()
    assert [event["seq"] for event in first["data"]] == [1, 2, 3]
    assert first["data"][1]["data"] == {"from": "queued", "to": "running", "reason": None, "worker": "worker-1"}
    assert (first["has_more"], first["next_after"]) == (True, 3)
    rest = http.get(f"/v1/jobs/{job_id}/events", params={"after": 3}).json()
    assert [event["data"]["step"] for event in rest["data"]] == [2, 3]
    assert (rest["has_more"], rest["next_after"]) == (False, 5)
    none = http.get(f"/v1/jobs/{job_id}/events", params={"after": 5}).json()
    assert (none["data"], none["next_after"]) == ([], 5)
    problem(http.get(f"/v1/jobs/{job_id}/events?after=-1"), 422, "VALIDATION_FAILED")


@pytest.mark.usefixtures("empty")
def test_refused_specs_leave_nothing_behind(http):
    http.post("/v1/jobs", json={"spec": GOOD | {"ipc": 0}})
    assert http.get("/v1/jobs").json() == {"data": [], "has_more": False, "next_cursor": None}


def test_on_postgresql(settings, postgres_url):
    with (
        serving(settings.model_copy(update={"database_url": postgres_url})) as service,
        httpx2.Client(base_url=service.url) as http,
    ):
        job = http.post("/v1/jobs", json={"spec": GOOD, "metadata": {"nul": "a\x00b"}}).json()
        assert http.get(job["urls"]["self"]).json() == job
        assert job["metadata"] == {"nul": "a\x00b"}
        assert [found["id"] for found in http.get("/v1/jobs?status=queued").json()["data"]] == [job["id"]]
        problem(http.get("/v1/jobs/%00"), 404, "NOT_FOUND")
        problem(http.get("/v1/jobs?method=%00"), 422, "VALIDATION_FAILED")
        assert http.post(job["urls"]["cancel"]).json()["status"] == "cancelled"


def test_a_database_that_is_away(settings: Settings):
    with serving(settings.model_copy(update={"database_url": "postgresql://127.0.0.1:1/none"})) as service:
        response = httpx2.get(f"{service.url}/v1/jobs")
        assert response.headers["retry-after"] == "5"
        assert problem(response, 503, "OVERLOADED")["retry_after_s"] == 5
        ready = httpx2.get(f"{service.url}/readyz")
        assert (ready.status_code, ready.json()["database"]) == (503, "unreachable")
