"""Built-in datasets, read from small files of each real format."""

import hashlib
import os
import pickle
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10

from dream_core.catalog import DATASETS
from dream_core.datasets import load_dataset
from dream_core.datasets.store import channel_statistics, sort_by_class
from dream_core.errors import DatasetInvalid, DatasetMissing, InvalidRecipe
from dream_core.inventory import find, inventory
from tests.dream_core.dataset_files import (
    encode,
    random_images,
    write_cifar10,
    write_cifar100,
    write_idx,
    write_pickle,
    write_svhn,
    write_tree,
)
from tests.fixtures.surroundings import REAL_DATA

IMBALANCED = [3, 1, 0, 3, 2, 4, 5, 6, 7, 8, 9, 3, 0]
EACH_ONCE = list(range(10))


def check_sorted(split, images, labels):
    """Class by class, in the order of the dataset, nothing lost."""
    labels = np.array(labels)
    assert split.images.dtype == torch.uint8
    assert split.images.is_contiguous()
    assert split.labels.tolist() == sorted(labels)
    assert split.counts == tuple(np.bincount(labels, minlength=len(split.counts)))
    for c in range(len(split.counts)):
        np.testing.assert_array_equal(split.of_class(c).numpy(), images[labels == c])
    assert split.of_class(0).untyped_storage().data_ptr() == split.images.untyped_storage().data_ptr()


def test_digits_are_always_there_and_as_the_catalog_says(tmp_path):
    digits = load_dataset("digits", tmp_path)
    facts = DATASETS["digits"]
    assert (len(digits.train), len(digits.test), min(digits.train.counts)) == (
        facts.train, facts.test, facts.smallest_class)  # fmt: skip
    assert digits.train.images.shape[1:] == (1, 8, 8)
    assert digits.train.images.max() == 255
    mean, std = channel_statistics(digits.train.images)
    assert mean == pytest.approx(facts.mean, abs=1e-4)
    assert std == pytest.approx(facts.std, abs=1e-4)


def test_every_fifth_digit_of_a_class_is_for_testing(tmp_path):
    from sklearn.datasets import load_digits

    digits = load_dataset("digits", tmp_path)
    values, target = load_digits(return_X_y=True)
    sevens = np.round(values[target == 7].reshape(-1, 8, 8) * 255 / 16)
    np.testing.assert_array_equal(digits.test.of_class(7)[:, 0].numpy(), sevens[4::5])
    assert len(digits.train.of_class(7)) == len(sevens) - len(sevens[4::5])


@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
def test_idx(tmp_path, name, folder):
    written = write_idx(tmp_path / folder / "raw", IMBALANCED, EACH_ONCE)
    dataset = load_dataset(name, tmp_path)
    check_sorted(dataset.train, written["train"][:, None], IMBALANCED)
    check_sorted(dataset.test, written["t10k"][:, None], EACH_ONCE)
    assert (dataset.mean, dataset.std, dataset.licence) == (
        DATASETS[name].mean, DATASETS[name].std, DATASETS[name].licence)  # fmt: skip
    assert len(dataset.class_names) == 10


def test_svhn_label_ten_is_zero(tmp_path):
    written = write_svhn(tmp_path, IMBALANCED, EACH_ONCE)
    dataset = load_dataset("svhn", tmp_path)
    check_sorted(dataset.train, written["train"], IMBALANCED)
    check_sorted(dataset.test, written["test"], EACH_ONCE)


@pytest.mark.parametrize("protocol", [2, 4])
def test_cifar10(tmp_path, protocol):
    images = write_cifar10(tmp_path / "cifar-10-batches-py", IMBALANCED, protocol)
    dataset = load_dataset("cifar10", tmp_path)
    check_sorted(dataset.train, images, IMBALANCED * 5)
    assert len(dataset.test) == len(IMBALANCED)
    assert dataset.class_names[0] == "airplane"


