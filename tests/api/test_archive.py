"""A result as one zip: every format opened by what it is for."""

import io
import time
import zipfile
from dataclasses import replace

import numpy as np
import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import save_file
from torchvision.datasets import ImageFolder

from api.archives import archive, folder_names
from api.zips import Member, zip_length, zipped
from dream_core.formats import write_result
from dream_core.images import Zca
from dream_core.subject import TrainingSet
from dream_core.synthetic import SyntheticSet
from jobs import repository
from jobs.artifacts import MANIFEST, Result, verify, write_manifest
from jobs.lifecycle import Status
from jobs.stores.local import LocalFiles
from tests.api.conftest import problem
from tests.dream_core.test_formats import make_result

CLASSES = ("zebra/quagga", "ant", "Ant")  # neither safe, nor in order, nor told apart by every file system


def make(**changes):
    """A small result of three classes, with names that need care."""
    result = make_result(**changes)
    return replace(result, dataset=replace(result.dataset, class_names=CLASSES))


def whitened():
    result = make()
    zca = Zca.fit(result.dataset.train.images)
    synthetic = SyntheticSet(result.synthetic.images, 3, 2, space=zca, bounded=False)
    return replace(result, synthetic=synthetic, training=TrainingSet(*synthetic.decoded(), zca))


@pytest.fixture
def publish(service, submit):
    """Publish a result; its job's id."""

    def publish(result) -> str:
        job_id = submit()
        service.claim(job_id)
        staged = service.store.stage()
        write_result(result, staged)
        verify(staged)
        with service.sessions.begin() as session:
            repository.settle(session, job_id, 1, Status.SUCCEEDED, result_summary={"accuracy": {"mean": 50.0}})
            service.store.publish(staged, job_id)
        return job_id

    return publish


@pytest.fixture
def fetch(http, tmp_path):
    """Download and unpack an archive; where it lies."""

    def fetch(job_id: str, wanted: str):
        response = http.get(f"/v1/jobs/{job_id}/archive", params={"format": wanted})
        assert response.status_code == 200, response.text
        directory = tmp_path / wanted
        with zipfile.ZipFile(io.BytesIO(response.content)) as file:
            assert file.testzip() is None
            assert {(entry.compress_type, entry.date_time[0]) for entry in file.infolist()} == {
                (zipfile.ZIP_STORED, 1980)
            }
            file.extractall(directory)
        return directory

    return fetch


def test_safetensors_are_the_published_files(service, publish, fetch):
    job_id = publish(make())
    unpacked, published = fetch(job_id, "safetensors"), service.store.directory(job_id)
    names = {path.name for path in published.iterdir()}
    assert {path.name for path in unpacked.iterdir()} == names
    assert all((unpacked / name).read_bytes() == (published / name).read_bytes() for name in names)


def test_npz_opens_in_numpy_without_pickles(http, publish):
    result = make()
    response = http.get(f"/v1/jobs/{publish(result)}/archive?format=npz")
    with np.load(io.BytesIO(response.content), allow_pickle=False) as arrays:
        assert set(arrays) == {"images", "labels", "class_names", "mean", "std"}
        assert (arrays["images"].dtype, arrays["labels"].dtype) == (np.float32, np.int64)
        assert np.array_equal(arrays["images"], result.training.images.numpy())
        assert np.array_equal(arrays["labels"], result.training.labels.numpy())
        assert arrays["class_names"].tolist() == list(CLASSES)
        assert np.allclose(arrays["std"], result.dataset.std)


def test_npz_of_a_whitened_set_has_what_whitens(http, publish):
    result = whitened()
    response = http.get(f"/v1/jobs/{publish(result)}/archive?format=npz")
    with np.load(io.BytesIO(response.content), allow_pickle=False) as arrays:
        assert set(arrays) == {"images", "labels", "class_names", "zca_mean", "zca_basis", "zca_values", "zca_eps"}
        deviation = np.sqrt(arrays["zca_values"].clip(0) + arrays["zca_eps"])
        matrix = arrays["zca_basis"] / deviation @ arrays["zca_basis"].T
        inputs = (arrays["images"].reshape(len(arrays["images"]), -1) - arrays["zca_mean"]) @ matrix
        assert np.allclose(inputs, result.training.transform(result.training.images).flatten(1), atol=1e-2)


@pytest.mark.parametrize("channels", [1, 3])
def test_imagefolder_opens_in_torchvision(publish, fetch, channels):
    result = make(channels=channels)
    directory = fetch(publish(result), "imagefolder")
    folder = ImageFolder(directory / "train")
    assert folder.classes == ["0_zebra_quagga", "1_ant", "2_Ant"]
    images = torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) for image, _ in folder]) / 255
    assert folder.targets == result.training.labels.tolist()
    error = (images - result.training.images).abs().max().item()
    assert 0 < error <= 0.5 / 255 + 1e-6
    about = (directory / "README.txt").read_text()
    assert float(about.partition("max_abs_error: ")[2].split()[0]) == pytest.approx(error, abs=1e-6)
    assert "0  0_zebra_quagga" in about
    with Image.open(directory / "train/1_ant/000.png") as image:
        assert image.mode == ("RGB" if channels == 3 else "L")


def test_hf_has_a_card_and_its_images_where_load_dataset_looks(publish, fetch):
    result = make()
    directory = fetch(publish(result), "hf")
    card = (directory / "README.md").read_text()
    head = card.split("---\n")[1]
    assert "path: data/train/**" in head
    assert "- dataset-distillation" in head
    assert 'pretty_name: "tiny distilled by dream, 2 per class"' in head
    assert "max_abs_error: 0.00" in card
    folder = ImageFolder(directory / "data/train")
    assert folder.targets == result.training.labels.tolist()


