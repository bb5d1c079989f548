import hashlib
import os
import threading
import time
import zipfile

import pytest

from client import Client, NameTaken, NotFound, UploadFailed, ValidationFailed
from client.packing import pack
from jobs import uploads
from tests.fixtures.broker import free_port

REPORT = {
    "ok": True, "expected": "train/CLASS/*.png", "found": "train/cat/", "problems": [], "more_problems": 0,
    "warnings": ["few images"], "classes": [{"name": "cat", "train": 3, "test": 1}], "channels": 3,
    "size": {"min": [8, 8], "max": [16, 12]}, "fingerprint": "f" * 64,
}  # fmt: skip
PROBLEM = {"code": "NO_TEST", "path": "test/cat", "message": "there is no test/cat"}


def examine(service, **changes):
    """What a worker does with the dataset that has waited longest."""
    for _ in range(200):
        with service.sessions.begin() as session:
            if dataset := uploads.claim(session, 60):
                return uploads.settle(session, dataset.id, dataset.attempt, REPORT | changes, "0" * 64)
        time.sleep(0.05)
    raise AssertionError("nothing to examine")


@pytest.fixture
def folder(tmp_path):
    """A folder of what might be images, a file of which is behind a link, with what systems leave in folders."""
    for name in ("train/cat/1.png", "train/cat/2.png", "test/cat/1.png", "train/.DS_Store", ".git/config"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_bytes(os.urandom(5000))
    (tmp_path / "data" / "train" / "dog").symlink_to(tmp_path / "data" / "test" / "cat" / ".." / ".." / "dogs")
    (tmp_path / "data" / "dogs").mkdir()
    (tmp_path / "data" / "dogs" / "3.png").write_bytes(b"woof")
    return tmp_path / "data"


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr("client.datasets.PART_BYTES", 4000)


@pytest.fixture
def name(client):
    """A name that nothing has, and that nothing has afterwards."""
    name = f"cats-{time.monotonic_ns()}"
    yield name
    for dataset in client.datasets.list():
        client.datasets.delete(dataset["id"])


def test_a_folder_is_packed_without_litter_and_always_to_the_same_bytes(folder, tmp_path):
    (folder / "dogs").rename(tmp_path / "dogs")
    (folder / "train" / "dog").unlink()
    (folder / "train" / "dog").symlink_to(tmp_path / "dogs")
    seen = []

    pack(folder, tmp_path / "a.zip", lambda done, total: seen.append((done, total)))
    pack(folder, tmp_path / "b.zip", lambda *_: None)

    with zipfile.ZipFile(tmp_path / "a.zip") as packed:
        assert packed.namelist() == ["test/cat/1.png", "train/cat/1.png", "train/cat/2.png", "train/dog/3.png"]
        assert packed.read("train/dog/3.png") == b"woof"
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    assert seen[-1] == (15004, 15004)


def test_links_in_a_circle_are_refused(folder):
    (folder / "train" / "again").symlink_to(folder)

    with pytest.raises(UploadFailed, match="in it already"):
        pack(folder, folder.parent / "a.zip", lambda *_: None)


def test_an_upload_arrives_as_it_was_sent(client, service, tmp_path, small_parts, name):
    content = os.urandom(10_500)
    (tmp_path / "a.zip").write_bytes(content)
    steps = []

    sent = client.datasets.upload(tmp_path / "a.zip", name, lambda *step: steps.append(step))

    assert (sent["status"], sent["bytes"]) == ("validating", 10_500)
    parts = sorted((service.settings.uploads / sent["id"] / ".parts").iterdir())
    assert b"".join(part.read_bytes() for part in parts) == content
    assert [step for step in steps if step[0] == "sending"] == [
        ("sending", 4000, 10_500), ("sending", 8000, 10_500), ("sending", 10_500, 10_500),
    ]  # fmt: skip
    assert client.datasets.upload(tmp_path / "a.zip", name)["id"] == sent["id"]


def test_an_interrupted_upload_sends_only_what_is_missing(client, service, folder, small_parts, name):
    (folder / "train" / "dog").unlink()

    def interrupt(what, done, total):
        if (what, done) == ("sending", 8000):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        client.datasets.upload(folder, name, interrupt)
    begun = client.datasets.get(name)
    assert [part["number"] for part in begun["parts"]] == [1, 2]
    parts = service.settings.uploads / begun["id"] / ".parts"
    first = {path: path.stat().st_mtime_ns for path in parts.iterdir()}

    sent = client.datasets.upload(folder, name)

    assert (sent["id"], sent["status"]) == (begun["id"], "validating")
    assert {path: path.stat().st_mtime_ns for path in first} == first
    assert len(list(parts.iterdir())) > 2


def test_a_part_whose_answer_is_lost_is_sent_again(client, cutting_proxy, name):
    begun = client.datasets._begin(name, 10, "0" * 64)

    with Client(cutting_proxy(0, 1)) as cut:
        cut.datasets._send_part(
            f"{begun['urls']['self']}/parts/1", b"some bytes", hashlib.sha256(b"some bytes").digest()
        )

    assert [part["bytes"] for part in client.datasets.get(name)["parts"]] == [10]


def test_a_part_that_arrives_damaged_is_refused(client, name):
    begun = client.datasets._begin(name, 10, "0" * 64)

    with pytest.raises(ValidationFailed, match="SHA-256"):
        client.datasets._send_part(
            f"{begun['urls']['self']}/parts/1", b"some bytes", hashlib.sha256(b"others").digest()
        )

    assert client.datasets.get(name)["parts"] == []


def test_another_dataset_of_the_same_name_is_refused(client, tmp_path, name):
    for number in (1, 2):
        (tmp_path / f"{number}.zip").write_bytes(os.urandom(100))
    client.datasets.upload(tmp_path / "1.zip", name)

    with pytest.raises(NameTaken) as refused:
        client.datasets.upload(tmp_path / "2.zip", name)

    assert f"dream datasets rm {name}" in refused.value.advice


@pytest.mark.parametrize("what", ["nowhere", "empty"])
def test_what_cannot_be_read_is_refused_before_anything_is_sent(client, tmp_path, what):
    (tmp_path / "empty").mkdir()

    with pytest.raises(UploadFailed) as refused:
        client.datasets.upload(tmp_path / what, "nothing")

    assert "train/" in refused.value.advice
    assert list(client.datasets.list()) == []


def test_a_dataset_is_found_by_name_and_by_id_and_removed(client, tmp_path, name):
    (tmp_path / "a.zip").write_bytes(b"PK")
    sent = client.datasets.upload(tmp_path / "a.zip", name)

    assert client.datasets.get(f"upload:{name}")["id"] == client.datasets.get(sent["id"])["id"] == sent["id"]
    assert client.datasets.get("digits")["available"]
    client.datasets.delete(name)
    with pytest.raises(NotFound):
        client.datasets.get(name)
    with pytest.raises(UploadFailed, match="built in"):
        client.datasets.delete("digits")


def test_uploading_ends_with_what_the_service_found(dream, client, service, folder, name):
    (folder / "train" / "dog").unlink()
    examining = threading.Thread(target=examine, args=(service,))
    examining.start()

    result = dream("datasets", "upload", folder, "--name", name)

    examining.join()
    assert result.code == 0
    assert f"dream submit --dataset upload:{name} --ipc 1" in result.out
    assert "8×8 to 16×12" in result.out
    listed = dream("datasets")
    assert any(line.split()[:5] == [f"upload:{name}", "ready", "1", "3", "1"] for line in listed.out.splitlines())
    assert max(map(len, listed.out.splitlines())) <= 80
    [row] = [row for row in dream("datasets", "--json").json if row["name"] == name]
    assert row["available"] is True


def test_a_rejected_dataset_shows_what_is_wrong(dream, client, service, folder, name):
    (folder / "train" / "dog").unlink()
    changes = {"ok": False, "problems": [PROBLEM], "more_problems": 4, "fingerprint": None, "size": None}
    examining = threading.Thread(target=examine, args=(service,), kwargs=changes)
    examining.start()

    result = dream("datasets", "upload", folder, "--name", name)

    examining.join()
    assert result.code == 1
    for words in ("✗ test/cat: there is no test/cat", "and 4 more", "train/CLASS/*.png", f"dream datasets rm {name}"):
        assert words in result.out
    assert dream("datasets", "show", name, "--json").json["status"] == "rejected"
    assert dream("datasets", "rm", name).out == f"{name} is deleted\n"


def test_ctrl_c_while_uploading_says_how_to_go_on(dream, folder, name, monkeypatch):
    (folder / "train" / "dog").unlink()

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("client.datasets.Datasets.wait", interrupt)
    result = dream("datasets", "upload", folder, "--name", name)

    assert result.code == 130
    assert f"dream datasets show {name}" in result.err


def test_datasets_of_no_service_are_those_of_this_machine(dream):
    assert dream("datasets", "rm", "mine", "--url", f"http://127.0.0.1:{free_port()}").code == 3