def test_cifar100_has_as_many_images_as_its_files(tmp_path):
    names = [f"class {n}" for n in range(100)]
    labels = [*range(99, -1, -1), 5, 5]
    images = write_cifar100(tmp_path / "cifar-100-python", labels, names)
    dataset = load_dataset("cifar100", tmp_path)
    check_sorted(dataset.train, images, labels)
    assert dataset.class_names == tuple(names)


class Hostile:
    """Unpickled by the ordinary reader, it would make a folder."""

    def __init__(self, victim):
        self.victim = str(victim)

    def __reduce__(self):
        return os.mkdir, (self.victim,)


@pytest.mark.parametrize("file", ["data_batch_1", "test_batch", "batches.meta"])
def test_a_hostile_pickle_is_refused_and_not_run(tmp_path, file):
    folder = tmp_path / "cifar-10-batches-py"
    write_cifar10(folder, EACH_ONCE)
    write_pickle(folder / file, {"data": Hostile(tmp_path / "pwned"), "labels": []})
    with pytest.raises(DatasetInvalid, match=f"{file} cannot be read: it asks for posix.mkdir.*it was not run"):
        load_dataset("cifar10", tmp_path)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    "pickled",
    [
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cnumpy\nload\n(S'x'\ntR.",
        b"c_codecs\nlookup\n(S'x'\ntR.",
        b"cnumpy.core.multiarray\nfromfile\n(S'x'\ntR.",
        pickle.dumps({"data": np.array([{}], dtype=object)}, protocol=2),
        pickle.dumps({"data": np.array([1.5])}, protocol=2),
        pickle.dumps({"data": np.zeros((1, 7), np.uint8), "labels": [0]}, protocol=2),
        pickle.dumps({"data": [1, 2], "labels": [0]}, protocol=2),
        pickle.dumps({"labels": [0]}, protocol=2),
        pickle.dumps([1], protocol=2),
        b"",
        b"not a pickle",
    ],
)
def test_anything_but_arrays_of_images_is_refused(tmp_path, pickled):
    folder = tmp_path / "cifar-10-batches-py"
    write_cifar10(folder, EACH_ONCE)
    (folder / "data_batch_3").write_bytes(pickled)
    with pytest.raises(DatasetInvalid, match="data_batch_3"):
        load_dataset("cifar10", tmp_path)


