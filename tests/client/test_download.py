import os
from pathlib import Path

import pytest

from client import ArtifactNotReady, Client, DownloadFailed, NotFound, ServiceUnreachable
from client.download import plan

BIG = os.urandom(3_000_000)


@pytest.fixture
def published(service, job):
    """A finished job with a large file, an empty one and one in a folder: (job, where the service keeps them)."""
    files = {"synthetic.safetensors": BIG, "empty.txt": b"", "decoded/train/0 1.png": b"a picture"}
    return job, service.finish(job.id, service.claim(job.id), files)


def test_every_file_arrives_with_its_manifest(client, published, tmp_path):
    job, original = published

    done = client.jobs.download(job.id, tmp_path / "a new place")

    assert {str(file.relative_to(done.directory)) for file in done.files} == {
        "synthetic.safetensors",
        "empty.txt",
        "decoded/train/0 1.png",
        "manifest.json",
    }
    for file in done.files:
        assert file.read_bytes() == (original / file.relative_to(done.directory)).read_bytes()
    assert done.manifest["job_id"] == job.id
    assert not list(done.directory.rglob("*.part"))


def test_a_partial_file_is_completed_not_fetched_again(client, published, tmp_path):
    job, _ = published
    (tmp_path / "synthetic.safetensors.part").write_bytes(BIG[:2_500_000])
    seen = []

    client.jobs.download(job.id, tmp_path, lambda name, done, size: seen.append((name, done)))

    assert min(done for name, done in seen if name == "synthetic.safetensors") > 2_500_000
    assert (tmp_path / "synthetic.safetensors").read_bytes() == BIG


def test_what_is_here_already_is_not_fetched_again(client, published, tmp_path):
    job, original = published
    client.jobs.download(job.id, tmp_path)
    (original / "synthetic.safetensors").write_bytes(b"the service has lost it")

    client.jobs.download(job.id, tmp_path)

    assert (tmp_path / "synthetic.safetensors").read_bytes() == BIG


@pytest.mark.parametrize("part", [b"x" * len(BIG), b"x" * 1000, b"x" * (len(BIG) + 5)], ids=["full", "short", "long"])
def test_a_corrupted_partial_file_is_replaced(client, published, tmp_path, part):
    job, _ = published
    (tmp_path / "synthetic.safetensors.part").write_bytes(part)

    client.jobs.download(job.id, tmp_path)

    assert (tmp_path / "synthetic.safetensors").read_bytes() == BIG


@pytest.mark.parametrize(
    "damaged", [b"x" * len(BIG), b"x" * 1000, b"x" * (len(BIG) + 5)], ids=["same size", "short", "long"]
)
def test_a_file_that_the_service_has_damaged_is_an_error_and_not_kept(client, published, tmp_path, damaged):
    job, original = published
    (original / "synthetic.safetensors").write_bytes(damaged)

    with pytest.raises(DownloadFailed, match="twice"):
        client.jobs.download(job.id, tmp_path)

    assert not (tmp_path / "synthetic.safetensors").exists()
    assert not (tmp_path / "manifest.json").exists()


def test_a_connection_that_breaks_is_taken_up_where_it_broke(published, cutting_proxy, tmp_path):
    job, _ = published
    with Client(cutting_proxy(after=1_000_000, times=2)) as client:
        client.jobs.download(job.id, tmp_path)

    assert (tmp_path / "synthetic.safetensors").read_bytes() == BIG


def test_a_connection_that_always_breaks_is_an_error_and_what_came_is_kept(published, cutting_proxy, tmp_path):
    job, _ = published
    with Client(cutting_proxy(after=500_000, times=100)) as client, pytest.raises(ServiceUnreachable):
        client.jobs.download(job.id, tmp_path)

    assert (tmp_path / "synthetic.safetensors.part").stat().st_size > 500_000


def test_a_job_without_results_has_nothing_to_download(client, job, tmp_path):
    with pytest.raises(ArtifactNotReady, match="queued"):
        client.jobs.download(job.id, tmp_path)


def test_an_unknown_job_is_not_found(client, tmp_path):
    with pytest.raises(NotFound):
        client.jobs.download(f"job_{'0' * 32}", tmp_path)


def test_a_link_in_the_directory_does_not_lead_files_elsewhere(client, published, tmp_path):
    job, _ = published
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "decoded").symlink_to(outside)

    with pytest.raises(DownloadFailed, match="leads outside"):
        client.jobs.download(job.id, tmp_path / "here")

    assert not list(outside.rglob("*.png"))


def test_a_directory_that_cannot_be_written_is_an_error(client, published, tmp_path):
    job, _ = published
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(DownloadFailed, match="cannot write"):
        client.jobs.download(job.id, tmp_path / "file")


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "/etc/x",
        "a/../../x",
        "a\\b",
        "C:x",
        "",
        ".",
        "a//b",
        "./a",
        "manifest.json",
        "x.part",
        "a\nb",
        "MANIFEST.json",
    ],
)
def test_a_manifest_may_not_name_just_any_file(name):
    manifest = {"files": [{"path": name, "bytes": 1, "sha256": "0" * 64}]}

    with pytest.raises(DownloadFailed, match="may not be written"):
        plan(manifest, Path("here"))


def test_a_manifest_may_not_name_a_file_twice():
    files = [{"path": path, "bytes": 1, "sha256": "0" * 64} for path in ("a.png", "A.png")]

    with pytest.raises(DownloadFailed, match="may not be written"):
        plan({"files": files}, Path("here"))


@pytest.mark.parametrize("manifest", [[], {}, {"files": [{}]}, {"files": [{"path": "a", "bytes": "?", "sha256": "0"}]}])
def test_what_is_no_manifest_is_refused(manifest):
    with pytest.raises(DownloadFailed, match="not one"):
        plan(manifest, Path("here"))
