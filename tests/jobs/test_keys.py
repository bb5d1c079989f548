"""Keys: their form, what is kept of them, and who may start a service without one."""

import string
from datetime import timedelta

import pytest
import typer
from sqlalchemy import select, text

from jobs import keys
from jobs.commands import admin_key
from jobs.database import make_engine, make_sessions, migrate
from jobs.keys import NoAdministrator, check_administrator, is_well_formed, new_token
from jobs.network import is_loopback, listening_on
from jobs.repository import utcnow
from jobs.settings import Settings
from jobs.tables import ApiKey, AuditEntry
from tests.jobs.test_repository import call

GOOD = "drk_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZa33EDWO"
HASHING = b"what the server's keys are hashed under"


def create(sessions, owner="anna", scopes=("jobs:read",), **about):
    return call(sessions, keys.create_key, HASHING, owner, scopes, **about)


def find(sessions, token, hashing=HASHING):
    return call(sessions, keys.find_live, keys.digest(hashing, token))


def test_the_form_of_a_key_stays():
    assert is_well_formed(GOOD)
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100
    for token in tokens:
        assert token.startswith("drk_")
        assert len(token) == 4 + 37 + 6
        assert set(token[4:]) <= {*string.ascii_letters, *string.digits}
        assert is_well_formed(token)


def test_every_wrong_letter_is_noticed():
    token = new_token()
    for place, letter in enumerate(token):
        for other in ("0" if letter != "0" else "1", "é", ""):
            assert not is_well_formed(token[:place] + other + token[place + 1 :])


@pytest.mark.parametrize(
    "text", ["", "drk_", GOOD[4:], GOOD.upper(), GOOD + "0", f" {GOOD}", f"{GOOD}\n", "whsec_" + "a" * 41]
)
def test_what_is_no_key(text):
    assert not is_well_formed(text)


def test_nothing_of_a_key_is_kept_but_its_hash_and_its_ends(sessions):
    key, token = create(sessions, name="laptop")
    with sessions() as session:
        row = session.execute(text("SELECT * FROM api_keys")).one()
    assert token not in repr(row)
    assert key.shown == f"{token[:6]}…{token[-4:]}"
    assert (key.digest, len(key.digest)) == (keys.digest(HASHING, token), 64)
    assert find(sessions, token).id == key.id
    assert find(sessions, token, b"another server's") is None


def test_scopes_stand_in_one_order_and_once(sessions):
    key, _ = create(sessions, scopes=["admin", "jobs:read", "admin"])
    assert key.scopes == ["jobs:read", "admin"]


def test_keys_that_are_revoked_or_expired_are_not_found(sessions):
    revoked, token = create(sessions)
    assert call(sessions, keys.revoke_key, revoked.id).revoked_at
    assert find(sessions, token) is None
    expired = [create(sessions, expires_at=utcnow() - timedelta(seconds=1))[1] for _ in range(1)]
    assert [find(sessions, token) for token in expired] == [None]
    assert find(sessions, create(sessions, expires_at=utcnow() + timedelta(minutes=1))[1])


def test_revoking_again_changes_nothing(sessions):
    key, _ = create(sessions)
    first = call(sessions, keys.revoke_key, key.id).revoked_at
    assert call(sessions, keys.revoke_key, key.id).revoked_at == first
    assert call(sessions, keys.revoke_key, "key_none") is None


def test_keys_are_listed_newest_first_by_page_and_owner(sessions):
    made = [create(sessions, owner)[0].id for owner in ("anna", "bela", "anna")]
    page, more = call(sessions, keys.list_keys, 2)
    assert ([key.id for key in page], more) == (made[:0:-1], True)
    rest, more = call(sessions, keys.list_keys, 2, after=(page[-1].created_at, page[-1].id))
    assert ([key.id for key in rest], more) == (made[:1], False)
    assert [key.id for key in call(sessions, keys.list_keys, 9, "bela")[0]] == [made[1]]


