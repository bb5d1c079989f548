"""Uploaded datasets in the database, and their files: what is conditional on what."""

import hashlib
import os
from datetime import timedelta

import pytest
from sqlalchemy import select, update

from jobs import repository, uploads
from jobs.lifecycle import Status
from jobs.parts import PART_BYTES, Interrupted, PartTooLarge, UploadFiles
from jobs.repository import utcnow
from jobs.spec import JobSpec
from jobs.tables import UploadedDataset, Webhook, WebhookDelivery
from jobs.uploads import InUse, NameTaken, NotReady

GOOD = {"ok": True, "fingerprint": "f" * 64, "classes": [{"name": "a", "train": 9}, {"name": "b", "train": 4}]}
BAD = {"ok": False, "fingerprint": None, "classes": [], "problems": []}
LEASE_S = 60


@pytest.fixture
def call(sessions):
    """A function of `uploads` in a transaction of its own."""

    def call(function, *args, **kwargs):
        with sessions.begin() as session:
            return function(session, *args, **kwargs)

    return call


@pytest.fixture
def dataset(call):
    return call(uploads.create, "ann", "pets", None, None)


@pytest.fixture
def waiting(call, dataset):
    """One that has been completed."""

    def completed(session):
        uploads.complete(session, uploads.lock(session, dataset.id), 1000, None)

    call(completed)
    return dataset


@pytest.fixture
def lapse(call):
    def lapse(dataset):
        call(
            lambda session: session.execute(update(UploadedDataset).values(lease_until=utcnow() - timedelta(seconds=1)))
        )

    return lapse


def submitted(session, dataset, owner="ann"):
    spec = JobSpec(dataset="digits", method="dream", ipc=1)
    return repository.create_job(session, spec, spec.resolve(), owner=owner, dataset_id=dataset.id)


def test_a_name_is_an_owners_own(call, dataset):
    with pytest.raises(NameTaken):
        call(uploads.create, "ann", "pets", None, None)
    assert call(uploads.create, "bob", "pets", 5, "0" * 64).status == "uploading"


def test_another_owners_dataset_is_not_there(call, dataset):
    assert call(uploads.get, dataset.id, "ann").id == call(uploads.get, dataset.id, None).id == dataset.id
    assert call(uploads.get, dataset.id, "bob") is None
    assert call(uploads.lock, dataset.id, "bob") is None
    assert call(uploads.delete, dataset.id, "bob") is False
    assert call(uploads.find_ready, "bob", "pets") is None
    assert call(uploads.list_uploads, 10, "bob") == ([], False)


def test_lists_go_on_behind_the_last(call):
    made = [call(uploads.create, "ann", f"pets-{n}", None, None).id for n in range(5)]
    seen, after = [], None
    for _ in range(3):
        page, more = call(uploads.list_uploads, 2, "ann", after)
        seen += [dataset.id for dataset in page]
        after = (page[-1].created_at, page[-1].id)
    assert seen == made[::-1]
    assert not more


def test_an_examination_is_one_workers_own(call, waiting, lapse):
    first = call(uploads.claim, LEASE_S)
    assert (first.id, first.attempt) == (waiting.id, 1)
    assert call(uploads.claim, LEASE_S) is None
    lapse(waiting)
    second = call(uploads.claim, LEASE_S)
    assert second.attempt == 2
    assert not call(uploads.renew, waiting.id, 1, LEASE_S)
    assert not call(uploads.settle, waiting.id, 1, BAD, None)
    assert call(uploads.renew, waiting.id, 2, LEASE_S)
    assert call(uploads.settle, waiting.id, 2, GOOD, "a" * 64)
    after = call(uploads.get, waiting.id)
    assert (after.status, after.fingerprint, after.smallest_class) == ("ready", "f" * 64, 4)
    assert (after.sha256, after.lease_until, after.report) == ("a" * 64, None, GOOD)
    assert call(uploads.claim, LEASE_S) is None


def test_what_is_given_back_is_not_a_loss(call, waiting):
    call(uploads.claim, LEASE_S)
    assert call(uploads.release, waiting.id, 1, 0)
    assert call(uploads.claim, LEASE_S).attempt == 1
    assert call(uploads.release, waiting.id, 1, 60)
    assert call(uploads.claim, LEASE_S) is None


def test_the_one_that_has_waited_longest_is_examined_first(call):
    datasets = [call(uploads.create, "ann", f"pets-{n}", None, None) for n in range(3)]
    for dataset in reversed(datasets):
        call(lambda session, of=dataset: uploads.complete(session, uploads.lock(session, of.id), 1, None))
    assert [call(uploads.claim, LEASE_S).name for _ in range(3)] == ["pets-2", "pets-1", "pets-0"]


