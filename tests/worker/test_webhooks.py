"""Webhook messages on their way, to real receivers, good and bad."""

import ssl
from datetime import timedelta
from functools import partial
from threading import Event

import pytest
import trustme
from sqlalchemy import update
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError

from jobs import metrics, outbox, webhooks
from jobs.outbox import BACKOFF, EventType
from jobs.repository import utcnow
from jobs.secrets import server_secret
from jobs.tables import Webhook, WebhookDelivery
from tests.worker.receiver import drip, endless_body, hang, receiving, redirect
from worker.egress import post
from worker.webhooks import deliver_due


@pytest.fixture
def settings(settings):
    """Those of a developer: receivers are on the loopback."""
    return settings.model_copy(update={"webhook_allow_private": True})


@pytest.fixture
def listen(sessions):
    def listen(url, owner="local"):
        with sessions.begin() as session:
            return webhooks.create_webhook(session, owner, url)

    return listen


@pytest.fixture
def tell(sessions):
    def tell(subject="job_1", owner="local"):
        with sessions.begin() as session:
            outbox.enqueue(session, owner, EventType.JOB_SUCCEEDED, subject, utcnow())

    return tell


@pytest.fixture
def deliveries(sessions):
    """What has become of the messages to a webhook, the newest first."""

    def deliveries(webhook):
        with sessions() as session:
            return outbox.list_deliveries(session, webhook.id, 100)[0]

    return deliveries


@pytest.fixture
def wait(sessions):
    """Have every message become due."""

    def wait():
        with sessions.begin() as session:
            session.execute(update(WebhookDelivery).values(due_at=utcnow()))

    return wait


def secrets_of(sessions, settings, webhook):
    with sessions() as session:
        return webhooks.signing_secrets(session.get(Webhook, webhook.id), server_secret(settings), utcnow())


def test_a_message_arrives_over_tls_and_its_signature_holds(sessions, settings, listen, tell, deliveries):
    authority, tls = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("hooks.example.org").configure_cert(tls)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    send = partial(post, tls=trusting, resolve=lambda *_: ["127.0.0.1"])
    with receiving(200, tls=tls) as receiver:
        webhook = listen(receiver.url(scheme="https", host="hooks.example.org"))
        tell("job_7")
        assert deliver_due(sessions, settings, send) == 1
        assert deliver_due(sessions, settings, send) == 0
    [received], [delivery] = receiver.received, deliveries(webhook)
    [secret] = secrets_of(sessions, settings, webhook)
    event = Verifier(secret).verify(received.body, received.headers)
    assert (event["type"], event["data"]) == ("job.succeeded", {"id": "job_7"})
    assert event["id"] == received.headers["webhook-id"] == delivery.message_id
    assert received.headers["content-type"] == "application/json"
    assert (delivery.status, delivery.attempts, delivery.response_status, delivery.error) == ("delivered", 1, 200, None)
    with pytest.raises(WebhookVerificationError):
        Verifier(secret).verify(received.body.replace(b"job_7", b"job_8"), received.headers)


def test_while_a_rotation_is_young_both_secrets_verify(sessions, settings, listen, tell):
    with receiving() as receiver:
        webhook = listen(receiver.url())
        [old] = secrets_of(sessions, settings, webhook)
        with sessions.begin() as session:
            webhooks.rotate_secret(session, webhook.id)
        tell()
        deliver_due(sessions, settings)
        new, _ = secrets_of(sessions, settings, webhook)
        with sessions.begin() as session:
            session.get(Webhook, webhook.id).previous_until = utcnow()
        tell()
        deliver_due(sessions, settings)
    young, later = receiver.received
    for secret in (old, new):
        Verifier(secret).verify(young.body, young.headers)
    Verifier(new).verify(later.body, later.headers)
    with pytest.raises(WebhookVerificationError):
        Verifier(old).verify(later.body, later.headers)


def test_a_receiver_that_recovers_gets_the_same_message(sessions, settings, listen, tell, deliveries, wait):
    with receiving(500, 200) as receiver:
        webhook = listen(receiver.url())
        tell()
        assert deliver_due(sessions, settings) == 1
        [delivery] = deliveries(webhook)
        assert (delivery.status, delivery.response_status) == ("pending", 500)
        assert delivery.error == "the answer was 500"
        assert timedelta(0) < delivery.due_at - utcnow() <= BACKOFF[0]
        assert deliver_due(sessions, settings) == 0
        wait()
        assert deliver_due(sessions, settings) == 1
    [delivery] = deliveries(webhook)
    assert (delivery.status, delivery.attempts, delivery.error) == ("delivered", 2, None)
    first, second = receiver.received
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.body == second.body


