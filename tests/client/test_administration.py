from datetime import timedelta

import pytest

from client import ValidationFailed
from jobs import operations, repository
from jobs.tables import Webhook, WebhookDelivery


@pytest.fixture
def hook(client):
    """A webhook that tells of everything."""
    webhook = client.webhooks.create("https://hooks.example.org/dream")
    yield webhook
    client.webhooks.delete(webhook["id"])


@pytest.fixture
def worker(service):
    """A worker that has been heard of."""
    with service.sessions.begin() as session:
        operations.report_worker(
            session,
            "gpu0@host",
            "default",
            {"device": "cuda", "memory_bytes": 85e9, "cpus": 16, "version": "1.2", "x": "y"},
            None,
        )
    return "gpu0@host"


def widest(text):
    return max(map(len, text.splitlines()), default=0)


def test_a_webhook_is_made_listed_and_removed(dream):
    made = dream("webhooks", "create", "https://hooks.example.org/a", "--event", "job.succeeded", "--json").json
    assert made["secret"].startswith("whsec_")

    listed = dream("webhooks")
    assert made["id"][-12:] in listed.out
    assert "job.succeeded" in listed.out
    assert widest(listed.out) <= 80
    assert "secret" not in dream("webhooks", "--json").out.replace("previous_secret", "")
    assert dream("webhooks", "rm", made["id"][-12:]).out == f"{made['id']} is deleted\n"
    assert "dream webhooks create" in dream("webhooks").out


def test_a_secret_is_shown_once_and_rotated(dream, client, hook):
    said = dream("webhooks", "rotate", hook["id"])

    assert "secret whsec_" in said.out
    assert hook["secret"] not in said.out
    assert "not shown again" in said.out
    assert client.webhooks.get(hook["id"])["previous_secret_until"]


def test_an_address_that_was_gone_is_told_again(dream, client, service, hook):
    with service.sessions.begin() as session:
        row = session.get(Webhook, hook["id"])
        row.disabled_at, row.disabled_reason = repository.utcnow(), "the address answered 410 Gone"
    assert "off" in dream("webhooks").out

    assert dream("webhooks", "enable", hook["id"][-12:]).out == f"{hook['id']} is told again\n"

    assert client.webhooks.get(hook["id"])["disabled_at"] is None


def test_an_address_that_is_not_public_is_refused(client, dream):
    with pytest.raises(ValidationFailed, match="public"):
        client.webhooks.create("https://127.0.0.1/")

    refused = dream("webhooks", "create", "http://hooks.example.org/")
    assert refused.code == 1
    assert "url: must begin with https://" in refused.err


def test_deliveries_are_listed_and_sent_again(dream, client, service, hook):
    job = client.jobs.create("digits", "dream", 1)
    service.finish(job.id, service.claim(job.id))

    listed = dream("webhooks", "deliveries", hook["id"])
    assert "job.succeeded" in listed.out
    assert "pending" in listed.out
    assert widest(listed.out) <= 80
    delivery = next(each for each in client.webhooks.deliveries(hook["id"]) if each["event"]["type"] == "job.succeeded")
    assert delivery["event"]["data"]["id"] == job.id
    with service.sessions.begin() as session:
        session.get(WebhookDelivery, delivery["id"]).due_at += timedelta(hours=1)
    again = dream("webhooks", "redeliver", hook["id"], delivery["id"][-12:], "--json").json
    assert again["next_attempt_at"] < (repository.utcnow() + timedelta(minutes=1)).isoformat()


def test_workers_are_listed_and_drained(dream, worker):
    listed = dream("workers")
    assert [line.split()[:2] for line in listed.out.splitlines()[1:]] == [[worker, "free"]]
    assert "cuda, 85.0 GB, 16 cores, dream 1.2, y" in " ".join(dream("workers").out.split())
    assert widest(listed.out) <= 80

    assert f"dream workers undrain {worker}" in dream("workers", "drain", worker).out
    assert "drained" in dream("workers").out
    assert dream("workers", "undrain", worker, "--json").json["draining"] is False
    assert dream("workers", "drain", "nobody").code == 1


def test_queues_are_listed_and_held(dream, job):
    assert [line.split()[:2] for line in dream("queues").out.splitlines()[1:]] == [["default", "open"]]

    assert "dream queues resume default" in dream("queues", "pause", "default").out
    assert "held" in dream("queues").out
    assert dream("queues", "resume", "default", "--json").json["paused_at"] is None


def test_the_audit_log_tells_who_did_what(client, job):
    client.jobs.pause(job.id)

    latest = next(client.operations.audit(limit=1))

    assert (latest["action"], latest["resource"], latest["owner"]) == ("job.paused", job.id, "local")


def test_the_audit_log_is_shown(dream, client, job):
    client.jobs.pause(job.id)

    said = dream("audit", "--limit", 2)

    assert "job.paused" in said.out.splitlines()[1]
    assert job.id[-12:] in said.out
    assert widest(said.out) <= 80
    (found,) = dream("audit", "-n", 1, "--action", "job.submitted", "--owner", "local", "--json").json
    assert found["resource"] == job.id
    assert "Nothing" in dream("audit", "--owner", "nobody").out


def test_an_owner_has_limits_of_their_own(dream, client):
    assert dream("limits", "ann").code == 1  # nobody knows her

    given = dream("limits", "ann", "--set", "max_queued=5", "--set", "storage_bytes=2000000", "--json").json
    assert (given["own"]["max_queued"], given["own"]["storage_bytes"]) == (5, 2_000_000)
    kept = dream("limits", "ann", "--set", "max_queued=null", "--json").json
    assert (kept["own"]["max_queued"], kept["own"]["storage_bytes"]) == (None, 2_000_000)

    said = dream("limits", "ann")
    assert "2.0 MB" in said.out
    assert widest(said.out) <= 80
    assert "max_queud" in dream("limits", "ann", "--set", "max_queud=5").err


def test_usage_of_a_service_without_keys(dream, job):
    said = dream("usage")

    assert said.code == 0
    assert "jobs that wait" in said.out
    assert widest(said.out) <= 80


@pytest.mark.parametrize("group", ["keys", "webhooks", "workers", "queues", "datasets"])
def test_help_of_groups_fits_80_columns(dream, group):
    said = dream(group, "--help")

    assert said.code == 0
    assert widest(said.out) <= 80