@pytest.mark.parametrize("wanted", ["imagefolder", "hf"])
def test_what_is_not_bounded_cannot_be_had_as_pictures(http, publish, wanted):
    response = http.get(f"/v1/jobs/{publish(whitened())}/archive?format={wanted}")
    document = problem(response, 422, "VALIDATION_FAILED")
    assert document["errors"][0]["pointer"] == "?format"
    assert "take npz or safetensors" in document["detail"]


def test_a_result_without_images_can_be_had_as_it_is_only(http, service, submit):
    job_id = submit()
    service.succeed(job_id, {"synthetic.safetensors": b"x"})
    problem(http.get(f"/v1/jobs/{job_id}/archive?format=npz"), 422, "VALIDATION_FAILED")
    assert http.get(f"/v1/jobs/{job_id}/archive").status_code == 200


def test_the_same_bytes_every_time_and_their_number_where_it_is_known(http, publish):
    url = f"/v1/jobs/{publish(make())}/archive"
    first = {wanted: http.get(url, params={"format": wanted}) for wanted in ("safetensors", "npz", "imagefolder", "hf")}
    time.sleep(2.1)  # zips count time by two seconds
    for wanted, response in first.items():
        assert http.get(url, params={"format": wanted}).content == response.content
        assert ("content-length" in response.headers) == (wanted in ("safetensors", "npz"))
        name = f"{url.split('/')[3]}.{'npz' if wanted == 'npz' else 'zip'}"
        assert response.headers["content-disposition"] == f'attachment; filename="{name}"'
        assert response.headers["content-type"] == "application/zip"
        again = http.get(url, params={"format": wanted}, headers={"If-None-Match": response.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")


def test_refused(http, submit):
    problem(http.get(f"/v1/jobs/{submit()}/archive?format=parquet"), 422, "VALIDATION_FAILED")
    problem(http.get(f"/v1/jobs/{submit()}/archive?format=npz"), 409, "ARTIFACT_NOT_READY")
    problem(http.get(f"/v1/jobs/job_{'0' * 32}/archive?format=npz"), 404, "NOT_FOUND")


# ---------------------------------------------------------------- parts


@given(st.dictionaries(st.text(st.characters(exclude_characters="/\\\0", codec="utf-8"), min_size=1, max_size=20),
                       st.lists(st.binary(max_size=50), max_size=4), max_size=8))  # fmt: skip
def test_the_length_of_a_zip_is_known_before_it_is_made(files):
    members = [Member(name, chunks, sum(map(len, chunks))) for name, chunks in files.items()]
    content = b"".join(zipped(members))
    assert zip_length(members) == len(content)
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        assert {name: file.read(name) for name in file.namelist()} == {
            name: b"".join(chunks) for name, chunks in files.items()
        }


@pytest.mark.nightly
def test_a_zip_of_more_than_four_gigabytes_is_whole_though_its_length_is_not_said():
    part, count = bytes(1 << 20), 4200
    members = [Member("big", (part for _ in range(count)), count << 20), Member("small", [b"x"], 1)]
    assert zip_length(members) is None
    total, tail = 0, b""
    for piece in zipped(members):
        total, tail = total + len(piece), (tail + piece)[-400:]
    assert total > 4 << 30
    assert b"PK\x06\x06" in tail  # the end of a zip64


@given(st.lists(st.text(max_size=40), min_size=1, max_size=12))
def test_folder_names_are_safe_apart_and_in_the_order_of_labels(names):
    folders = folder_names(names)
    assert folders == sorted(folders)
    assert len({folder.casefold() for folder in folders}) == len(names)
    for folder in folders:
        assert folder
        assert folder == folder.strip(" .")
        assert not set('/\\:*?"<>|\0\n') & set(folder)
        assert len(folder.encode()) < 255


def test_names_that_are_fine_stay_as_they_are():
    assert folder_names(["airplane", "automobile", "deer (red)"]) == ["airplane", "automobile", "deer (red)"]
    assert folder_names([str(digit) for digit in range(10)]) == [str(digit) for digit in range(10)]
    assert folder_names(["b", "a"]) == ["0_b", "1_a"]
    assert folder_names(["CON", "nul.txt"]) == ["CON_", "nul.txt_"]


@pytest.mark.parametrize("wanted", ["npz", "imagefolder"])
def test_large_sets_go_through_in_little_memory(tmp_path, wanted):
    """Read lazily: what the disk cache holds aside, no more than a few images at a time."""
    images = np.random.default_rng(0).random((600, 3, 64, 64), np.float32)
    save_file({"images": images, "labels": np.repeat(np.arange(10), 60)}, tmp_path / "decoded.safetensors")
    facts = {"dataset": {"name": "d", "licence": "none"}, "method": {"name": "m"}, "ipc": 60,
             "classes": [{"index": i, "name": str(i)} for i in range(10)],
             "preprocessing": {"value_range": "0..1", "mean": [0], "std": [1], "zca": None},
             "decode": {"decoded": 600}, "training": {"mode": "train"}}  # fmt: skip
    write_manifest(tmp_path, facts)
    del images
    made = archive(Result.of((tmp_path / MANIFEST).read_bytes(), LocalFiles(tmp_path)), wanted)
    pieces = iter(made.content)
    next(pieces)
    before = psutil.Process().memory_full_info().uss
    size = sum(map(len, pieces))
    assert size > 6e6
    assert psutil.Process().memory_full_info().uss - before < 4e6
