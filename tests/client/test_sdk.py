import threading
import time

import pytest

from client import (
    Client,
    ClientError,
    DatasetMissing,
    IllegalTransition,
    NotFound,
    ServiceUnreachable,
    ValidationFailed,
    WaitTimeout,
)
from tests.fixtures.broker import free_port


def test_a_submitted_job_can_be_read_back(client):
    job = client.jobs.create(
        "digits", "idc", 2, seed=5, params={"factor": 1}, evaluation={"epochs": 3}, name="mine", metadata={"a": "b"}
    )

    found = client.jobs.get(job.id)

    assert (found.status, found.name, found.finished) == ("queued", "mine", False)
    assert found.spec["params"] == {"factor": 1}
    assert found.raw["resolved_spec"]["evaluation"]["epochs"] == 3
    assert found.raw["metadata"] == {"a": "b"}


def test_everything_wrong_with_a_job_is_named(client):
    with pytest.raises(ValidationFailed) as refused:
        client.jobs.create("digits", "dream", 1, params={"factor": 99, "outer_iterations": 0})

    assert refused.value.status == 422
    assert {problem.pointer for problem in refused.value.errors} == {
        "#/spec/params/factor",
        "#/spec/params/outer_iterations",
    }
    assert refused.value.request_id


def test_a_dataset_without_files_is_an_error_of_its_own(client):
    with pytest.raises(DatasetMissing, match="MNIST"):
        client.jobs.create("mnist", "dream", 1)


def test_jobs_come_newest_first_over_several_pages(client):
    made = [client.jobs.create("digits", "dream", 1).id for _ in range(3)]

    assert [job.id for job in client.jobs.list(limit=2)] == made[:0:-1]
    every = [job.id for job in client.jobs.list()]
    assert every[:3] == made[::-1]
    assert len(every) == len(set(every))


def test_more_jobs_than_a_page_holds(client):
    made = [client.jobs.create("digits", "dream", 1, name="many").id for _ in range(105)]

    assert [job.id for job in client.jobs.list(limit=103)] == made[::-1][:103]


def test_cancelling_twice_is_harmless_and_too_late_is_an_error(client, service, job):
    assert client.jobs.cancel(job.id).status == "cancelled"
    assert client.jobs.cancel(job.id).status == "cancelled"

    other = client.jobs.create("digits", "dream", 1)
    service.finish(other.id, service.claim(other.id))
    with pytest.raises(IllegalTransition):
        client.jobs.cancel(other.id)


def test_an_unknown_job_is_not_found(client):
    with pytest.raises(NotFound):
        client.jobs.get(f"job_{'0' * 32}")


def test_waiting_shows_every_event_once_and_gives_the_finished_job(client, service, job):
    seen = []

    def work():
        attempt = service.claim(job.id)
        service.report(job.id, attempt, "phase", phase="distilling")
        time.sleep(1.5)
        service.report(job.id, attempt, "metric", step=1, total=1, loss=0.5)
        service.finish(job.id, attempt)

    threading.Thread(target=work).start()
    done = client.jobs.wait(job.id, timeout=20, on_event=seen.append)

    assert done.status == "succeeded"
    assert done.result_summary["accuracy"]["mean"] == 81.25
    assert [event.seq for event in seen] == list(range(1, len(seen) + 1))
    assert [event.type for event in seen] == ["state", "state", "phase", "metric", "state"]
    assert [event.seq for event in client.jobs.events(job.id, after=3)] == [4, 5]


def test_more_events_than_a_page_holds(client, service, job):
    attempt = service.claim(job.id)
    for step in range(120):
        service.report(job.id, attempt, "metric", step=step, total=120)

    assert len(list(client.jobs.events(job.id))) == 122


def test_waiting_ends_when_the_time_is_up(client, job):
    with pytest.raises(WaitTimeout, match="not finished"):
        client.jobs.wait(job.id, timeout=0.1)


def test_waiting_outlasts_a_restart_of_the_service(client, service, job):
    ended = []
    waiting = threading.Thread(target=lambda: ended.append(client.jobs.wait(job.id, timeout=60)))
    waiting.start()
    service.stop()
    time.sleep(1.5)
    service.start()
    service.fail(job.id, service.claim(job.id))
    waiting.join(30)

    assert ended[0].error["message"] == "lower batch_syn_max"


def test_methods_datasets_and_health(client):
    methods = {method["name"]: method for method in client.methods()}
    assert methods.keys() >= {"idc", "dream", "dream+", "k-center"}
    assert [client.method(name) for name in methods] == list(methods.values())
    datasets = {dataset["name"]: dataset for dataset in client.datasets.builtin()}
    assert datasets["digits"]["available"]
    assert datasets["mnist"]["advice"]
    assert client.health()["status"] == "ready"


@pytest.mark.parametrize("name", ["magic", "dream /+", "idc?x=1", "..", ""])
def test_an_unknown_method_is_not_found(client, name):
    with pytest.raises(NotFound):
        client.method(name)


def test_where_nothing_answers_the_error_says_what_to_do():
    with Client(f"http://127.0.0.1:{free_port()}") as client, pytest.raises(ServiceUnreachable) as unreachable:
        client.methods()

    assert "dream serve" in unreachable.value.advice


@pytest.mark.parametrize("address", ["nonsense", "ftp://here", "http://", "http://[::", "127.0.0.1:8000"])
def test_what_is_no_address_is_refused(address):
    with pytest.raises(ClientError, match="not an address"):
        Client(address)


def test_the_address_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("DREAM_URL", "http://example.org:1234/")
    with Client() as client:
        assert client.base_url == "http://example.org:1234"
