import logging
import uuid

import pytest

from client import Client, ClientError, Overloaded, ServiceUnreachable, Unauthenticated, errors
from client.transport import Transport
from tests.fixtures.broker import free_port

KEY = "drk_" + "S3cret" * 7 + "x"


def named(client, name):
    return [job.id for job in client.jobs.list(limit=50) if job.name == name]


@pytest.mark.parametrize("times", [1, 2])
def test_a_submit_whose_answer_is_lost_makes_one_job(client, cutting_proxy, times):
    name = f"lost {uuid.uuid4()}"
    waits = []

    with Client(cutting_proxy(0, times), on_wait=lambda pause, _: waits.append(pause)) as cut:
        job = cut.jobs.create("digits", "dream", 1, name=name)

    assert named(client, name) == [job.id]
    assert len(waits) == times
    assert waits == sorted(waits)


def test_a_service_that_is_killed_between_the_commit_and_the_answer_has_one_job(client, service, cutting_proxy):
    name = f"killed {uuid.uuid4()}"

    def restart():
        service.kill()
        service.start()

    with Client(cutting_proxy(0, 1, then=restart)) as cut:
        job = cut.jobs.create("digits", "dream", 1, name=name)

    assert named(client, name) == [job.id]


def test_a_retry_whose_answer_is_lost_makes_one_job(client, cutting_proxy, job):
    client.jobs.cancel(job.id)
    name = f"again {uuid.uuid4()}"

    with Client(cutting_proxy(0, 1)) as cut:
        again = cut.jobs.retry(job.id, name=name)

    assert named(client, name) == [again.id]


def test_a_request_that_may_not_be_repeated_is_not(client, cutting_proxy, job):
    with Client(cutting_proxy(0, 1)) as cut, pytest.raises(ServiceUnreachable) as lost:
        cut.jobs.pause(job.id)

    assert "may have been done" in lost.value.advice
    assert client.jobs.get(job.id).status == "paused"


def test_a_broken_answer_is_asked_for_again(cutting_proxy, job):
    with Client(cutting_proxy(30, 2)) as cut:
        assert cut.jobs.get(job.id).id == job.id


def test_a_submit_that_stays_without_answer_says_that_the_job_may_be_there(client, cutting_proxy):
    name = f"unknown {uuid.uuid4()}"

    with Client(cutting_proxy(0, 100), patience=1) as cut, pytest.raises(ServiceUnreachable) as lost:
        cut.jobs.create("digits", "dream", 1, name=name)

    assert "dream ls" in lost.value.advice
    assert len(named(client, name)) == 1


def test_the_same_idempotency_key_gives_the_same_job(client):
    key = str(uuid.uuid4())

    made = {client.jobs.create("digits", "dream", 1, idempotency_key=key).id for _ in range(3)}

    assert len(made) == 1
    with pytest.raises(errors.ApiError) as reused:
        client.jobs.create("digits", "dream", 2, idempotency_key=key)
    assert reused.value.code == "IDEMPOTENCY_KEY_REUSED"


def test_where_nothing_listens_nothing_is_waited_for():
    waits = []
    with (
        Client(f"http://127.0.0.1:{free_port()}", on_wait=lambda *_: waits.append(1)) as client,
        pytest.raises(ServiceUnreachable) as away,
    ):
        client.jobs.create("digits", "dream", 1)

    assert (waits, away.value.sent) == ([], False)
    assert "dream serve" in away.value.advice


def test_the_key_is_shown_nowhere(service, caplog, monkeypatch):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("DREAM_API_KEY", KEY)

    with Client(service.url) as client:
        said = [repr(client), repr(client.jobs), repr(vars(client._transport)), repr(vars(client._transport._http))]
        with pytest.raises(Unauthenticated) as refused:
            client.methods()

    said += [str(refused.value), repr(refused.value), repr(vars(refused.value)), caplog.text]
    assert not any(KEY in text for text in said)


@pytest.mark.parametrize("key", ["ключ", "two words", "a\nb"])
def test_what_cannot_be_a_key_is_refused_without_showing_it(key):
    with pytest.raises(ClientError) as refused:
        Transport(api_key=key)

    assert key not in str(refused.value)
    assert "DREAM_API_KEY" in refused.value.advice


def test_an_address_with_a_password_is_refused_without_showing_it():
    with pytest.raises(ClientError) as refused:
        Transport("http://me:hunter2@example.org")

    assert "hunter2" not in str(refused.value) + refused.value.advice


def test_every_problem_of_the_service_has_an_exception_of_its_own():
    from api.problems import KINDS

    mistakes = {"BAD_REQUEST", "HOST_NOT_ALLOWED", "METHOD_NOT_ALLOWED", "UNSUPPORTED_MEDIA", "RANGE_NOT_SATISFIABLE"}
    assert KINDS.keys() - errors.BY_CODE.keys() == mistakes | {"IDEMPOTENCY_KEY_REUSED", "INTERNAL"}


@pytest.mark.parametrize(
    ("status", "kind"), [(401, errors.Unauthenticated), (412, errors.PreconditionFailed), (503, Overloaded)]
)
def test_what_answers_in_the_services_place_is_told_by_its_status(status, kind):
    error = errors.from_problem(status, {}, "7")

    assert type(error) is kind
    assert error.retry_after_s == 7
    assert error.advice
