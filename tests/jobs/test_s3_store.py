"""What only S3 has: uploads of attempts, an unreachable server, credentials."""

import os
import uuid

import pytest
from pydantic import SecretStr, ValidationError

from jobs.artifacts import MANIFEST, StorageUnavailable, verify, write_manifest
from jobs.settings import Settings
from jobs.stores import open_store
from jobs.stores.s3 import PART
from tests.fixtures.s3 import KEY, SECRET


@pytest.fixture
def settings(tmp_path, s3_server):
    return s3_server.settings(Settings(home=tmp_path))


@pytest.fixture
def store(settings):
    return open_store(settings)


@pytest.fixture
def job_id():
    return f"job_{uuid.uuid4().hex}"


def stage(store, **content):
    staged = store.stage()
    for name, data in (content or {"data": b"12345"}).items():
        (staged / name).write_bytes(data)
    write_manifest(staged, {"schema_version": 1})
    return staged, verify(staged)


def test_uploads_of_attempts_lie_apart(store, job_id):
    for attempt in (1, 2):
        staged, manifest = stage(store, data=b"%d" % attempt)
        store.upload(staged, manifest, job_id, attempt)
    assert store.uploads(job_id).keys() == {1, 2}
    store.withdraw(job_id, 1)
    assert store.uploads(job_id).keys() == {2}
    assert store.changed_at(job_id) == store.uploads(job_id)[2]
    result = store.result(job_id, 2)
    assert result.files.open(result.find("data")).read() == b"2"


def test_an_upload_goes_on_where_it_stopped(store, job_id, s3_server):
    staged, manifest = stage(store, data=b"12345", other=b"6")
    store.upload(staged, manifest, job_id, 1)
    root = s3_server.holding(f"{job_id}/v1-1")
    kept = (root / "data").stat().st_mtime_ns
    for name in (MANIFEST, "other"):
        store._server.rm_file(f"dream-results/some/results/{job_id}/v1-1/{name}")
    assert not (root / MANIFEST).exists()
    store.upload(staged, manifest, job_id, 1)
    assert (root / "other").read_bytes() == b"6"
    assert (root / MANIFEST).exists()
    assert (root / "data").stat().st_mtime_ns == kept


def test_large_files_go_up_in_parts(store, job_id, s3_server):
    content = os.urandom(3 * PART + 1)
    staged, manifest = stage(store, large=content)
    store.upload(staged, manifest, job_id, 1)
    assert s3_server.holding(f"{job_id}/v1-1/large").read_bytes() == content


@pytest.mark.parametrize(
    ("changes", "told", "advice"),
    [
        ({"aws_secret_access_key": SecretStr("x" * 40)}, "refuses the credentials", "AWS_SECRET_ACCESS_KEY"),
        ({"aws_access_key_id": SecretStr("SOMEOTHERKEY00000001")}, "refuses the credentials", "AWS_ACCESS_KEY_ID"),
        ({"artifacts_url": "s3://another-bucket"}, "has no such bucket", "create the bucket"),
        ({"s3_endpoint_url": "http://127.0.0.1:1"}, "does not answer", "DREAM_S3_ENDPOINT_URL"),
    ],
)
def test_what_is_wrong_is_said_without_secrets(settings, job_id, changes, told, advice):
    changed = settings.model_copy(update=changes)
    store = open_store(changed)
    staged, manifest = stage(store)
    uses = [store.check, lambda: store.upload(staged, manifest, job_id, 1)]
    if "s3_endpoint_url" not in changes:  # which takes some seconds of patience each time
        uses += [lambda: store.result(job_id, 1), lambda: store.delete(job_id), store.jobs]
    for use in uses:
        with pytest.raises(StorageUnavailable, match=told) as raised:
            use()
        assert advice in raised.value.advice
        shown = f"{raised.value!r} {raised.value} {raised.value.advice}"
        assert not any(secret in shown for secret in (KEY, SECRET, "x" * 40, "SOMEOTHERKEY"))
        assert raised.value.__cause__ is None


def test_without_credentials(settings, monkeypatch, tmp_path):
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    nobody = settings.model_copy(update={"aws_access_key_id": None, "aws_secret_access_key": None})
    with pytest.raises(StorageUnavailable, match="has no credentials"):
        open_store(nobody).check()


def test_links_lead_to_where_users_reach_the_server(settings, job_id):
    public = settings.model_copy(update={"s3_public_endpoint_url": "https://files.example.org"})
    store = open_store(public)
    staged, manifest = stage(store)
    store.upload(staged, manifest, job_id, 1)
    result = store.result(job_id, 1)
    link = result.files.locate(result.find("data"))
    assert link.startswith(f"https://files.example.org/dream-results/some/results/{job_id}/v1-1/data?")
    assert "X-Amz-Expires=600" in link
    assert SECRET not in link


def test_settings(monkeypatch, s3_server):
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert settings.aws_region == "us-east-1"
    assert settings.aws_secret_access_key.get_secret_value() == SECRET
    assert SECRET not in repr(settings)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DREAM_ARTIFACTS_URL", "s3://"),
        ("DREAM_ARTIFACTS_URL", "s3://ab"),
        ("DREAM_ARTIFACTS_URL", "/srv/artifacts"),
        ("DREAM_ARTIFACTS_URL", "s3://bucket/pre fix"),
        ("DREAM_S3_ENDPOINT_URL", "s3:9000"),
        ("DREAM_S3_ENDPOINT_URL", "http://me:hidden@s3:9000"),
    ],
)
def test_settings_that_make_no_sense(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError, match="must be like") as raised:
        Settings()
    assert "hidden" not in str(raised.value)
