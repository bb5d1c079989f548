"""Pause, resume, cancel, do again, change and delete, over HTTP."""

import json
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from api.app import create_app
from jobs import repository
from jobs.lifecycle import Status
from jobs.settings import Settings
from jobs.tables import AuditEntry
from tests.api.conftest import problem, serving

BODY = {"spec": {"dataset": "digits", "method": "dream", "ipc": 1}}


def finish(service, job_id, status=Status.FAILED):
    service.claim(job_id)
    assert service.call(repository.settle, job_id, 1, status, error={"class": "timeout", "code": "X", "message": "x"})


def leave_checkpoint(service, job_id, step, **about):
    directory = service.settings.checkpoints / job_id / f"ckpt-abc-{step:08d}"
    directory.mkdir(parents=True)
    (directory / "state.safetensors").write_bytes(b"tensors")
    facts = {"step": step, "identity": "abc", "seconds": 1.0, "created_at": "2026-01-02T03:04:05+00:00"}
    (directory / "state.json").write_text(json.dumps(facts | {"total": 9, "phase": "distilling", "loss": 0.5} | about))


def test_pause_and_resume_a_waiting_job(http, submit):
    job = submit()
    paused = http.post(f"/v1/jobs/{job}/pause")
    assert (paused.status_code, paused.json()["status"]) == (200, "paused")
    assert paused.json()["timestamps"]["paused_at"]
    resumed = http.post(f"/v1/jobs/{job}/resume")
    assert (resumed.status_code, resumed.json()["status"]) == (202, "queued")


def test_a_running_job_is_asked_to_pause(http, submit, service):
    job = submit()
    service.claim(job)
    asked = http.post(f"/v1/jobs/{job}/pause")
    assert (asked.status_code, asked.json()["status"], asked.headers["retry-after"]) == (202, "pausing", "2")
    refused = problem(http.post(f"/v1/jobs/{job}/resume"), 409, "ILLEGAL_TRANSITION")
    assert (refused["from"], refused["to"], refused["allowed"]) == (
        "pausing", "queued", ["cancelling", "failed", "paused", "succeeded"],
    )  # fmt: skip


@pytest.mark.parametrize("command", ["pause", "resume"])
def test_what_is_over_stays_over(http, submit, service, command):
    job = submit()
    finish(service, job)
    problem(http.post(f"/v1/jobs/{job}/{command}"), 409, "ILLEGAL_TRANSITION")


def test_cancel_a_running_job_now(http, submit, service):
    job = submit()
    service.claim(job)
    assert http.post(f"/v1/jobs/{job}/cancel").json()["status"] == "cancelling"
    cancelled = http.post(f"/v1/jobs/{job}/cancel", params={"mode": "now"})
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
    problem(http.post(f"/v1/jobs/{job}/cancel", params={"mode": "soon"}), 422, "VALIDATION_FAILED")


def test_amend_a_job_in_the_version_that_was_seen(http, submit):
    job = submit()
    etag = http.get(f"/v1/jobs/{job}").headers["etag"]
    changes = {"name": "a better name", "metadata": {"k": "v"}, "priority": "high"}
    changed = http.patch(f"/v1/jobs/{job}", json=changes, headers={"If-Match": etag})
    assert changed.status_code == 200
    assert {name: changed.json()[name] for name in changes} == changes
    assert changed.headers["etag"] == http.get(f"/v1/jobs/{job}").headers["etag"] != etag
    problem(http.patch(f"/v1/jobs/{job}", json=changes, headers={"If-Match": etag}), 412, "PRECONDITION_FAILED")
    problem(http.patch(f"/v1/jobs/{job}", json={}, headers={"If-Match": '"x"'}), 412, "PRECONDITION_FAILED")
    assert http.patch(f"/v1/jobs/{job}", json={"name": None}, headers={"If-Match": "*"}).json()["name"] is None
    kept = http.patch(f"/v1/jobs/{job}", json={}).json()
    assert (kept["metadata"], kept["priority"]) == ({"k": "v"}, "high")


@pytest.mark.parametrize("body", [{"status": "succeeded"}, {"priority": 3}, {"metadata": None}, {"name": "x" * 201}])
def test_refused_amendments(http, submit, body):
    problem(http.patch(f"/v1/jobs/{submit()}", json=body), 422, "VALIDATION_FAILED")


