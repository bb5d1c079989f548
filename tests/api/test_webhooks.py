"""Webhooks over HTTP."""

import re

import httpx2
import pytest
from sqlalchemy import delete, select

from jobs import outbox
from jobs.outbox import EventType
from jobs.repository import utcnow
from jobs.secrets import server_secret
from jobs.tables import AuditEntry, Webhook
from jobs.webhooks import signing_secrets
from tests.api.conftest import problem, serving

URL = "https://hooks.example.org/dream?token=abc"
HERE = "/v1/webhooks"


@pytest.fixture(autouse=True)
def no_webhooks(service):
    with service.sessions.begin() as session:
        session.execute(delete(Webhook))


@pytest.fixture
def create(http):
    def create(**body):
        response = http.post(HERE, json={"url": URL} | body)
        assert response.status_code == 201, response.text
        return response.json()

    return create


@pytest.fixture
def tell(service):
    def tell(subject="job_1", event=EventType.JOB_FAILED):
        service.call(outbox.enqueue, "local", event, subject, utcnow())

    return tell


@pytest.fixture
def attempt(service):
    """Do as a sender would that has got this answer."""

    def attempt(answer):
        now = utcnow()
        for delivery, _ in service.call(outbox.claim_due, 100, now):
            error = None if answer < 300 else f"the answer was {answer}"
            service.call(outbox.record, delivery, answer, error, now)

    return attempt


def test_a_webhook_is_created_and_its_secret_shown_this_once(service, http):
    response = http.post(HERE, json={"url": URL, "events": ["job.failed", "job.failed", "dataset.ready"]})
    assert response.status_code == 201
    assert response.headers["cache-control"] == "no-store"
    created = response.json()
    assert re.fullmatch(r"whk_[0-9a-f]{32}", created["id"])
    assert response.headers["location"] == f"{HERE}/{created['id']}"
    with service.sessions() as session:
        row = session.get(Webhook, created["id"])
    assert [created.pop("secret")] == signing_secrets(row, server_secret(service.settings), utcnow())
    assert created == http.get(f"{HERE}/{created['id']}").json()
    assert created["created_at"].endswith("Z")
    assert created == {
        "id": row.id,
        "object": "webhook",
        "owner": "local",
        "url": URL,
        "events": ["job.failed", "dataset.ready"],
        "created_at": created["created_at"],
        "previous_secret_until": None,
        "disabled_at": None,
        "disabled_reason": None,
    }


@pytest.mark.parametrize(
    ("body", "pointer", "words"),
    [
        ({}, "#/url", "required"),
        ({"url": URL, "secret": "mine"}, "#/secret", "not permitted"),
        ({"url": URL, "events": ["job.exploded"]}, "#/events/0", "job.started"),
        ({"url": 7}, "#/url", "string"),
        ({"url": "http://hooks.example.org/"}, "#/url", "must begin with https://"),
        ({"url": "https://hooks.example.org:6379/"}, "#/url", "ports 443, 8443"),
        ({"url": "https://me:secret@hooks.example.org/"}, "#/url", "must not contain a user name or a password"),
        ({"url": "https://127.0.0.1/"}, "#/url", "public internet"),
        ({"url": "https://[::ffff:169.254.169.254]/"}, "#/url", "public internet"),
        ({"url": "https://localhost/"}, "#/url", "public internet"),
        ({"url": "https://hooks.example.org/\u0000"}, "#/url", "control characters"),
        ({"url": "https://hooks.example.org/" + "a" * 2048}, "#/url", "2048"),
    ],
)
def test_what_cannot_be_a_webhook(http, body, pointer, words):
    document = problem(http.post(HERE, json=body), 422, "VALIDATION_FAILED")
    [error] = document["errors"]
    assert error["pointer"] == pointer
    assert words in error["message"]


def test_a_developer_may_have_the_own_machine_told(settings):
    lenient = settings.model_copy(update={"webhook_allow_private": True})
    with serving(lenient) as service:
        response = httpx2.post(service.url + HERE, json={"url": "http://127.0.0.1:9/hook"})
    assert response.status_code == 201


def test_an_owner_may_have_twenty(http, create):
    for _ in range(20):
        create()
    response = http.post(HERE, json={"url": URL})
    assert "20" in problem(response, 429, "QUOTA_EXCEEDED")["detail"]
    assert response.headers["retry-after"]


