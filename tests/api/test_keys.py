"""Keys over HTTP: made, used, listed, revoked; who is let in with which."""

import time
from datetime import timedelta

import pytest
from sqlalchemy import event, select

from jobs import keys
from jobs.repository import utcnow
from jobs.tables import ApiKey, AuditEntry
from tests.api.conftest import problem
from tests.api.guarded import ADMIN_KEY, bearer, guarded


@pytest.fixture(scope="module")
def api(settings):
    with guarded(settings) as api:
        yield api


def test_a_key_is_made_shown_once_and_used(api):
    made = api.ask("POST", "/v1/keys", json={"owner": "anna", "name": "laptop", "scopes": ["jobs:write", "jobs:read"]})
    assert (made.status_code, made.headers["cache-control"]) == (201, "no-store")
    key = made.json()
    token = key.pop("token")
    assert keys.is_well_formed(token)
    assert (key["owner"], key["name"], key["scopes"]) == ("anna", "laptop", ["jobs:read", "jobs:write"])
    assert key["shown"].startswith("drk_")
    assert token not in api.ask("GET", "/v1/keys").text
    assert key in api.ask("GET", "/v1/keys", params={"limit": 100}).json()["data"]
    assert "digest" not in api.ask("GET", "/v1/keys").text
    job = api.submit(token)
    assert api.ask("GET", f"/v1/jobs/{job}", token).status_code == 200


def test_without_scopes_named_a_key_is_for_everyday_use(api):
    key = api.ask("POST", "/v1/keys", json={"owner": "anna"}).json()
    assert (key["scopes"], key["name"], key["expires_at"]) == (
        ["jobs:read", "jobs:write", "datasets:write"],
        None,
        None,
    )


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "#/owner"),
        ({"owner": "two words"}, "#/owner"),
        ({"owner": "-x"}, "#/owner"),
        ({"owner": "x" * 65}, "#/owner"),
        ({"owner": "anna", "scopes": []}, "#/scopes"),
        ({"owner": "anna", "scopes": ["everything"]}, "#/scopes/0"),
        ({"owner": "anna", "expires_at": "2020-01-01T00:00:00Z"}, "#/expires_at"),
        ({"owner": "anna", "expires_at": "tomorrow"}, "#/expires_at"),
        ({"owner": "anna", "name": "bell\x07"}, "#/name"),
        ({"owner": "anna", "token": "drk_mine"}, "#/token"),
    ],
)
def test_refused_keys(api, body, pointer):
    document = problem(api.ask("POST", "/v1/keys", json=body), 422, "VALIDATION_FAILED")
    assert [error["pointer"] for error in document["errors"]] == [pointer]


def test_keys_are_listed_by_page_and_owner(api):
    made = [api.key("lister", "jobs:read")[0] for _ in range(3)]
    first = api.ask("GET", "/v1/keys", params={"owner": "lister", "limit": 2}).json()
    assert ([key["id"] for key in first["data"]], first["has_more"]) == (made[:0:-1], True)
    rest = api.ask("GET", "/v1/keys", params={"owner": "lister", "cursor": first["next_cursor"]}).json()
    assert ([key["id"] for key in rest["data"]], rest["next_cursor"]) == (made[:1], None)


def test_a_revoked_key_is_refused_at_once(api):
    key_id, token = api.key("anna")
    assert api.ask("GET", "/v1/jobs", token).status_code == 200
    for _ in range(2):
        assert api.ask("DELETE", f"/v1/keys/{key_id}").status_code == 204
        problem(api.ask("GET", "/v1/jobs", token), 401, "UNAUTHENTICATED")
    listed = api.ask("GET", "/v1/keys", params={"owner": "anna", "limit": 100}).json()["data"]
    assert next(key for key in listed if key["id"] == key_id)["revoked_at"]


@pytest.mark.parametrize("key_id", ["key_" + "0" * 32, "key_1", "job_" + "0" * 32, "key_%00"])
def test_a_key_that_is_not_there_cannot_be_revoked(api, key_id):
    problem(api.ask("DELETE", f"/v1/keys/{key_id}"), 404, "NOT_FOUND")


def test_a_key_that_another_process_revokes_works_for_seconds_only(api, monkeypatch):
    monkeypatch.setattr("api.keyring.BELIEVED_S", 0.2)
    key_id, token = api.key("anna")
    assert api.ask("GET", "/v1/jobs", token).status_code == 200
    api.service.call(keys.revoke_key, key_id)
    assert eventually(lambda: api.ask("GET", "/v1/jobs", token).status_code == 401)


def test_a_key_that_expires_is_refused_on_time_though_it_was_just_believed(api):
    expires_at = utcnow() + timedelta(seconds=1.5)
    _, token = api.key("anna", expires_at=expires_at)
    assert api.ask("GET", "/v1/jobs", token).status_code == 200
    time.sleep(max(0.0, (expires_at - utcnow()).total_seconds()))
    problem(api.ask("GET", "/v1/jobs", token), 401, "UNAUTHENTICATED")


