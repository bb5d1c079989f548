import uuid

import pytest

from client import Client, Forbidden, QuotaExceeded, Unauthenticated
from client.keys import new_token
from jobs.keys import is_well_formed


@pytest.fixture
def dream_as(guarded, dream, monkeypatch):
    """The `dream` command of someone: `dream_as(key, ...)`."""
    monkeypatch.setenv("DREAM_URL", guarded.url)

    def dream_as(key, *arguments):
        monkeypatch.setenv("DREAM_API_KEY", key)
        return dream(*arguments)

    return dream_as


def test_a_generated_key_is_one_for_the_service_too(dream):
    keys = {new_token() for _ in range(200)}

    assert len(keys) == 200
    assert all(is_well_formed(key) for key in keys)
    said = dream("keys", "generate")
    assert is_well_formed(said.out.strip())
    assert "DREAM_ADMIN_KEY" in said.err
    assert is_well_formed(dream("keys", "generate", "--json").json["token"])


def test_a_key_comes_from_the_environment(guarded, monkeypatch):
    monkeypatch.setenv("DREAM_API_KEY", guarded.environment["DREAM_ADMIN_KEY"])
    with Client(guarded.url) as client:
        assert list(client.jobs.list(limit=1)) is not None
    with Client(guarded.url, "") as nobody, pytest.raises(Unauthenticated, match="send a key"):
        list(nobody.jobs.list())


def test_a_wrong_key_and_a_missing_scope_say_what_to_do(guarded, admin, someone):
    with Client(guarded.url, new_token()) as stranger, pytest.raises(Unauthenticated) as refused:
        list(stranger.jobs.list())
    assert "DREAM_API_KEY" in refused.value.advice
    with pytest.raises(Forbidden) as refused:
        someone.operations.workers()
    assert "dream keys create" in refused.value.advice


def test_a_revoked_key_is_good_no_more(guarded, admin):
    made = admin.keys.create("once", ["jobs:read"], name="for a day", expires_at="2100-01-01T00:00:00Z")
    with Client(guarded.url, made["token"]) as client:
        assert list(client.jobs.list()) == []
        with pytest.raises(Forbidden):
            client.jobs.create("digits", "dream", 1)

        admin.keys.revoke(made["id"])

        with pytest.raises(Unauthenticated):
            list(client.jobs.list())
    [listed] = admin.keys.list(owner="once")
    assert listed["revoked_at"]
    assert "token" not in listed


def test_keys_on_the_command_line(dream_as, guarded):
    admin, owner = guarded.environment["DREAM_ADMIN_KEY"], f"ann-{uuid.uuid4().hex[:6]}"

    made = dream_as(admin, "keys", "create", owner, "--name", "laptop", "--scope", "jobs:read", "--days", 30)
    assert is_well_formed(made.out.strip())
    assert "not shown again" in made.err
    assert dream_as(made.out.strip(), "ls").code == 0
    [listed] = dream_as(admin, "keys", "ls", "--owner", owner, "--json").json
    table = dream_as(admin, "keys", "ls").out
    assert "(laptop)" in " ".join(table.split())
    assert max(map(len, table.splitlines())) <= 80
    assert dream_as(admin, "keys", "revoke", listed["id"][-12:]).out == f"{listed['id']} is revoked\n"
    assert "revoked" in dream_as(admin, "keys", "ls", "--owner", owner).out

    refused = dream_as(made.out.strip(), "ls")
    assert (refused.code, refused.out) == (1, "")
    assert made.out.strip() not in refused.err


def test_too_many_requests_are_waited_for(guarded, admin):
    waits = []
    token = admin.keys.create("hasty")["token"]
    with Client(guarded.url, token, on_wait=lambda pause, error: waits.append((pause, error.code))) as hasty:
        job = hasty.jobs.create("digits", "dream", 1)
        for _ in range(16):
            hasty.jobs.pause(job.id)  # no such request is sent twice, unless it was refused
        hasty.jobs.cancel(job.id)

    assert {code for _, code in waits} == {"RATE_LIMITED"}
    assert all(1 <= pause < 5 for pause, _ in waits)


def test_what_would_take_too_long_is_not_waited_for(someone):
    for _ in range(5):
        someone.jobs.create("digits", "dream", 1)

    with pytest.raises(QuotaExceeded) as refused:
        someone.jobs.create("digits", "dream", 1)

    assert refused.value.retry_after_s == 60
    assert "dream usage" in refused.value.advice


def test_usage_shows_what_one_has_of_what_one_may(dream_as, guarded, admin):
    token = admin.keys.create("thrifty")["token"]
    with Client(guarded.url, token) as thrifty:
        thrifty.jobs.create("digits", "dream", 1)
        assert thrifty.limits()["queued"] == {"limit": 5, "used": 1}
        assert thrifty.usage()["jobs"] == {"queued": 1}

    said = dream_as(token, "usage")

    assert any(line.split() == ["jobs", "that", "wait", "1", "5"] for line in said.out.splitlines())
    assert dream_as(token, "usage", "--json").json["limits"]["owner"] == "thrifty"
