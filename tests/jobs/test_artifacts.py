"""Manifests, and what every store does, on the disk and on an S3 server."""

import hashlib
import json
import uuid

import pytest

from jobs.artifacts import MANIFEST, InvalidArtifacts, verify, write_manifest
from jobs.settings import Settings
from jobs.stores import open_store

CONTENT = {"data.bin": b"12345", "previews/a [1].png": b"png", "empty": b""}


@pytest.fixture(params=["disk", "s3"])
def settings(request, tmp_path):
    settings = Settings(home=tmp_path / "a home")
    return request.getfixturevalue("s3_server").settings(settings) if request.param == "s3" else settings


@pytest.fixture
def store(settings):
    return open_store(settings)


@pytest.fixture
def job_id():
    return f"job_{uuid.uuid4().hex}"


def write(directory, content=CONTENT):
    for path, data in content.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_bytes(data)
    write_manifest(directory, {"schema_version": 1})
    return directory


@pytest.fixture
def staged(tmp_path):
    directory = tmp_path / "staged"
    directory.mkdir()
    return write(directory)


def rewrite(staged, **changes) -> None:
    manifest = json.loads((staged / MANIFEST).read_text())
    manifest["files"][0] |= changes
    (staged / MANIFEST).write_text(json.dumps(manifest))


def test_the_manifest_lists_everything_but_itself(staged):
    manifest = json.loads((staged / MANIFEST).read_text())
    assert manifest["schema_version"] == 1
    assert manifest["files"][0] == {
        "path": "data.bin", "bytes": 5, "sha256": hashlib.sha256(b"12345").hexdigest(),
        "media_type": "application/octet-stream",
    }  # fmt: skip
    assert {file["path"]: file["bytes"] for file in manifest["files"]} == {
        path: len(content) for path, content in CONTENT.items()
    }


class TestStores:
    """Both keep the same promises."""

    def put(self, store, job_id, attempt=1, content=CONTENT):
        """What a worker does in the end."""
        staged = write(store.stage(), content)
        store.upload(staged, verify(staged), job_id, attempt)
        store.publish(staged, job_id)
        store.discard(staged)
        return staged

    def test_it_can_be_used(self, store):
        store.check()

    def test_what_is_published_can_be_read(self, store, job_id):
        staged = self.put(store, job_id)
        assert not staged.exists()
        result = store.result(job_id, 1)
        assert {file.path for file in result.manifest.files} == CONTENT.keys()
        for path, content in CONTENT.items():
            with result.files.open(result.find(path)) as file:
                assert file.read() == content
        found = result.find("previews/a [1].png")
        assert (found.name, found.bytes, found.media_type) == ("a [1].png", 3, "image/png")
        manifest = result.find(MANIFEST)
        assert (manifest.bytes, manifest.media_type) == (len(result.manifest_json), "application/json")
        assert manifest.sha256 == hashlib.sha256(result.manifest_json).hexdigest()

    def test_files_are_read_from_anywhere(self, store, job_id):
        large = bytes(range(256)) * 40_000  # more than is read ahead
        self.put(store, job_id, content={"large": large})
        result = store.result(job_id, 1)
        with result.files.open(result.find("large")) as file:
            assert file.seek(6_000_000) == 6_000_000
            assert file.read(10) == large[6_000_000:6_000_010]
            file.seek(5)
            assert file.read(9_000_000) == large[5:9_000_005]
            file.seek(-3, 2)
            assert (file.read(10), file.read(1)) == (large[-3:], b"")

    @pytest.mark.parametrize(
        "path",
        ["nothing", "previews", "..", "../x", "/etc/passwd", "previews/../data.bin", "./data.bin", "data.bin/", ""],
    )
    def test_only_listed_paths_are_found(self, store, staged, path):
        job_id = f"job_{'a' * 32}"
        self.put(store, job_id)
        assert store.result(job_id, 1).find(path) is None

    @pytest.mark.parametrize("job_id", ["..", "../x", "job_x", "", "job_" + "A" * 32])
    def test_only_ids_of_jobs_are_paths(self, store, job_id):
        for use in (lambda: store.result(job_id, 1), lambda: store.delete(job_id)):
            with pytest.raises(ValueError, match="not the id"):
                use()

    def test_nothing_published(self, store, job_id):
        with pytest.raises(FileNotFoundError):
            store.result(job_id, 1)

    def test_the_last_attempt_counts(self, store, job_id):
        self.put(store, job_id, 1)
        self.put(store, job_id, 2, {"other.txt": b"x"})
        assert [file.path for file in store.result(job_id, 2).manifest.files] == ["other.txt"]

    def test_what_was_staged_can_be_thrown_away(self, store):
        staged = store.stage()
        for _ in range(2):
            store.discard(staged)
        assert not staged.exists()

    def test_deleting_leaves_nothing_and_may_be_done_twice(self, store, job_id):
        self.put(store, job_id, 1)
        self.put(store, job_id, 2)
        assert job_id in store.jobs()
        assert store.changed_at(job_id) > 0
        for _ in range(2):
            store.delete(job_id)
        assert job_id not in store.jobs()
        with pytest.raises(FileNotFoundError):
            store.result(job_id, 2)


@pytest.mark.parametrize("content", [b"1234", b"12346"])
def test_changed_files_are_refused(staged, content):
    (staged / "data.bin").write_bytes(content)
    with pytest.raises(InvalidArtifacts, match=r"data.bin differs"):
        verify(staged)


def test_missing_files_are_refused(staged):
    (staged / "data.bin").unlink()
    with pytest.raises(InvalidArtifacts, match=r"data.bin is missing"):
        verify(staged)


def test_unlisted_files_are_refused(staged):
    (staged / "extra").write_text("x")
    with pytest.raises(InvalidArtifacts, match="extra is not in the manifest"):
        verify(staged)


def test_links_are_refused(staged, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"12345")
    (staged / "data.bin").unlink()
    (staged / "data.bin").symlink_to(secret)
    with pytest.raises(InvalidArtifacts, match=r"data.bin is missing"):
        verify(staged)


@pytest.mark.parametrize("path", ["../data.bin", "/etc/passwd", "a\\b", "C:x", "a/../data.bin", "a\nb", ""])
def test_unsafe_names_are_refused(staged, path):
    rewrite(staged, path=path)
    with pytest.raises(InvalidArtifacts):
        verify(staged)


def test_a_manifest_that_is_none(staged):
    rewrite(staged, sha256="x")
    with pytest.raises(InvalidArtifacts, match="is not a manifest"):
        verify(staged)
    (staged / MANIFEST).unlink()
    with pytest.raises(InvalidArtifacts, match=r"manifest.json is missing"):
        verify(staged)