@pytest.mark.parametrize(
    "headers",
    [
        bearer(None),
        {"Authorization": "Bearer"},
        bearer(keys.new_token()),
        bearer(keys.new_token()[:-1]),
        bearer("drk_"),
        bearer("é"),
        {"Authorization": "Basic YTpi"},
        {"Authorization": ADMIN_KEY},
        {"Authorization": ""},
        {"X-Api-Key": ADMIN_KEY},
        {"Cookie": f"Authorization=Bearer {ADMIN_KEY}"},
    ],
)
def test_who_has_no_valid_key_is_told_so(api, headers):
    headers = {name: value.encode() for name, value in headers.items()}
    response = api.http.get("/v1/jobs", headers=headers)
    problem(response, 401, "UNAUTHENTICATED")
    assert response.headers["www-authenticate"].startswith("Bearer")


def test_a_key_in_the_address_is_no_key(api):
    problem(api.http.get("/v1/jobs", params={"key": ADMIN_KEY, "access_token": ADMIN_KEY}), 401, "UNAUTHENTICATED")


def test_without_required_keys_one_that_is_sent_is_still_checked(settings):
    with guarded(settings, require_key=False) as api:
        assert api.ask("GET", "/v1/keys", None).status_code == 200
        problem(api.ask("GET", "/v1/jobs", keys.new_token()), 401, "UNAUTHENTICATED")
        problem(api.ask("GET", "/v1/keys", api.key("anna")[1]), 403, "FORBIDDEN")


def test_the_key_from_the_environment_is_an_administrators_and_is_not_stored(api):
    assert api.ask("GET", "/v1/keys").status_code == 200
    job = api.submit(ADMIN_KEY)
    assert api.ask("GET", f"/v1/jobs/{job}").json()
    digest = keys.digest(keys.hashing_key(api.service.settings), ADMIN_KEY)
    with api.service.sessions() as session:
        assert session.scalar(select(ApiKey).where(ApiKey.digest == digest)) is None
        entry = session.scalar(select(AuditEntry).where(AuditEntry.resource == job))
    assert (entry.owner, entry.key_id) == ("admin", "DREAM_ADMIN_KEY")


def test_owners_share_what_they_have_among_their_keys_and_with_nobody_else(api):
    job = api.submit(api.key("anna")[1])
    assert api.ask("GET", f"/v1/jobs/{job}", api.key("anna", "jobs:read")[1]).status_code == 200
    problem(api.ask("GET", f"/v1/jobs/{job}", api.key("bela")[1]), 404, "NOT_FOUND")
    assert job not in api.ask("GET", "/v1/jobs", api.key("bela")[1], params={"limit": 100}).text
    assert job in api.ask("GET", "/v1/jobs", params={"limit": 100}).text


def test_polling_with_a_known_key_asks_the_database_for_the_job_alone(api):
    _, token = api.key("anna")
    job = api.submit(token)
    statements = []
    engine = api.service.sessions.kw["bind"]
    event.listen(engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    for _ in range(20):
        api.ask("GET", f"/v1/jobs/{job}", token)
    assert any("FROM jobs" in statement for statement in statements)
    assert sum("api_keys" in statement for statement in statements) <= 1  # it is asked again every five seconds


def test_the_use_of_a_key_is_written_down(api):
    key_id, token = api.key("anna")
    assert api.ask("GET", "/v1/jobs", token).status_code == 200

    def used():
        with api.service.sessions() as session:
            return session.get(ApiKey, key_id).last_used_at

    assert eventually(used)
    assert utcnow() - used() < timedelta(minutes=1)


def test_making_and_revoking_keys_is_written_down(api):
    key_id, _ = api.key("anna")
    made = api.ask("POST", "/v1/keys", json={"owner": "anna"}).json()["id"]
    api.ask("DELETE", f"/v1/keys/{key_id}")
    for action, resource in [("key.created", made), ("key.revoked", key_id)]:
        entries = api.ask("GET", "/v1/audit", params={"action": action, "limit": 1}).json()["data"]
        assert [(entry["resource"], entry["owner"]) for entry in entries] == [(resource, "admin")]


def test_open_to_everyone(api):
    for path in ("/livez", "/readyz", "/problems/not-found", "/openapi.json"):
        for headers in (bearer(None), bearer(keys.new_token())):
            assert api.http.get(path, headers=headers).status_code == 200
    assert api.http.get("/livez").headers.get("www-authenticate") is None
    security = api.http.get("/openapi.json").json()["components"]["securitySchemes"]["HTTPBearer"]
    assert (security["type"], security["scheme"]) == ("http", "bearer")


def eventually(condition, tries=100):
    """Whether it comes true within some seconds."""
    for _ in range(tries):
        if condition():
            return True
        time.sleep(0.05)
    return False


def test_a_key_is_not_taken_for_another_services(api, settings, tmp_path):
    """The same database under another secret."""
    _, token = api.key("anna")
    other = settings.model_copy(update={"home": tmp_path})
    with guarded(other) as elsewhere:
        problem(elsewhere.ask("GET", "/v1/jobs", token), 401, "UNAUTHENTICATED")
