"""Workers that examine uploads: they settle, they die, they are told to stop, they lose the race."""

import hashlib
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from threading import Event, Thread
from zipfile import ZIP_STORED

import pytest
from sqlalchemy import update

from jobs import uploads
from jobs.parts import UploadFiles
from jobs.repository import utcnow
from jobs.tables import UploadedDataset
from tests.dream_core.dataset_files import tree_files
from tests.fixtures.hostile import NOISE, archive
from worker.datasets_chore import DatasetValidation

ROOT = Path(__file__).parents[2]
SLOW = {f"{split}/{c}/{n}.png": NOISE for split in ("train", "test") for c in "ab" for n in range(1500)}


@pytest.fixture
def upload(settings, sessions):
    """A completed upload of these bytes; its id."""

    def upload(data, sha256=None):
        with sessions.begin() as session:
            dataset = uploads.create(session, "ann", "pets", None, sha256)
            files = UploadFiles(settings.uploads, dataset.id)
            step = len(data) // 3 + 1
            for number, start in enumerate(range(0, len(data), step), start=1):
                with files.incoming() as incoming:
                    incoming.write(data[start : start + step])
                    incoming.finish()
                    files.keep(number, incoming)
            uploads.complete(session, dataset, len(data), None)
            return dataset.id

    return upload


@pytest.fixture
def look(sessions):
    def look(dataset_id):
        with sessions() as session:
            return uploads.get(session, dataset_id)

    return look


@pytest.fixture
def chore(settings, sessions):
    return DatasetValidation(settings, sessions, Event())


def entries(settings, dataset_id):
    place = settings.uploads / dataset_id
    return sorted(path.name for path in place.iterdir()) if place.exists() else None


def test_a_good_upload_becomes_ready(chore, upload, look, settings):
    data = archive(tree_files())
    dataset_id = upload(data, hashlib.sha256(data).hexdigest())
    assert chore() is True
    dataset = look(dataset_id)
    assert (dataset.status, dataset.smallest_class, dataset.attempt) == ("ready", 2, 1)
    assert dataset.report["classes"][1] == {"name": "dog", "train": 3, "test": 3}
    assert dataset.fingerprint == dataset.report["fingerprint"]
    assert entries(settings, dataset_id) == ["pets"]
    assert chore() is False


def test_a_bad_upload_is_rejected_and_its_files_are_gone(chore, upload, look, settings):
    dataset_id = upload(b"no zip at all")
    chore()
    dataset = look(dataset_id)
    assert (dataset.status, dataset.fingerprint, dataset.smallest_class) == ("rejected", None, None)
    assert dataset.report["problems"][0]["code"] == "NOT_A_ZIP"
    assert dataset.sha256 == hashlib.sha256(b"no zip at all").hexdigest()
    assert entries(settings, dataset_id) is None


def test_what_has_another_checksum_than_was_said_is_not_looked_at(chore, upload, look, settings):
    dataset_id = upload(archive(tree_files()), "0" * 64)
    chore()
    assert look(dataset_id).report["problems"][0]["code"] == "CHECKSUM"
    assert entries(settings, dataset_id) is None


def test_a_worker_that_shuts_down_gives_the_upload_back(chore, upload, look, settings, sessions):
    dataset_id = upload(archive(SLOW, ZIP_STORED))
    thread = Thread(target=chore)
    thread.start()
    while not list(settings.uploads.glob("*/.preparing-*")):
        time.sleep(0.01)
    chore.closing.set()
    thread.join(20)
    assert (look(dataset_id).status, look(dataset_id).attempt) == ("validating", 0)
    assert entries(settings, dataset_id) == [".raw.zip"]
    with sessions.begin() as session:
        assert uploads.claim(session, 3).attempt == 1


def test_a_dataset_that_is_deleted_meanwhile_leaves_nothing(chore, upload, sessions, settings):
    dataset_id = upload(archive(SLOW, ZIP_STORED))
    thread = Thread(target=chore)
    thread.start()
    while not list(settings.uploads.glob("*/.preparing-*")):
        time.sleep(0.01)
    with sessions.begin() as session:
        assert uploads.delete(session, dataset_id)
    UploadFiles(settings.uploads, dataset_id).discard()
    thread.join(20)
    assert entries(settings, dataset_id) is None


WORKER = """
import sys
from pathlib import Path
from threading import Event
from jobs.database import make_engine, make_sessions
from jobs.settings import Settings
from worker.datasets_chore import DatasetValidation

settings = Settings(home=Path(sys.argv[1]), lease_s=3, heartbeat_s=0.3)
DatasetValidation(settings, make_sessions(make_engine(settings.database_url)), Event())()
"""


def test_a_killed_worker_loses_its_lease_and_the_third_loss_is_the_end(chore, upload, look, settings, sessions):
    dataset_id = upload(archive(SLOW, ZIP_STORED))
    for attempt in (1, 2, 3):
        worker = subprocess.Popen([sys.executable, "-c", WORKER, str(settings.home)], cwd=ROOT)
        while not (look(dataset_id).attempt == attempt and (examiners := _children(worker.pid))):
            time.sleep(0.02)
        worker.kill()
        worker.wait()
        while any(Path(f"/proc/{pid}").exists() for pid in examiners):  # the kernel ends it with its parent
            time.sleep(0.02)
        with sessions.begin() as session:
            assert session.get(UploadedDataset, dataset_id).lease_until > utcnow()
            session.execute(update(UploadedDataset).values(lease_until=utcnow() - timedelta(seconds=1)))
    assert any(settings.uploads.glob("*/.preparing-*"))
    chore()
    assert look(dataset_id).status == "rejected"
    assert look(dataset_id).report["problems"][0]["code"] == "EXAMINATION_LOST"
    assert entries(settings, dataset_id) is None


def test_another_worker_goes_on_where_one_was_killed(chore, upload, look, settings, sessions):
    dataset_id = upload(archive(tree_files()))
    with sessions.begin() as session:
        uploads.claim(session, 3)
        session.execute(update(UploadedDataset).values(lease_until=utcnow() - timedelta(seconds=1)))
    UploadFiles(settings.uploads, dataset_id).join(None, lambda: True)
    (settings.uploads / dataset_id / ".preparing-x" / "tree").mkdir(parents=True)
    chore()
    assert (look(dataset_id).status, look(dataset_id).attempt) == ("ready", 2)
    assert entries(settings, dataset_id) == ["pets"]


def test_a_failing_disk_is_waited_for(chore, upload, look, settings):
    dataset_id = upload(archive(tree_files()))
    files = UploadFiles(settings.uploads, dataset_id)
    files.join(None, lambda: True)
    files.zip.rename(files.directory / "away")
    files.zip.mkdir()  # what cannot be read
    chore()
    assert (look(dataset_id).status, look(dataset_id).attempt) == ("validating", 0)
    assert look(dataset_id).lease_until > utcnow() + timedelta(seconds=30)


def _children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for place in found for child in place.read_text().split()]
