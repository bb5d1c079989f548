import pytest

from client import ValidationFailed
from tests.client.test_results import widest

CHEAP = ("--set", "outer_iterations=2", "--set", "width=8")


@pytest.fixture
def past(client, service):
    """A job like it that has succeeded: it took six seconds."""
    job = client.jobs.create("digits", "dream", 4, params={"outer_iterations": 2, "width": 8})
    service.finish(job.id, service.claim(job.id), seconds={"distil": 5.0, "evaluate": 1.0})
    return job


def test_an_estimate_says_what_a_job_would_take_and_submits_nothing(client, past):
    before = next(client.jobs.list(limit=1)).id

    found = client.jobs.estimate("digits", "dream", 4, params={"outer_iterations": 4, "width": 8})

    assert found["seconds"]["low"] < found["seconds"]["likely"] < found["seconds"]["high"]
    assert found["steps"] == 2 * past.raw["resolved_spec"]["inner_iterations"] * 2
    assert found["memory_bytes"] > found["disk_bytes"] > 0
    assert next(client.jobs.list(limit=1)).id == before


def test_an_estimate_on_the_command_line(dream, past):
    said = dream("estimate", "-d", "digits", "--ipc", 4, *CHEAP)

    lines = [" ".join(line.split()) for line in said.out.splitlines()]
    assert lines[0] == "what dream · digits · ipc 4 · seed 0"
    assert lines[2].startswith("time about 6 s, between ")
    assert lines[3].endswith(": same method, dataset and images per class")
    assert "dream submit" in lines[-1]
    assert widest(said.out) <= 80
    assert dream("estimate", "-d", "digits", *CHEAP, "--json").json["queue"]["position"] >= 0


def test_an_estimate_is_refused_as_the_job_would_be(client, dream):
    with pytest.raises(ValidationFailed):
        client.jobs.estimate("digits", "dream", 0)

    refused = dream("estimate", "-d", "digits", "--set", "factor=8")
    assert (refused.code, refused.out) == (1, "")
    assert "params.factor: " in refused.err
