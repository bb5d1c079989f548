"""How much may be sent and used: rate limits, quotas, and what is left of them."""

import time
from datetime import timedelta

import pytest

from jobs import keys, repository
from jobs.lifecycle import Status
from jobs.repository import utcnow
from jobs.tables import Job
from tests.api.conftest import problem
from tests.api.guarded import ADMIN_KEY, JOB, guarded
from tests.jobs.test_quotas import ran

NO_LIMITS = dict.fromkeys(["max_queued", "max_running", "run_seconds_per_day", "storage_bytes", "retention_days"])


@pytest.fixture(scope="module")
def api(settings):
    with guarded(settings) as api:
        yield api


def test_a_key_may_send_so_many_requests_and_is_told_when_to_go_on(settings):
    with guarded(settings, rate_limit="5/minute") as api:
        _, token = api.key("anna")
        for _ in range(5):
            assert api.ask("GET", "/v1/methods/idc", token).status_code == 200
        refused = api.ask("GET", "/v1/methods/idc", token)
        document = problem(refused, 429, "RATE_LIMITED")
        assert 0 < int(refused.headers["retry-after"]) == document["retry_after_s"] <= 60
        assert "5 per 1 minute" in document["detail"]
        assert api.ask("GET", "/v1/methods/idc", api.key("anna")[1]).status_code == 200  # it is counted by key
        assert api.ask("GET", "/livez", token).status_code == 200


def test_requests_are_taken_again_after_the_time_that_was_named(settings):
    with guarded(settings, rate_limit="1/second") as api:
        api.ask("GET", "/v1/methods/idc")
        while (answer := api.ask("GET", "/v1/methods/idc")).status_code != 429:
            pass
        assert answer.headers["retry-after"] == "1"
        time.sleep(1)
        assert api.ask("GET", "/v1/methods/idc").status_code == 200


def test_polls_that_find_nothing_new_are_free(settings):
    with guarded(settings, rate_limit="4/minute") as api:
        _, token = api.key("anna")
        job = api.submit(token)
        etag = api.ask("GET", f"/v1/jobs/{job}", token).headers["etag"]
        for _ in range(10):
            unchanged = api.ask("GET", f"/v1/jobs/{job}", token, headers={"If-None-Match": etag})
            assert unchanged.status_code == 304
        assert api.ask("GET", f"/v1/jobs/{job}", token).status_code == 200
        problem(api.ask("GET", "/v1/jobs/job_x", token), 404, "NOT_FOUND")  # what is refused counts too
        problem(api.ask("GET", f"/v1/jobs/{job}", token), 429, "RATE_LIMITED")


def test_an_address_may_send_so_many_wrong_keys(settings):
    with guarded(settings, failed_key_limit="3/minute") as api:
        _, known = api.key("anna")
        assert api.ask("GET", "/v1/jobs", known).status_code == 200
        for token in (keys.new_token(), "drk_x", ""):
            headers = {"Authorization": f"Bearer {token}".strip()}
            problem(api.ask("GET", "/v1/jobs", None, headers=headers), 401, "UNAUTHENTICATED")
        refused = api.ask("GET", "/v1/jobs", keys.new_token())
        problem(refused, 429, "RATE_LIMITED")
        assert int(refused.headers["retry-after"]) > 0
        problem(api.ask("GET", "/v1/jobs", api.key("bela")[1]), 429, "RATE_LIMITED")
        assert api.ask("GET", "/v1/jobs", known).status_code == 200  # known keys go on, and so does the administrator
        assert api.ask("GET", "/v1/jobs").status_code == 200
        problem(api.ask("GET", "/v1/jobs", None), 401, "UNAUTHENTICATED")
        elsewhere = {"X-Forwarded-For": "2001:db8::1"}
        assert api.ask("GET", "/v1/jobs", api.key("bela")[1], headers=elsewhere).status_code == 200


def test_one_ipv6_address_stands_for_its_network(settings):
    with guarded(settings, failed_key_limit="3/minute") as api:
        for number in range(3):
            api.ask("GET", "/v1/jobs", keys.new_token(), headers={"X-Forwarded-For": f"2001:db8::{number}"})
        for address, status in [("2001:db8::9", 429), ("2001:db8:0:1::1", 401)]:
            answer = api.ask("GET", "/v1/jobs", keys.new_token(), headers={"X-Forwarded-For": address})
            assert answer.status_code == status


def test_without_keys_nothing_is_counted(settings):
    with guarded(settings, require_key=False, rate_limit="1/minute") as api:
        for _ in range(3):
            assert api.ask("GET", "/v1/methods/idc", None).status_code == 200
        requests = api.ask("GET", "/v1/limits", None).json()["requests"]
        assert requests == {"limit": None, "used": 0, "window_s": 60}


