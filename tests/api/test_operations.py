"""What operators see and steer over HTTP: workers, queues, the audit log."""

from datetime import timedelta
from urllib.parse import quote

import pytest

from jobs import operations, repository
from jobs.queue import QUEUE
from jobs.repository import utcnow
from jobs.tables import AuditEntry, WorkerRow
from tests.api.conftest import problem

WORKER = "gpu0@host.example"
NAMES = [WORKER, "host:4711:0", "a worker/with everything@?#%"]


@pytest.fixture
def worker(service):
    def report(worker_id=WORKER, job_id=None, seconds=0):
        service.call(operations.report_worker, worker_id, QUEUE, {"device": "cuda:0"}, job_id)
        with service.sessions.begin() as session:
            session.get(WorkerRow, worker_id).seen_at = utcnow() - timedelta(seconds=seconds)

    return report


def of(http, kind, name):
    key = "id" if kind == "workers" else "name"
    return next(found for found in http.get(f"/v1/{kind}").json()["data"] if found[key] == name)


def address(name):
    return quote(name, safe="")


def test_workers_and_whether_they_are_alive(http, worker, service):
    worker(job_id="job_1")
    worker("gone", seconds=service.settings.lease_s + 1)
    here = of(http, "workers", WORKER)
    assert (here["alive"], here["job_id"], here["draining"], here["queue"]) == (True, "job_1", False, QUEUE)
    assert here["facts"] == {"device": "cuda:0"}
    assert of(http, "workers", "gone")["alive"] is False


@pytest.mark.parametrize("name", NAMES)
def test_drain_a_worker_and_take_it_back(http, worker, service, name):
    worker(name)
    drained = http.post(f"/v1/workers/{address(name)}/drain")
    assert (drained.status_code, drained.json()["id"], drained.json()["draining"]) == (202, name, True)
    assert of(http, "workers", name)["draining"] is True
    back = http.post(f"/v1/workers/{address(name)}/undrain")
    assert (back.status_code, back.json()["draining"]) == (200, False)
    entries = http.get("/v1/audit", params={"limit": 2}).json()["data"]
    assert [(entry["action"], entry["resource"]) for entry in entries] == [
        ("worker.undrained", name),
        ("worker.drained", name),
    ]


def test_workers_that_are_not_there(http):
    for command in ("drain", "undrain"):
        problem(http.post(f"/v1/workers/nobody@nowhere/{command}"), 404, "NOT_FOUND")
        problem(http.post(f"/v1/workers/a%00b/{command}"), 422, "VALIDATION_FAILED")


def test_pause_and_resume_a_queue(http, submit, service, empty):
    job = submit()
    paused = http.post(f"/v1/queues/{QUEUE}/pause")
    assert (paused.status_code, paused.json()["name"], paused.json()["queued"]) == (200, QUEUE, 1)
    assert paused.json()["paused_at"]
    assert http.post(f"/v1/queues/{QUEUE}/pause").json()["paused_at"] == paused.json()["paused_at"]
    assert service.call(repository.claim_next, "worker-1", 60) is None
    resumed = http.post(f"/v1/queues/{QUEUE}/resume")
    assert (resumed.status_code, resumed.json()["paused_at"]) == (200, None)
    assert service.call(repository.claim_next, "worker-1", 60).id == job
    actions = [entry["action"] for entry in http.get("/v1/audit", params={"limit": 3}).json()["data"]]
    assert actions == ["queue.resumed", "queue.paused", "queue.paused"]


def test_queues_that_are_not_there(http):
    for command in ("pause", "resume"):
        problem(http.post(f"/v1/queues/none/{command}"), 404, "NOT_FOUND")


def test_the_audit_log_is_read_by_page_owner_and_action(http, service):
    with service.sessions.begin() as session:
        for number in range(5):
            about = {"owner": "pia", "action": f"test.{number % 2}", "resource": str(number), "at": utcnow()}
            session.add(AuditEntry(key_id=None, request_id="req_1", **about))
    seen, cursor = [], None
    while True:
        page = http.get(
            "/v1/audit", params={"owner": "pia", "limit": 2} | ({"cursor": cursor} if cursor else {})
        ).json()
        seen += [entry["resource"] for entry in page["data"]]
        cursor = page["next_cursor"]
        assert page["has_more"] == bool(cursor)
        if not cursor:
            break
    assert seen == ["4", "3", "2", "1", "0"]
    odd = http.get("/v1/audit", params={"owner": "pia", "action": "test.1"}).json()["data"]
    assert [entry["resource"] for entry in odd] == ["3", "1"]
    assert http.get("/v1/audit", params={"owner": "nobody"}).json() == {
        "data": [], "has_more": False, "next_cursor": None,
    }  # fmt: skip


def test_cursors_of_other_lists_are_refused(http, submit):
    for _ in range(2):
        submit()
    jobs = http.get("/v1/jobs", params={"limit": 1}).json()["next_cursor"]
    for cursor in (jobs, "nonsense"):
        problem(http.get("/v1/audit", params={"cursor": cursor}), 422, "VALIDATION_FAILED")