def test_a_truncated_batch_is_refused(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    write_cifar10(folder, EACH_ONCE)
    data = (folder / "data_batch_2").read_bytes()
    (folder / "data_batch_2").write_bytes(data[: len(data) // 2])
    with pytest.raises(DatasetInvalid, match=r"data_batch_2 cannot be read"):
        load_dataset("cifar10", tmp_path)


def test_labels_out_of_range_are_refused(tmp_path):
    write_cifar10(tmp_path / "cifar-10-batches-py", [*EACH_ONCE, 10])
    with pytest.raises(DatasetInvalid, match="labels go from 0 to 10, expected 0 to 9"):
        load_dataset("cifar10", tmp_path)


def test_a_class_without_images_is_named(tmp_path):
    write_idx(tmp_path / "FashionMNIST" / "raw", EACH_ONCE[:-1], EACH_ONCE)
    with pytest.raises(DatasetInvalid, match="no training images of class Ankle boot"):
        load_dataset("fashion_mnist", tmp_path)


def test_fewer_labels_than_images_are_refused():
    with pytest.raises(DatasetInvalid, match="2 labels do not fit images of shape"):
        sort_by_class(random_images(3, 1, 8), np.array([0, 1]), 2, "here")


@pytest.mark.parametrize("damage", [b"", b"\0\0\x08\x03", b"garbage" * 99])
def test_damaged_idx(tmp_path, damage):
    folder = tmp_path / "MNIST" / "raw"
    write_idx(folder, EACH_ONCE, EACH_ONCE)
    (folder / "train-images-idx3-ubyte").write_bytes(damage)
    with pytest.raises(DatasetInvalid, match="not idx files"):
        load_dataset("mnist", tmp_path)


@pytest.mark.parametrize("damage", [b"", b"garbage" * 99])
def test_damaged_mat(tmp_path, damage):
    write_svhn(tmp_path, EACH_ONCE, EACH_ONCE)
    (tmp_path / "test_32x32.mat").write_bytes(damage)
    with pytest.raises(DatasetInvalid, match=r"not \.mat files"):
        load_dataset("svhn", tmp_path)


@pytest.mark.parametrize("name", [name for name in DATASETS if name != "digits"])
def test_missing_files_are_named_with_their_place(tmp_path, name):
    with pytest.raises(DatasetMissing) as caught:
        load_dataset(name, tmp_path)
    found = find(name, tmp_path)
    assert not found.available
    assert str(caught.value) == found.advice
    assert all(file in found.advice for file in (*found.missing, str(found.path), "or allow downloads"))


def test_only_the_missing_files_are_named(tmp_path):
    write_cifar10(tmp_path / "cifar-10-batches-py", EACH_ONCE)
    (tmp_path / "cifar-10-batches-py" / "data_batch_4").unlink()
    assert find("cifar10", tmp_path).missing == ("data_batch_4",)


def test_inventory_lists_every_dataset(tmp_path):
    write_svhn(tmp_path, EACH_ONCE, EACH_ONCE)
    assert {found.name: found.available for found in inventory(tmp_path)} == {
        name: name in ("digits", "svhn") for name in DATASETS
    }


@pytest.fixture
def served(tmp_path):
    """The URL of a web server over `tmp_path`."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_failed_download_says_so(tmp_path, monkeypatch):
    """The loopback's discard port stands for an internet that is not there."""
    monkeypatch.setattr(CIFAR10, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz")
    with pytest.raises(DatasetMissing, match="cifar10 could not be downloaded"):
        load_dataset("cifar10", tmp_path, download=True)


def test_a_download_is_verified_unpacked_and_read(tmp_path, served, monkeypatch):
    write_cifar10(tmp_path / "made" / "cifar-10-batches-py", EACH_ONCE)
    archive = Path(shutil.make_archive(str(tmp_path / "cifar"), "gztar", tmp_path / "made"))
    monkeypatch.setattr(CIFAR10, "url", f"{served}/{archive.name}")
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    assert len(load_dataset("cifar10", tmp_path / "data", download=True).train) == 50

    monkeypatch.setattr(CIFAR10, "tgz_md5", "0" * 32)
    with pytest.raises(DatasetMissing, match="could not be downloaded"):
        load_dataset("cifar10", tmp_path / "other", download=True)


def test_unknown_names_and_sizes(tmp_path):
    with pytest.raises(InvalidRecipe, match="there is no dataset 'imagenet'"):
        load_dataset("imagenet", tmp_path)
    with pytest.raises(DatasetInvalid, match="digits has images of 8 pixels, not 32"):
        load_dataset("digits", tmp_path, image_size=32)
    assert load_dataset("digits", tmp_path, image_size=8).name == "digits"


def test_fingerprint_follows_every_byte(tmp_path):
    digits = load_dataset("digits", tmp_path)
    write_idx(tmp_path / "MNIST" / "raw", IMBALANCED, EACH_ONCE)
    first = load_dataset("mnist", tmp_path).fingerprint
    assert first == load_dataset("mnist", tmp_path).fingerprint
    assert len(first) == 64
    assert first != digits.fingerprint
    images = tmp_path / "MNIST" / "raw" / "t10k-images-idx3-ubyte"
    data = bytearray(images.read_bytes())
    data[-1] ^= 1
    images.write_bytes(data)
    assert load_dataset("mnist", tmp_path).fingerprint != first


# ---- Tiny ImageNet

WNIDS = ("n01443537", "n01629819")


def jpeg(shade: int, channels: int = 3) -> bytes:
    return encode(np.full((64, 64, 3) if channels == 3 else (64, 64), shade, np.uint8), "JPEG")


def write_original_tiny(root: Path) -> None:
    for c, wnid in enumerate(WNIDS):
        for n in range(3):
            write_tree(root, {f"train/{wnid}/images/{wnid}_{n}.JPEG": jpeg(100 * c + n)})
        write_tree(root, {f"train/{wnid}/{wnid}_boxes.txt": b"boxes"})
    write_tree(root, {"val/images/val_0.JPEG": jpeg(100, channels=1), "val/images/val_1.JPEG": jpeg(0)})
    annotations = f"val_0.JPEG\t{WNIDS[1]}\t0\t0\t62\t62\nval_1.JPEG\t{WNIDS[0]}\t0\t0\t1\t1\n"
    words = "n01443537\tgoldfish, Carassius auratus\nn01629819\tEuropean fire salamander, Salamandra\n"
    write_tree(root, {"val/val_annotations.txt": annotations.encode(), "words.txt": words.encode()})


def test_tinyimagenet_as_in_its_archive(tmp_path):
    write_original_tiny(tmp_path / "tiny-imagenet-200")
    tiny = load_dataset("tinyimagenet", tmp_path)
    assert tiny.train.counts == (3, 3)
    assert tiny.train.images[:, :, 0, 0].tolist() == [[v] * 3 for v in (0, 1, 2, 100, 101, 102)]
    assert tiny.test.images[:, :, 9, 9].tolist() == [[0] * 3, [100] * 3]
    assert tiny.class_names == ("goldfish", "European fire salamander")


def test_tinyimagenet_with_val_sorted_into_classes(tmp_path):
    root = tmp_path / "tiny-imagenet-200"
    for c, wnid in enumerate(WNIDS):
        write_tree(root, {f"train/{wnid}/a.JPEG": jpeg(c), f"val/{wnid}/b.JPEG": jpeg(9 + c)})
    tiny = load_dataset("tinyimagenet", tmp_path)
    assert tiny.class_names == WNIDS
    assert tiny.test.images[:, 0, 0, 0].tolist() == [9, 10]


def test_tinyimagenet_with_other_classes_in_val(tmp_path):
    root = tmp_path / "tiny-imagenet-200"
    write_tree(root, {"train/n1/a.JPEG": jpeg(0), "val/n2/b.JPEG": jpeg(0)})
    with pytest.raises(DatasetInvalid, match="must be the same"):
        load_dataset("tinyimagenet", tmp_path)


# ---- real files


@pytest.mark.data
@pytest.mark.parametrize("name", [name for name in DATASETS if name not in ("digits", "tinyimagenet")])
def test_real_files(name):
    data_dir = real_data(name)
    dataset, facts = load_dataset(name, data_dir), DATASETS[name]
    assert len(dataset.test) == facts.test
    if name != "cifar100":  # of which a subset does
        assert len(dataset.train) == facts.train
        assert min(dataset.train.counts) == facts.smallest_class
        mean, _ = channel_statistics(dataset.train.images)
        assert mean == pytest.approx(facts.mean, abs=1e-3)
    assert len(dataset.class_names) == facts.classes


@pytest.mark.data
def test_real_cifar10_as_torchvision_reads_it():
    data_dir = real_data("cifar10")
    theirs = CIFAR10(data_dir, train=False)
    ours = load_dataset("cifar10", data_dir)
    cats = theirs.data[np.array(theirs.targets) == 3].transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(ours.test.of_class(3).numpy(), cats)
    assert list(ours.class_names) == theirs.classes


@pytest.mark.data
def test_real_tinyimagenet():
    tiny = load_dataset("tinyimagenet", real_data("tinyimagenet"))
    assert len(tiny.class_names) == 200
    assert tiny.class_names[0] == "goldfish"
    assert tiny.train.images.shape[1:] == (3, 64, 64)


def real_data(name: str) -> Path:
    folder = REAL_DATA
    if not folder:
        pytest.skip("DREAM_DATA_DIR is not set")
    found = find(name, Path(folder))
    if not found.available:
        pytest.skip(found.advice)
    return Path(folder)