def test_what_one_may_use_and_does_use(api):
    _, token = api.key("lena")
    assert api.ask("GET", "/v1/limits", token).json() == {
        "owner": "lena",
        "queued": {"limit": 1000, "used": 0},
        "running": {"limit": None, "used": 0},
        "run_seconds_per_day": {"limit": None, "used": 0},
        "storage_bytes": {"limit": None, "used": 0},
        "requests": {"limit": 1200, "used": 0, "window_s": 60},
        "retention_days": 30,
    }
    own = NO_LIMITS | {"max_queued": 2, "storage_bytes": 10**12, "run_seconds_per_day": 36000, "retention_days": 3}
    api.ask("PUT", "/v1/owners/lena/limits", json=own)
    waiting, running = api.submit(token), api.submit(token)
    api.service.claim(running)
    with api.service.sessions.begin() as session:
        session.get(Job, waiting).artifact_bytes = 500
    limits = api.ask("GET", "/v1/limits", token).json()
    assert limits["queued"] == {"limit": 2, "used": 1}
    assert limits["running"] == {"limit": None, "used": 1}
    assert limits["storage_bytes"] == {"limit": 10**12, "used": 500}
    assert limits["requests"]["used"] == 3
    assert limits["retention_days"] == 3
    assert 0 < limits["run_seconds_per_day"]["used"] < 60


def test_an_owners_limits_are_set_all_at_once(api):
    problem(api.ask("GET", "/v1/owners/nobody/limits"), 404, "NOT_FOUND")
    body = {"max_queued": 5, "retention_days": 0}
    set_ = api.ask("PUT", "/v1/owners/new@example.org/limits", json=body)
    assert set_.status_code == 200
    limits = set_.json()
    assert limits["own"] == NO_LIMITS | body
    assert limits["in_force"] == NO_LIMITS | body
    assert api.ask("GET", "/v1/owners/new@example.org/limits").json() == limits
    back = api.ask("PUT", "/v1/owners/new@example.org/limits", json={}).json()
    assert back["own"] == NO_LIMITS
    assert back["in_force"] == NO_LIMITS | {"max_queued": 1000, "retention_days": 30}
    entry = api.ask("GET", "/v1/audit", params={"action": "owner.limited", "limit": 1}).json()["data"][0]
    assert entry["resource"] == "new@example.org"


@pytest.mark.parametrize(
    "body",
    [
        {"max_queued": -1},
        {"max_running": 1.5},
        {"max_queued": 2**31},
        {"storage_bytes": 2**63},
        {"retention_days": 10**6},
        {"run_seconds_per_day": True},
        {"bytes": 1},
    ],
)
def test_refused_limits(api, body):
    problem(api.ask("PUT", "/v1/owners/anna/limits", json=body), 422, "VALIDATION_FAILED")


def test_what_was_waiting_for_a_limit_is_rung_for(api):
    _, token = api.key("mona")
    job = api.submit(token)
    api.ask("PUT", "/v1/owners/mona/limits", json={"max_running": 2})
    with api.service.sessions() as session:
        assert session.get(Job, job).rung_at is None


def test_quotas_are_answered_as_such(api):
    _, token = api.key("nora")
    for limit in ("max_queued", "run_seconds_per_day", "storage_bytes"):
        api.ask("PUT", "/v1/owners/nora/limits", json={limit: 0})
        refused = api.ask("POST", "/v1/jobs", token, json=JOB)
        problem(refused, 429, "QUOTA_EXCEEDED")
        assert int(refused.headers["retry-after"]) > 0
    api.ask("PUT", "/v1/owners/nora/limits", json={})
    assert api.submit(token)


def test_what_was_used_by_day_and_method(api):
    _, token = api.key("olga")
    assert api.ask("GET", "/v1/usage", token).json() == {
        "owner": "olga", "days": [], "run_seconds": 0, "jobs": {}, "storage_bytes": 0,
    }  # fmt: skip
    done, old, waiting = (api.submit(token) for _ in range(3))
    for job in (done, old):
        api.service.claim(job)
        api.service.call(repository.settle, job, 1, Status.SUCCEEDED)
    with api.service.sessions() as session:
        rows = {job: session.get(Job, job) for job in (done, old)}
    noon = (utcnow() - timedelta(days=2)).replace(hour=12)
    hours = (utcnow() - noon).total_seconds() / 3600
    ran(api.service.sessions, rows[done], hours + 1, hours, hours - 2)
    ran(api.service.sessions, rows[old], 24 * 40, 24 * 39, 24 * 38)
    with api.service.sessions.begin() as session:
        session.get(Job, done).artifact_bytes = 1234
    used = api.ask("GET", "/v1/usage", token).json()
    assert [(day["day"], day["method"], round(day["run_seconds"])) for day in used["days"]] == [
        (noon.date().isoformat(), "dream", 7200)
    ]
    assert round(used["run_seconds"]) == 7200
    assert used["jobs"] == {"succeeded": 2, "queued": 1}
    assert used["storage_bytes"] == 1234
    assert waiting
    assert api.ask("GET", "/v1/usage", ADMIN_KEY).json()["owner"] == "admin"
