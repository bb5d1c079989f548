"""Datasets over HTTP: the built-in ones, and uploads from their creation to their end."""

import base64
import hashlib
import re
import socket
import threading
from urllib.parse import urlsplit

import pytest
from sqlalchemy import delete

from dream_core.catalog import DATASETS
from jobs import repository, uploads
from jobs.parts import PART_BYTES, UploadFiles
from jobs.spec import JobSpec
from jobs.tables import UploadedDataset
from tests.api.conftest import problem, serving

OCTETS = {"Content-Type": "application/octet-stream"}
REPORT = {
    "ok": True, "expected": "train/", "found": "train/", "problems": [], "more_problems": 0, "warnings": [],
    "classes": [{"name": "a", "train": 3, "test": 1}, {"name": "b", "train": 2, "test": 1}], "channels": 3,
    "size": {"min": [8, 8], "max": [9, 9]}, "fingerprint": "f" * 64,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _no_uploads(service, empty):
    with service.sessions.begin() as session:
        session.execute(delete(UploadedDataset))


@pytest.fixture
def create(http):
    """Begin an upload; the answer."""

    def create(name="pets", **more):
        response = http.post("/v1/datasets", json={"name": name} | more)
        assert response.status_code == 201, response.text
        return response.json()

    return create


@pytest.fixture
def put(http):
    def put(dataset, number, data, **headers):
        return http.put(dataset["urls"]["parts"].format(n=number), content=data, headers=OCTETS | headers)

    return put


@pytest.fixture
def settled(service):
    """Do what a worker does with an upload that is complete."""

    def settled(dataset, **report):
        with service.sessions.begin() as session:
            claimed = uploads.claim(session, 60)
            assert claimed.id == dataset["id"]
            assert uploads.settle(session, claimed.id, claimed.attempt, REPORT | report, "a" * 64)

    return settled


def digest(data):
    return f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"


# ---- the built-in ones


def test_the_list_shows_built_in_datasets_and_uploads(http, create, service):
    made = [create(f"pets-{n}")["id"] for n in range(3)]
    answer = http.get("/v1/datasets", params={"limit": 2}).json()
    assert [dataset["name"] for dataset in answer["data"]] == [*DATASETS]
    assert [dataset["id"] for dataset in answer["uploads"]] == made[:0:-1]
    assert answer["has_more"]
    rest = http.get("/v1/datasets", params={"cursor": answer["next_cursor"]}).json()
    assert [dataset["id"] for dataset in rest["uploads"]] == made[:1]
    assert rest["next_cursor"] is None


def test_a_built_in_dataset_by_its_name(http):
    assert http.get("/v1/datasets/digits").json()["available"]
    problem(http.get("/v1/datasets/nothing"), 404, "NOT_FOUND")


def test_no_path_of_the_server_is_shown(http, service):
    answer = http.get("/v1/datasets").text
    assert str(service.settings.home) not in answer
    assert "<data>/MNIST/raw" in answer


# ---- an upload


def test_an_upload_from_its_creation_to_a_job(http, create, put, settled, service):
    dataset = create(bytes=7, sha256=hashlib.sha256(b"onetwo2").hexdigest())
    assert re.fullmatch(r"ds_[0-9a-f]{32}", dataset["id"])
    assert (dataset["status"], dataset["dataset"], dataset["part_bytes"]) == ("uploading", "upload:pets", PART_BYTES)
    assert dataset["parts"] == []
    assert put(dataset, 2, b"two2").json() == {
        "number": 2, "bytes": 4, "sha256": hashlib.sha256(b"two2").hexdigest()
    }  # fmt: skip
    assert put(dataset, 1, b"one").status_code == 200
    shown = http.get(dataset["urls"]["self"]).json()
    assert [(part["number"], part["bytes"]) for part in shown["parts"]] == [(1, 3), (2, 4)]
    response = http.post(dataset["urls"]["complete"], json={"parts": 2})
    assert (response.status_code, response.json()["status"]) == (202, "validating")
    assert response.headers["Retry-After"]
    assert http.get(dataset["urls"]["self"]).headers["Retry-After"]
    settled(dataset)
    ready = http.get(dataset["urls"]["self"]).json()
    assert (ready["status"], ready["smallest_class"], ready["fingerprint"]) == ("ready", 2, "f" * 64)
    assert ready["report"] == REPORT
    assert "Retry-After" not in http.get(dataset["urls"]["self"]).headers


def test_the_address_of_what_was_created(http):
    response = http.post("/v1/datasets", json={"name": "pets"})
    assert response.headers["Location"] == response.json()["urls"]["self"]


def test_a_part_that_is_sent_again_replaces_the_one_before(create, put, http):
    dataset = create()
    for data in (b"old", b"newer", b"newer"):
        assert put(dataset, 1, data).status_code == 200
    (part,) = http.get(dataset["urls"]["self"]).json()["parts"]
    assert part == {"number": 1, "bytes": 5, "sha256": hashlib.sha256(b"newer").hexdigest()}


@pytest.mark.parametrize("header", ["Content-Digest", "Repr-Digest"])
def test_digests_are_compared(create, put, http, header):
    dataset = create()
    assert put(dataset, 1, b"right", **{header: f"md5=:AAAA:, {digest(b'right')}"}).status_code == 200
    answer = problem(put(dataset, 2, b"wrong", **{header: digest(b"right")}), 422, "VALIDATION_FAILED")
    assert answer["errors"][0]["code"] == "DIGEST_MISMATCH"
    assert len(http.get(dataset["urls"]["self"]).json()["parts"]) == 1


def test_a_part_that_is_cut_off_leaves_nothing(create, service, http):
    dataset = create()
    address = urlsplit(service.url)
    path = dataset["urls"]["parts"].format(n=1)
    with socket.create_connection((address.hostname, address.port)) as connection:
        head = f"PUT {path} HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Type: application/octet-stream\r\n"
        connection.sendall(head.encode() + b"Content-Length: 100000\r\n\r\n" + bytes(50_000))
    for _ in range(200):
        if not list(UploadFiles(service.settings.uploads, dataset["id"]).directory.glob(".parts/incoming*")):
            break
        threading.Event().wait(0.01)
    assert http.get(dataset["urls"]["self"]).json()["parts"] == []
    assert [*(service.settings.uploads / dataset["id"]).glob(".parts/*")] == []


def test_a_large_part_is_taken_whole_and_a_larger_one_is_not(create, put, http):
    dataset = create()
    assert put(dataset, 1, bytes(PART_BYTES)).json()["bytes"] == PART_BYTES
    problem(put(dataset, 2, bytes(PART_BYTES + 1)), 413, "PAYLOAD_TOO_LARGE")

    def chunks():
        for _ in range(65):
            yield bytes(1 << 20)

    problem(put(dataset, 2, chunks()), 413, "PAYLOAD_TOO_LARGE")
    assert len(http.get(dataset["urls"]["self"]).json()["parts"]) == 1


def test_no_more_comes_than_was_said(create, put):
    dataset = create(bytes=5)
    assert put(dataset, 1, b"123").status_code == 200
    problem(put(dataset, 2, b"456"), 413, "PAYLOAD_TOO_LARGE")
    assert put(dataset, 1, b"12345").status_code == 200


def test_uploads_have_a_limit(settings):
    with serving(settings.model_copy(update={"max_upload_bytes": 5})) as service:
        import httpx2

        with httpx2.Client(base_url=service.url) as http:
            problem(http.post("/v1/datasets", json={"name": "large", "bytes": 6}), 413, "PAYLOAD_TOO_LARGE")
            dataset = http.post("/v1/datasets", json={"name": "large"}).json()
            address = dataset["urls"]["parts"]
            assert http.put(address.format(n=1), content=b"123", headers=OCTETS).status_code == 200
            problem(http.put(address.format(n=2), content=b"456", headers=OCTETS), 413, "PAYLOAD_TOO_LARGE")


def test_nothing_is_uploaded_to_a_full_disk(settings):
    with serving(settings.model_copy(update={"disk_high_water": 1e-9})) as service:
        import httpx2

        with httpx2.Client(base_url=service.url) as http:
            assert problem(http.post("/v1/datasets", json={"name": "large"}), 503, "OVERLOADED")["retry_after_s"]


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"{}", {"Content-Type": "application/json"}, 415),
        (b"x", {"Content-Type": "multipart/form-data"}, 415),
        (b"", OCTETS, 422),
        (b"x", OCTETS | {"Origin": "https://elsewhere.example"}, 403),
    ],
)
def test_what_is_no_part(create, http, content, headers, status):
    dataset = create()
    assert http.put(dataset["urls"]["parts"].format(n=1), content=content, headers=headers).status_code == status