def test_the_priority_of_a_running_job_is_history(http, submit, service):
    job = submit()
    service.claim(job)
    problem(http.patch(f"/v1/jobs/{job}", json={"priority": "high"}), 409, "ILLEGAL_TRANSITION")


def test_delete_a_job_that_is_over(http, submit):
    job = submit()
    problem(http.delete(f"/v1/jobs/{job}"), 409, "JOB_NOT_OVER")
    http.post(f"/v1/jobs/{job}/cancel")
    deleted = http.delete(f"/v1/jobs/{job}")
    assert (deleted.status_code, deleted.content) == (204, b"")
    for path in ("", "/events", "/artifacts", "/checkpoints"):
        problem(http.get(f"/v1/jobs/{job}{path}"), 410, "GONE")
    problem(http.delete(f"/v1/jobs/{job}"), 404, "NOT_FOUND")
    assert job not in [found["id"] for found in http.get("/v1/jobs", params={"limit": 100}).json()["data"]]


def test_do_a_job_again(http, submit, service):
    job = submit(seed=5)
    problem(http.post(f"/v1/jobs/{job}/retry", json={}), 409, "JOB_NOT_OVER")
    finish(service, job)
    again = http.post(f"/v1/jobs/{job}/retry", json={"name": "again"})
    assert again.status_code == 202
    new = again.json()
    assert (new["parent_job_id"], new["parent_step"], new["status"], new["name"]) == (job, None, "queued", "again")
    assert new["resolved_spec"] == http.get(f"/v1/jobs/{job}").json()["resolved_spec"]
    assert again.headers["location"] == f"/v1/jobs/{new['id']}"


def test_go_on_from_a_checkpoint(http, submit, service):
    job = submit()
    finish(service, job)
    problem(http.post(f"/v1/jobs/{job}/retry", json={"from_checkpoint": "latest"}), 409, "NO_CHECKPOINT")
    leave_checkpoint(service, job, 3)
    leave_checkpoint(service, job, 6)
    listed = http.get(f"/v1/jobs/{job}/checkpoints").json()["data"]
    assert [(one["step"], one["total"], one["phase"], one["loss"]) for one in listed] == [
        (3, 9, "distilling", 0.5),
        (6, 9, "distilling", 0.5),
    ]
    assert http.post(f"/v1/jobs/{job}/retry", json={"from_checkpoint": "latest"}).json()["parent_step"] == 6
    assert http.post(f"/v1/jobs/{job}/retry", json={"from_checkpoint": 3}).json()["parent_step"] == 3
    problem(http.post(f"/v1/jobs/{job}/retry", json={"from_checkpoint": 4}), 409, "NO_CHECKPOINT")
    problem(http.post(f"/v1/jobs/{job}/retry", json={"from_checkpoint": True}), 422, "VALIDATION_FAILED")


def test_continue_for_more_iterations(http, submit, service):
    job = submit(params={"outer_iterations": 2})
    finish(service, job, Status.SUCCEEDED)
    leave_checkpoint(service, job, 200)
    longer = http.post(f"/v1/jobs/{job}/retry", json={"more_iterations": 3}).json()
    assert (longer["spec"]["params"]["outer_iterations"], longer["parent_step"]) == (5, 200)
    assert longer["resolved_spec"]["outer_iterations"] == 5


def test_what_has_no_iterations_cannot_be_continued(http, submit, service):
    job = submit(method="herding")
    finish(service, job, Status.SUCCEEDED)
    leave_checkpoint(service, job, 2)
    refused = problem(http.post(f"/v1/jobs/{job}/retry", json={"more_iterations": 3}), 422, "VALIDATION_FAILED")
    assert "herding" in refused["detail"]


def test_a_request_that_is_sent_again_makes_no_second_job(http, service, empty):
    headers = {"Idempotency-Key": "a-key-of-mine"}
    first = http.post("/v1/jobs", json=BODY, headers=headers)
    second = http.post("/v1/jobs", json=BODY, headers=headers)
    assert (second.status_code, second.json()) == (202, first.json())
    assert second.headers["location"] == first.headers["location"]
    assert (first.headers.get("idempotent-replayed"), second.headers["idempotent-replayed"]) == (None, "true")
    assert len(http.get("/v1/jobs").json()["data"]) == 1
    problem(http.post("/v1/jobs", json=BODY | {"name": "x"}, headers=headers), 422, "IDEMPOTENCY_KEY_REUSED")