def test_webhooks_are_listed_page_by_page_without_secrets(http, create):
    ids = [create()["id"] for _ in range(3)]
    first = http.get(HERE, params={"limit": 2}).json()
    assert [one["id"] for one in first["data"]] == [ids[2], ids[1]]
    assert first["has_more"] is True
    rest = http.get(HERE, params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [one["id"] for one in rest["data"]] == [ids[0]]
    assert (rest["has_more"], rest["next_cursor"]) == (False, None)
    assert "whsec_" not in str(first) + str(rest)
    problem(http.get(HERE, params={"cursor": "nonsense"}), 422, "VALIDATION_FAILED")


def test_a_rotation_gives_a_new_secret_and_leaves_time_to_change_it(http, create):
    created = create()
    response = http.post(f"{HERE}/{created['id']}/rotate")
    assert (response.status_code, response.headers["cache-control"]) == (200, "no-store")
    rotated = response.json()
    assert rotated["secret"].startswith("whsec_")
    assert rotated["secret"] != created["secret"]
    assert rotated["previous_secret_until"] > created["created_at"]


def test_a_deleted_webhook_is_not_there(http, create):
    webhook = create()
    here = f"{HERE}/{webhook['id']}"
    response = http.delete(here)
    assert (response.status_code, response.content) == (204, b"")
    for method, url in [
        ("GET", here),
        ("DELETE", here),
        ("POST", f"{here}/rotate"),
        ("GET", f"{here}/deliveries"),
        ("POST", f"{here}/deliveries/dlv_{'0' * 32}/redeliver"),
    ]:
        problem(http.request(method, url), 404, "NOT_FOUND")


@pytest.mark.parametrize("webhook_id", ["whk_1", "job_" + "0" * 32, "whk_" + "0" * 32, "whk_%00"])
def test_an_id_that_is_none_is_not_found(http, webhook_id):
    problem(http.get(f"{HERE}/{webhook_id}"), 404, "NOT_FOUND")


def test_deliveries_show_what_became_of_each_message(http, create, tell, attempt):
    here = f"{HERE}/{create()['id']}/deliveries"
    tell("job_1")
    attempt(204)
    tell("job_2")
    attempt(500)
    page = http.get(here).json()
    failing, delivered = page["data"]
    assert (delivered["status"], delivered["attempts"], delivered["response_status"]) == ("delivered", 1, 204)
    assert (delivered["error"], delivered["next_attempt_at"]) == (None, None)
    assert delivered["finished_at"] >= delivered["created_at"]
    assert delivered["event"]["data"] == {"id": "job_1"}
    assert delivered["event"]["type"] == "job.failed"
    assert (failing["status"], failing["response_status"]) == ("pending", 500)
    assert failing["error"] == "the answer was 500"
    assert failing["next_attempt_at"] > failing["created_at"]
    first = http.get(here, params={"limit": 1}).json()
    assert first["data"] == [failing]
    assert http.get(here, params={"limit": 1, "cursor": first["next_cursor"]}).json()["data"] == [delivered]


def test_a_message_is_sent_again_if_asked_for(http, create, tell, attempt):
    here = f"{HERE}/{create()['id']}/deliveries"
    tell()
    attempt(204)
    [sent] = http.get(here).json()["data"]
    response = http.post(f"{here}/{sent['id']}/redeliver")
    assert response.status_code == 202
    again = response.json()
    assert (again["event"], again["status"], again["attempts"]) == (sent["event"], "pending", 0)
    assert http.get(here).json()["data"] == [again, sent]
    other = create()["id"]
    problem(http.post(f"{HERE}/{other}/deliveries/{sent['id']}/redeliver"), 404, "NOT_FOUND")
    problem(http.post(f"{here}/dlv_1/redeliver"), 404, "NOT_FOUND")


def test_a_disabled_webhook_says_why_and_is_sent_nothing(http, create, tell, attempt):
    here = f"{HERE}/{create()['id']}"
    tell()
    attempt(410)
    webhook = http.get(here).json()
    assert webhook["disabled_at"]
    assert webhook["disabled_reason"] == "the address answered 410 Gone"
    [failed] = http.get(f"{here}/deliveries").json()["data"]
    problem(http.post(f"{here}/deliveries/{failed['id']}/redeliver"), 409, "WEBHOOK_DISABLED")


def test_a_disabled_webhook_is_enabled_again(service, http, create, tell, attempt):
    here = f"{HERE}/{create()['id']}"
    tell("job_1")
    attempt(410)
    tell("job_2")

    for _ in range(2):
        enabled = http.post(f"{here}/enable").json()
        assert (enabled["disabled_at"], enabled["disabled_reason"]) == (None, None)
    tell("job_3")
    attempt(204)

    latest, missed = http.get(f"{here}/deliveries").json()["data"]
    assert (latest["status"], latest["event"]["data"]["id"]) == ("delivered", "job_3")
    assert http.post(f"{here}/deliveries/{missed['id']}/redeliver").status_code == 202
    problem(http.post(f"{HERE}/whk_{'0' * 32}/enable"), 404, "NOT_FOUND")
    with service.sessions() as session:
        assert session.scalar(select(AuditEntry.resource).where(AuditEntry.action == "webhook.enabled")) in here


def test_what_is_done_to_webhooks_is_put_down(service, http, create, tell, attempt):
    here = f"{HERE}/{create()['id']}"
    tell()
    attempt(204)
    [sent] = http.get(f"{here}/deliveries").json()["data"]
    http.post(f"{here}/deliveries/{sent['id']}/redeliver")
    http.post(f"{here}/rotate")
    http.delete(here)
    with service.sessions() as session:
        entries = session.scalars(select(AuditEntry).order_by(AuditEntry.id.desc()).limit(4)).all()
    assert [entry.action for entry in reversed(entries)] == [
        "webhook.created",
        "webhook.redelivered",
        "webhook.rotated",
        "webhook.deleted",
    ]