def test_the_use_of_a_key_is_noted_once_a_minute(sessions):
    key, _ = create(sessions)
    assert key.last_used_at is None

    def use():
        call(sessions, keys.note_use, key.id)
        return call(sessions, lambda session: session.get(ApiKey, key.id)).last_used_at

    first = use()
    assert use() == first
    with sessions.begin() as session:
        session.get(ApiKey, key.id).last_used_at = first - timedelta(seconds=61)
    assert use() > first


@pytest.mark.parametrize("ended", ["revoked_at", "expires_at"])
def test_only_a_live_key_makes_an_administrator(sessions, ended):
    create(sessions, scopes=["jobs:read", "jobs:write", "datasets:write"])
    assert not call(sessions, keys.has_administrator)
    key, _ = create(sessions, scopes=["admin"])
    assert call(sessions, keys.has_administrator)
    with sessions.begin() as session:
        setattr(session.get(ApiKey, key.id), ended, utcnow())
    assert not call(sessions, keys.has_administrator)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_on_the_loopback_no_key_is_asked_for(tmp_path, host):
    assert is_loopback(host)
    assert not listening_on(host, Settings(home=tmp_path), insecure=False).require_key


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "192.168.1.5", "myhost", "", "localhost.example", "127.0.0.1.example"]
)
def test_elsewhere_a_key_is_asked_for_unless_that_is_not_wanted(tmp_path, host):
    assert not is_loopback(host)
    assert listening_on(host, Settings(home=tmp_path), insecure=False).require_key
    assert not listening_on(host, Settings(home=tmp_path), insecure=True).require_key
    assert listening_on(host, Settings(home=tmp_path, require_key=True), insecure=True).require_key


def test_a_service_that_asks_for_keys_does_not_start_before_there_is_one(tmp_path, capsys, monkeypatch):
    home = tmp_path / "a home"
    monkeypatch.setenv("DREAM_REQUIRE_KEY", "true")
    settings = Settings(home=home)
    migrate(settings.database_url)
    with pytest.raises(NoAdministrator) as refusal:
        check_administrator(settings, "0.0.0.0")
    assert "0.0.0.0 can be reached from other machines" in str(refusal.value)
    assert f"dream admin-key --home '{home}'" in refusal.value.advice
    assert "--insecure-no-auth" in refusal.value.advice
    with pytest.raises(NoAdministrator, match=r"^every request") as refusal:
        check_administrator(settings, "127.0.0.1")
    assert "--insecure-no-auth" not in refusal.value.advice

    admin_key(home, name="first")

    token, said = capsys.readouterr()
    assert is_well_formed(token.strip())
    assert "not shown again" in said
    check_administrator(settings, "0.0.0.0")
    engine = make_engine(settings.database_url)
    with make_sessions(engine).begin() as session:
        key = keys.find_live(session, keys.digest(keys.hashing_key(settings), token.strip()))
        assert (key.owner, key.name, key.scopes) == ("admin", "first", ["admin"])
        assert session.scalars(select(AuditEntry.resource)).all() == [key.id]
    engine.dispose()


def test_a_key_cannot_be_made_where_there_is_no_database(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody:hunter2@127.0.0.1:1/nothing")
    with pytest.raises(typer.Exit) as end:
        admin_key(tmp_path)
    assert end.value.exit_code == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "error: cannot use the database" in said.err
    assert "hunter2" not in said.err


def test_an_administrators_key_from_the_environment_is_enough_if_it_is_one(tmp_path):
    token = keys.new_token()
    check_administrator(Settings(home=tmp_path, require_key=True, admin_key=token), "0.0.0.0")
    for wrong in ("secret", token[:-1], token + "x"):
        with pytest.raises(NoAdministrator, match="DREAM_ADMIN_KEY is not a key") as refusal:
            check_administrator(Settings(home=tmp_path, admin_key=wrong), "127.0.0.1")
        assert wrong not in f"{refusal.value} {refusal.value.advice}"