def test_a_refused_request_uses_up_no_key(http, empty):
    headers = {"Idempotency-Key": "mended"}
    wrong = {"spec": BODY["spec"] | {"ipc": 0}}
    problem(http.post("/v1/jobs", json=wrong, headers=headers), 422, "VALIDATION_FAILED")
    assert http.post("/v1/jobs", json=BODY, headers=headers).status_code == 202


@pytest.mark.parametrize("key", ["", "x" * 256, "with space"])
def test_refused_keys(http, key):
    problem(http.post("/v1/jobs", json=BODY, headers={"Idempotency-Key": key}), 422, "VALIDATION_FAILED")


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_the_same_request_many_times_at_once_makes_one_job(tmp_path, redis_server, request, kind):
    url = request.getfixturevalue("sqlite_url" if kind == "sqlite" else "postgres_url")
    settings = Settings(home=tmp_path / "home", database_url=url, redis_url=redis_server)
    settings.home.mkdir()
    with serving(settings) as service, httpx2.Client(base_url=service.url) as client, ThreadPoolExecutor(8) as pool:
        headers = {"Idempotency-Key": "at-once"}
        answers = list(pool.map(lambda _: client.post("/v1/jobs", json=BODY, headers=headers), range(16)))
        assert {answer.status_code for answer in answers} == {202}
        assert len({answer.json()["id"] for answer in answers}) == 1
        assert sum("idempotent-replayed" in answer.headers for answer in answers) == 15


def test_filters_by_metadata_and_time(http, submit, empty):
    for team in ("vision", "audio"):
        http.post("/v1/jobs", json=BODY | {"metadata": {"team": team, "run": "1"}})
    jobs = http.get("/v1/jobs", params={"metadata[team]": "vision", "metadata[run]": "1"}).json()["data"]
    assert [job["metadata"]["team"] for job in jobs] == ["vision"]
    assert http.get("/v1/jobs", params={"metadata[team]": "vi\x00sion\x7f"}).json()["data"]
    created = jobs[0]["timestamps"]["created_at"]
    after = http.get("/v1/jobs", params={"created_after": created}).json()["data"]
    before = http.get("/v1/jobs", params={"created_before": created}).json()["data"]
    assert ([job["metadata"]["team"] for job in after], before) == (["audio"], [])
    oldest = http.get("/v1/jobs", params={"order": "asc", "limit": 1}).json()
    assert oldest["data"][0]["metadata"]["team"] == "vision"
    rest = http.get("/v1/jobs", params={"order": "asc", "cursor": oldest["next_cursor"]}).json()
    assert [job["metadata"]["team"] for job in rest["data"]] == ["audio"]
    problem(http.get("/v1/jobs", params={"created_after": "yesterday"}), 422, "VALIDATION_FAILED")
    problem(http.get("/v1/jobs", params={"cursor": "nonsense"}), 422, "VALIDATION_FAILED")


def test_what_was_done_is_written_down(http, submit, service):
    job = submit()
    for command in ("pause", "resume", "cancel"):
        http.post(f"/v1/jobs/{job}/{command}")
    http.delete(f"/v1/jobs/{job}")
    with service.sessions() as session:
        entries = session.query(AuditEntry).filter_by(resource=job).order_by(AuditEntry.id).all()
    assert [entry.action.removeprefix("job.") for entry in entries] == [
        "submitted", "paused", "resumed", "cancelled", "deleted",
    ]  # fmt: skip
    assert all(entry.owner == "local" and entry.request_id.startswith("req_") for entry in entries)


def test_nothing_new_is_taken_while_the_disk_is_nearly_full(settings):
    crowded = settings.model_copy(update={"disk_high_water": 1e-9})
    with serving(crowded, create_app(crowded)) as service, httpx2.Client(base_url=service.url) as client:
        refused = client.post("/v1/jobs", json=BODY)
        problem(refused, 503, "OVERLOADED")
        assert refused.headers["retry-after"] == "60"
        assert client.get("/v1/jobs").status_code == 200


def test_no_more_jobs_wait_than_may(settings):
    narrow = settings.model_copy(update={"max_queued": 0})
    with serving(narrow, create_app(narrow)) as service, httpx2.Client(base_url=service.url) as client:
        refused = client.post("/v1/jobs", json=BODY)
        problem(refused, 429, "QUOTA_EXCEEDED")
        assert refused.headers["retry-after"]
