from pathlib import Path

import pytest
from pydantic import ValidationError
from sqlalchemy import make_url

from jobs.settings import Settings


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch):
    for name in ("DREAM_HOME", "DREAM_DATA_DIR", "REDIS_URL", "DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)


def test_everything_lies_under_home(monkeypatch, tmp_path):
    monkeypatch.setenv("DREAM_HOME", str(tmp_path / "with space"))
    settings = Settings()
    home = tmp_path / "with space"
    assert settings.data_dir == home / "data"
    assert make_url(settings.database_url).database == str(home / "db.sqlite3")
    places = (settings.scratch, settings.checkpoints, settings.staging, settings.artifacts)
    assert {place.parent for place in places} == {home}


def test_home_is_absolute(monkeypatch):
    assert Settings().home == Path.home() / ".dream"
    monkeypatch.setenv("DREAM_HOME", "here")
    assert Settings().home == Path.cwd() / "here"


def test_well_known_names(monkeypatch, tmp_path):
    monkeypatch.setenv("REDIS_URL", "redis://broker:6379/1")
    monkeypatch.setenv("DATABASE_URL", "postgresql://me:hidden@db/dream")
    monkeypatch.setenv("DREAM_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("DREAM_LEASE_S", "25")
    settings = Settings()
    assert (settings.redis_url, settings.database_url) == ("redis://broker:6379/1", "postgresql://me:hidden@db/dream")
    assert (settings.data_dir, settings.lease_s) == (tmp_path, 25)
    assert "hidden" not in repr(settings)


def test_an_empty_variable_is_none(monkeypatch):
    monkeypatch.setenv("REDIS_URL", "")
    assert Settings().redis_url == "redis://127.0.0.1:6379/0"


def test_waiting_times_are_positive(monkeypatch):
    monkeypatch.setenv("DREAM_HEARTBEAT_S", "0")
    with pytest.raises(ValidationError):
        Settings()


def test_a_lease_outlasts_the_renewals(monkeypatch):
    monkeypatch.setenv("DREAM_LEASE_S", "15")
    with pytest.raises(ValidationError, match="at least twice DREAM_HEARTBEAT_S"):
        Settings()


def test_ray_is_somewhere(monkeypatch):
    monkeypatch.setenv("DREAM_LAUNCHER", "ray")
    with pytest.raises(ValidationError, match="needs DREAM_RAY_ADDRESS"):
        Settings()
    monkeypatch.setenv("DREAM_RAY_ADDRESS", "http://head:8265")
    assert (Settings().ray_cpus, Settings().ray_gpus) == (1, 0)


def test_there_may_be_no_broker(monkeypatch):
    monkeypatch.setenv("REDIS_URL", "none")
    assert Settings().redis_url == "none"