@pytest.mark.parametrize("number", [0, 10_001, "x"])
def test_numbers_of_parts(create, put, number):
    problem(put(create(), number, b"x"), 422, "VALIDATION_FAILED")


def test_only_parts_may_be_other_than_json(http, create):
    dataset = create()
    problem(http.post("/v1/datasets", content=b"x", headers=OCTETS), 415, "UNSUPPORTED_MEDIA")
    problem(http.put("/v1/jobs/x/parts/1", content=b"x", headers=OCTETS), 415, "UNSUPPORTED_MEDIA")
    problem(http.post(dataset["urls"]["parts"].format(n=1), content=b"x", headers=OCTETS), 405, "METHOD_NOT_ALLOWED")


# ---- creating and completing


@pytest.mark.parametrize(
    "name", ["", "Pets", "-pets", ".pets", "a/b", "..", "p" * 65, "pets ", "pets\n", "pet\u00e9", 7]
)
def test_names(http, name):
    problem(http.post("/v1/datasets", json={"name": name}), 422, "VALIDATION_FAILED")


@pytest.mark.parametrize(
    "more", [{"bytes": 0}, {"bytes": "9"}, {"sha256": "x"}, {"sha256": "F" * 64}, {"owner": "bob"}]
)
def test_what_may_be_said(http, more):
    problem(http.post("/v1/datasets", json={"name": "pets"} | more), 422, "VALIDATION_FAILED")