def test_a_job_can_use_what_is_ready(call, waiting):
    with pytest.raises(NotReady, match="upload:pets is validating"):
        call(uploads.find_ready, "ann", "pets")
    call(uploads.claim, LEASE_S)
    call(uploads.settle, waiting.id, 1, GOOD, None)
    assert call(uploads.find_ready, "ann", "pets").id == waiting.id


def test_what_a_job_uses_is_not_deleted_until_the_job_is_over(call, dataset):
    job = call(submitted, dataset)
    with pytest.raises(InUse):
        call(uploads.delete, dataset.id, "ann")
    call(repository.request_cancel, job.id)
    assert call(uploads.delete, dataset.id, "ann")
    assert call(repository.get_job, job.id).status is Status.CANCELLED
    assert call(uploads.get, dataset.id) is None
    assert not call(uploads.is_there, dataset.id)


def test_webhooks_are_told_of_the_outcome(call, sessions, waiting):
    hook = Webhook(id="whk_1", owner="ann", url="https://a.example", events=[], generation=1, created_at=utcnow())
    call(lambda session: session.add(hook))
    call(uploads.claim, LEASE_S)
    call(uploads.settle, waiting.id, 1, BAD, None)
    with sessions() as session:
        (delivery,) = session.scalars(select(WebhookDelivery))
    assert (delivery.type, delivery.payload["data"]) == ("dataset.rejected", {"id": waiting.id})


def test_uploads_that_were_given_up(call, dataset, tmp_path):
    files, soon = UploadFiles(tmp_path, dataset.id), utcnow() + timedelta(seconds=5)
    assert call(uploads.abandoned, tmp_path, dataset.created_at) == []
    assert call(uploads.abandoned, tmp_path, soon) == [dataset.id]
    put(files, 1, b"x")
    later = (soon + timedelta(seconds=5)).timestamp()
    os.utime(tmp_path / dataset.id / ".parts", (later, later))
    assert call(uploads.abandoned, tmp_path, soon) == []


def test_files_that_belong_to_nobody(call, dataset, tmp_path):
    gone = "ds_" + "0" * 32
    assert call(uploads.orphans, tmp_path / "nowhere") == []
    for name in (dataset.id, gone, "something else"):
        put(UploadFiles(tmp_path, name), 1, b"x")
    assert call(uploads.orphans, tmp_path) == [gone]


# ---- files


@pytest.fixture
def files(tmp_path):
    return UploadFiles(tmp_path, "ds_1")


def put(files, number, *chunks):
    with files.incoming() as incoming:
        for chunk in chunks:
            incoming.write(chunk)
        incoming.finish()
        return files.keep(number, incoming)


def test_parts_are_joined_in_the_order_of_their_numbers(files):
    put(files, 2, b"two", b"2")
    part = put(files, 1, b"one")
    assert (part.number, part.bytes, part.sha256) == (1, 3, hashlib.sha256(b"one").hexdigest())
    assert [(part.number, part.bytes) for part in files.parts()] == [(1, 3), (2, 4)]
    assert files.join(None, lambda: True) == hashlib.sha256(b"onetwo2").hexdigest()
    assert files.zip.read_bytes() == b"onetwo2"
    assert files.parts() == []
    assert files.join(None, lambda: True) is None


def test_a_part_replaces_the_one_before(files):
    put(files, 1, b"old")
    put(files, 1, b"newer")
    put(files, 1, b"newer")
    assert [part.bytes for part in files.parts()] == [5]


def test_a_part_that_did_not_arrive_whole_leaves_nothing(files):
    with files.incoming() as incoming:
        incoming.write(b"x")
    assert files.parts() == []
    assert [*files.directory.rglob("incoming*")] == []


def test_a_part_is_not_written_beyond_its_limit(files):
    with files.incoming() as incoming:
        incoming.write(bytes(PART_BYTES))
        with pytest.raises(PartTooLarge):
            incoming.write(b"x")
        assert incoming.path.stat().st_size <= PART_BYTES


def test_what_has_another_checksum_is_not_joined(files):
    put(files, 1, b"one")
    assert files.join("0" * 64, lambda: True) == hashlib.sha256(b"one").hexdigest()
    assert not files.zip.exists()
    assert len(files.parts()) == 1


def test_joining_can_be_interrupted_and_begun_anew(files):
    for number in (1, 2, 3):
        put(files, number, b"%d" % number)
    answers = iter([True, True, False])
    with pytest.raises(Interrupted):
        files.join(None, lambda: next(answers))
    files.join(None, lambda: True)
    assert files.zip.read_bytes() == b"123"