def test_an_answer_to_an_attempt_that_was_overtaken_is_counted_as_that(sessions, settings, listen, tell):
    webhook, before = listen("http://127.0.0.1:1/"), overtaken()

    def send(*_, **__):
        with sessions.begin() as session:
            webhooks.delete_webhook(session, webhook.id)  # meanwhile
        return 200

    tell()
    assert deliver_due(sessions, settings, send) == 1
    assert overtaken() == before + 1
    assert metrics.REGISTRY.get_sample_value("dream_webhook_deliveries_total", {"outcome": "None"}) is None


def overtaken():
    return metrics.REGISTRY.get_sample_value("dream_webhook_deliveries_total", {"outcome": "overtaken"}) or 0


def test_a_receiver_that_is_gone_is_left_alone(sessions, settings, listen, tell, deliveries, wait):
    with receiving(410) as receiver:
        webhook = listen(receiver.url())
        tell()
        deliver_due(sessions, settings)
        tell()
        wait()
        assert deliver_due(sessions, settings) == 0
    assert [(one.status, one.response_status) for one in deliveries(webhook)] == [("failed", 410)]
    with sessions() as session:
        assert session.get(Webhook, webhook.id).disabled_reason == "the address answered 410 Gone"


@pytest.mark.parametrize(
    ("answer", "status", "error"),
    [
        (redirect, 307, "the answer was 307: nothing is followed"),
        (hang, None, "no answer within 0.4 seconds"),
        (drip, None, "no answer within 0.4 seconds"),
    ],
)
def test_what_is_no_delivery_is_tried_again(sessions, settings, listen, tell, deliveries, answer, status, error):
    with receiving(answer) as receiver:
        webhook = listen(receiver.url())
        tell()
        deliver_due(sessions, settings, partial(post, limit_s=0.4))
    [delivery] = deliveries(webhook)
    assert (delivery.status, delivery.response_status, delivery.error) == ("pending", status, error)
    assert len(receiver.received) == 1


def test_of_a_huge_answer_the_status_counts(sessions, settings, listen, tell, deliveries):
    with receiving(endless_body) as receiver:
        webhook = listen(receiver.url())
        tell()
        deliver_due(sessions, settings)
    assert [one.status for one in deliveries(webhook)] == ["delivered"]


def test_nothing_is_sent_to_a_private_address_however_it_is_named(sessions, settings, listen, tell, deliveries):
    strict = settings.model_copy(update={"webhook_allow_private": False})
    with receiving() as receiver:
        literal, named = listen(receiver.url()), listen("https://hooks.example.org/")
        tell()
        assert deliver_due(sessions, strict, partial(post, resolve=lambda *_: ["8.8.8.8", "127.0.0.1"])) == 2
    assert receiver.received == []
    assert [one.error for one in deliveries(literal)] == ["must begin with https://"]
    assert [one.error for one in deliveries(named)] == ["the host has an address that is not of the public internet"]


def test_a_slow_receiver_does_not_hold_up_the_others(sessions, settings, listen, tell, deliveries):
    arrived = Event()

    def quickly(handler):
        arrived.set()
        handler.answer(204)

    def after_the_other(handler):
        handler.answer(204 if arrived.wait(10) else 500)

    with receiving(after_the_other) as slow, receiving(quickly) as quick:
        first, second = listen(slow.url()), listen(quick.url())
        tell()
        assert deliver_due(sessions, settings) == 2
    assert [one.status for one in deliveries(first) + deliveries(second)] == ["delivered", "delivered"]


def test_a_sender_that_dies_after_sending_leads_to_a_second_copy_with_the_same_id(
    sessions, settings, listen, tell, deliveries, wait
):
    class Killed(BaseException):
        """What a process meets that has no time left to put anything down."""

    def send_and_die(*args, **options):
        post(*args, **options)
        raise Killed

    with receiving() as receiver:
        webhook = listen(receiver.url())
        tell()
        with pytest.raises(Killed):
            deliver_due(sessions, settings, send_and_die)
        [delivery] = deliveries(webhook)
        assert (delivery.status, delivery.attempts) == ("pending", 1)
        assert deliver_due(sessions, settings) == 0  # it might still be at it
        wait()
        assert deliver_due(sessions, settings) == 1
    first, second = receiver.received
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert [(one.status, one.attempts) for one in deliveries(webhook)] == [("delivered", 2)]


def test_a_webhook_that_is_deleted_while_it_is_sent_to_leaves_nothing(sessions, settings, listen, tell, deliveries):
    with receiving() as receiver:
        webhook = listen(receiver.url())
        tell()

        def send_and_delete(*args, **options):
            with sessions.begin() as session:
                assert webhooks.delete_webhook(session, webhook.id)
            return post(*args, **options)

        assert deliver_due(sessions, settings, send_and_delete) == 1
    assert deliveries(webhook) == []
