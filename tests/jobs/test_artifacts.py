import hashlib
import json

import pytest

from jobs.artifacts import MANIFEST, ArtifactStore, InvalidArtifacts, write_manifest

JOB = "job_" + "a" * 32


@pytest.fixture
def store(tmp_path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "artifacts", tmp_path / "staging")


@pytest.fixture
def staged(store):
    directory = store.stage()
    (directory / "previews").mkdir()
    (directory / "data.bin").write_bytes(b"12345")
    (directory / "previews" / "a.png").write_bytes(b"png")
    write_manifest(directory, {"schema_version": 1})
    return directory


def rewrite(staged, **changes) -> None:
    manifest = json.loads((staged / MANIFEST).read_text())
    manifest["files"][0] |= changes
    (staged / MANIFEST).write_text(json.dumps(manifest))


def test_the_manifest_lists_everything_but_itself(staged):
    manifest = json.loads((staged / MANIFEST).read_text())
    assert manifest["schema_version"] == 1
    assert manifest["files"] == [
        {"path": "data.bin", "bytes": 5, "sha256": hashlib.sha256(b"12345").hexdigest(),
         "media_type": "application/octet-stream"},
        {"path": "previews/a.png", "bytes": 3, "sha256": hashlib.sha256(b"png").hexdigest(), "media_type": "image/png"},
    ]  # fmt: skip


def test_publish(store, staged):
    assert len(store.verify(staged).files) == 2
    store.publish(staged, JOB)
    assert not staged.exists()
    found = store.find(JOB, "previews/a.png")
    assert found is not None
    assert (found.name, found.location.read_bytes(), found.media_type) == ("a.png", b"png", "image/png")
    assert store.manifest(JOB).files[0].path == "data.bin"
    assert store.find(JOB, MANIFEST).media_type == "application/json"


def test_publishing_again_replaces_what_was_not_committed(store, staged):
    store.publish(staged, JOB)
    second = store.stage()
    (second / "other.txt").write_text("x")
    write_manifest(second, {})
    store.publish(second, JOB)
    assert [file.path for file in store.manifest(JOB).files] == ["other.txt"]


@pytest.mark.parametrize(
    "path", ["nothing", "previews", "..", "../x", "/etc/passwd", "previews/../data.bin", "./data.bin", "data.bin/", ""]
)
def test_only_listed_paths_are_found(store, staged, path):
    store.publish(staged, JOB)
    assert store.find(JOB, path) is None


@pytest.mark.parametrize("job_id", ["..", "../x", "job_x", "", "job_" + "A" * 32])
def test_only_ids_of_jobs_are_paths(store, job_id):
    with pytest.raises(ValueError, match="not the id"):
        store.manifest(job_id)


def test_nothing_published(store):
    with pytest.raises(FileNotFoundError):
        store.manifest(JOB)
    with pytest.raises(FileNotFoundError):
        store.find(JOB, "x")


@pytest.mark.parametrize("content", [b"1234", b"12346"])
def test_changed_files_are_refused(store, staged, content):
    (staged / "data.bin").write_bytes(content)
    with pytest.raises(InvalidArtifacts, match=r"data.bin differs"):
        store.verify(staged)


def test_missing_files_are_refused(store, staged):
    (staged / "data.bin").unlink()
    with pytest.raises(InvalidArtifacts, match=r"data.bin is missing"):
        store.verify(staged)


def test_unlisted_files_are_refused(store, staged):
    (staged / "extra").write_text("x")
    with pytest.raises(InvalidArtifacts, match="extra is not in the manifest"):
        store.verify(staged)


def test_links_are_refused(store, staged, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"12345")
    (staged / "data.bin").unlink()
    (staged / "data.bin").symlink_to(secret)
    with pytest.raises(InvalidArtifacts, match=r"data.bin is missing"):
        store.verify(staged)


@pytest.mark.parametrize("path", ["../data.bin", "/etc/passwd", "a\\b", "C:x", "a/../data.bin", "a\nb", ""])
def test_unsafe_names_are_refused(store, staged, path):
    rewrite(staged, path=path)
    with pytest.raises(InvalidArtifacts):
        store.verify(staged)


def test_a_manifest_that_is_none(store, staged):
    rewrite(staged, sha256="x")
    with pytest.raises(InvalidArtifacts, match="is not a manifest"):
        store.verify(staged)
    (staged / MANIFEST).unlink()
    with pytest.raises(InvalidArtifacts, match=r"manifest.json is missing"):
        store.verify(staged)


def test_discard_and_delete(store, staged):
    other = store.stage()
    store.discard(other)
    store.discard(other)
    assert not other.exists()
    store.publish(staged, JOB)
    store.delete(JOB)
    with pytest.raises(FileNotFoundError):
        store.manifest(JOB)
