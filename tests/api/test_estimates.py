"""What a job would take, before it is submitted."""

from jobs import repository
from jobs.lifecycle import Status
from jobs.operations import report_worker
from jobs.queue import QUEUE
from jobs.repository import utcnow
from jobs.tables import WorkerRow
from tests.api.conftest import problem

SPEC = {"dataset": "digits", "method": "dream", "ipc": 1, "params": {"outer_iterations": 2}}


def estimate(http, **changes):
    answer = http.post("/v1/estimates", json={"spec": SPEC | changes})
    assert answer.status_code == 200, answer.text
    return answer.json()


def finished(service, job_id, distil, evaluate=10.0):
    service.claim(job_id)
    summary = {"accuracy": {"mean": 60.0}, "seconds": {"distil": distil, "evaluate": evaluate}}
    assert service.call(repository.settle, job_id, 1, Status.SUCCEEDED, result_summary=summary)


def test_without_past_jobs_the_time_is_not_known(http, empty):
    found = estimate(http)
    assert (found["seconds"], found["steps"], found["queue"]) == (None, 200, {"position": 0})
    assert found["resolved_spec"]["outer_iterations"] == 2
    assert found["memory_bytes"] > 100 << 20
    assert found["disk_bytes"] > 1 << 20
    assert "no job has succeeded yet" in found["note"]
    assert http.get("/v1/jobs").json()["data"] == []


def test_past_jobs_say_how_long_it_takes(http, submit, service, empty):
    for distil in (40.0, 50.0, 80.0):
        finished(service, submit(params={"outer_iterations": 2}), distil)
    same = estimate(http)["seconds"]
    assert (same["likely"], same["runs"]) == (60.0, 3)
    assert same["low"] < 50
    assert same["high"] > 90
    longer = estimate(http, params={"outer_iterations": 20})["seconds"]
    assert 9 * 50 < longer["likely"] < 11 * 50 + 10
    other = estimate(http, method="idc")["seconds"]
    assert other["basis"] == "any job"
    assert other["high"] / other["low"] > same["high"] / same["low"]


def test_place_in_the_queue(http, submit, empty):
    for _ in range(3):
        submit()
    assert estimate(http)["queue"] == {"position": 3}
    urgent = http.post("/v1/estimates", json={"spec": SPEC, "priority": "high"}).json()
    assert urgent["queue"] == {"position": 0}


def test_whether_a_worker_has_the_memory(http, service):
    with service.sessions.begin() as session:
        session.query(WorkerRow).delete()
    assert estimate(http)["fits"] is None
    service.call(report_worker, "small", QUEUE, {"memory_bytes": 1 << 20}, None)
    assert estimate(http)["fits"] is False
    service.call(report_worker, "large", QUEUE, {"memory_bytes": 1 << 40}, None)
    assert estimate(http)["fits"] is True
    with service.sessions.begin() as session:
        session.get(WorkerRow, "large").seen_at = utcnow().replace(year=2020)
    assert estimate(http)["fits"] is False


def test_it_is_refused_as_the_job_would_be(http):
    problem(http.post("/v1/estimates", json={"spec": SPEC | {"ipc": 0}}), 422, "VALIDATION_FAILED")
    problem(http.post("/v1/estimates", json={"spec": SPEC | {"dataset": "folder:none"}}), 422, "DATASET_MISSING")