def test_a_name_is_taken_until_its_dataset_is_deleted(http, create):
    dataset = create()
    problem(http.post("/v1/datasets", json={"name": "pets"}), 409, "NAME_TAKEN")
    assert http.delete(dataset["urls"]["self"]).status_code == 204
    create()


def test_all_parts_must_have_arrived(http, create, put):
    dataset = create()
    address = dataset["urls"]["complete"]
    assert "have not arrived: 1" in problem(http.post(address), 409, "DATASET_NOT_READY")["detail"]
    put(dataset, 1, b"x")
    put(dataset, 3, b"x")
    assert "have not arrived: 2" in problem(http.post(address), 409, "DATASET_NOT_READY")["detail"]
    assert (
        "have not arrived: 2, 4" in problem(http.post(address, json={"parts": 4}), 409, "DATASET_NOT_READY")["detail"]
    )
    put(dataset, 2, b"x")
    problem(http.post(address, json={"parts": 2}), 422, "VALIDATION_FAILED")
    assert http.post(address, json={"parts": 3}).status_code == 202


def test_all_bytes_must_have_arrived(http, create, put):
    dataset = create(bytes=3)
    put(dataset, 1, b"xx")
    problem(http.post(dataset["urls"]["complete"]), 409, "DATASET_NOT_READY")
    put(dataset, 2, b"x")
    assert http.post(dataset["urls"]["complete"]).json()["bytes"] == 3


def test_the_checksum_is_said_once(http, create, put):
    dataset = create(sha256="0" * 64)
    put(dataset, 1, b"x")
    answer = problem(http.post(dataset["urls"]["complete"], json={"sha256": "1" * 64}), 422, "VALIDATION_FAILED")
    assert answer["errors"][0]["pointer"] == "#/sha256"
    other = create("other")
    put(other, 1, b"x")
    assert http.post(other["urls"]["complete"], json={"sha256": "1" * 64}).json()["sha256"] == "1" * 64


def test_completing_twice_is_harmless_and_nothing_is_sent_afterwards(http, create, put, settled):
    dataset = create()
    put(dataset, 1, b"x")
    for _ in range(2):
        assert http.post(dataset["urls"]["complete"]).json()["status"] == "validating"
    problem(put(dataset, 2, b"x"), 409, "DATASET_NOT_READY")
    settled(dataset, ok=False, fingerprint=None, problems=[{"code": "X", "path": "", "message": "mend it"}])
    answer = http.post(dataset["urls"]["complete"]).json()
    assert answer["status"] == "rejected"
    assert answer["report"]["problems"] == [{"code": "X", "path": "", "message": "mend it"}]


# ---- deleting


def test_deleting_takes_the_files_along(http, create, put, service):
    dataset = create()
    put(dataset, 1, b"x")
    assert (service.settings.uploads / dataset["id"]).exists()
    assert http.delete(dataset["urls"]["self"]).status_code == 204
    assert not (service.settings.uploads / dataset["id"]).exists()
    problem(http.get(dataset["urls"]["self"]), 404, "NOT_FOUND")
    problem(http.delete(dataset["urls"]["self"]), 404, "NOT_FOUND")
    problem(put(dataset, 1, b"x"), 404, "NOT_FOUND")


def test_what_is_used_is_not_deleted(http, create, service):
    dataset = create()
    spec = JobSpec(dataset="digits", method="dream", ipc=1)
    job = service.call(repository.create_job, spec, spec.resolve(), dataset_id=dataset["id"])
    problem(http.delete(dataset["urls"]["self"]), 409, "DATASET_IN_USE")
    http.post(f"/v1/jobs/{job.id}/cancel")
    assert http.delete(dataset["urls"]["self"]).status_code == 204


@pytest.mark.parametrize("dataset_id", ["ds_1", "ds_" + "0" * 32, "digits", "%00", ".."])
def test_there_is_no_such_upload(http, dataset_id):
    address = f"/v1/datasets/{dataset_id}"
    assert http.delete(address).status_code in (404, 405)
    assert http.put(f"{address}/parts/1", content=b"x", headers=OCTETS).status_code in (404, 415)
    assert http.post(f"{address}/complete").status_code == 404
