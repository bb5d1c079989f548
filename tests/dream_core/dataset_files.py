"""Writes small datasets in each real format, for tests."""

import io
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

CIFAR10_NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def random_images(n: int, channels: int, size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, channels, size, size), dtype=np.uint8)


def write_idx(folder: Path, train_labels: list[int], test_labels: list[int]) -> dict[str, np.ndarray]:
    """The four files of MNIST or FashionMNIST; returns the images written."""
    folder.mkdir(parents=True)
    written = {}
    for split, labels, seed in (("train", train_labels, 1), ("t10k", test_labels, 2)):
        images = random_images(len(labels), 1, 28, seed)[:, 0]
        header = struct.pack(">IIII", 2051, len(labels), 28, 28)
        (folder / f"{split}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        (folder / f"{split}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, len(labels)) + bytes(labels))
        written[split] = images
    return written


def write_svhn(folder: Path, train_labels: list[int], test_labels: list[int]) -> dict[str, np.ndarray]:
    """SVHN's two .mat files, in which zero has the label 10."""
    from scipy.io import savemat

    written = {}
    for split, labels, seed in (("train", train_labels, 1), ("test", test_labels, 2)):
        images = random_images(len(labels), 3, 32, seed)
        in_file = np.array([label or 10 for label in labels], dtype=np.uint8)[:, None]
        savemat(folder / f"{split}_32x32.mat", {"X": images.transpose(2, 3, 1, 0), "y": in_file})
        written[split] = images
    return written


def write_cifar10(folder: Path, labels: list[int], protocol: int = 2) -> np.ndarray:
    """CIFAR-10's seven pickles, each batch with the same labels; returns the training images in file order."""
    folder.mkdir(parents=True, exist_ok=True)
    images = random_images(6 * len(labels), 3, 32).reshape(6, len(labels), 3072)
    names = [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]
    for name, data in zip(names, images, strict=True):
        write_pickle(folder / name, {"data": data, "labels": labels, "batch_label": name, "filenames": []}, protocol)
    write_pickle(folder / "batches.meta", {"label_names": CIFAR10_NAMES, "num_cases_per_batch": 10000}, protocol)
    return images[:5].reshape(-1, 3, 32, 32)


def write_cifar100(folder: Path, labels: list[int], names: list[str]) -> np.ndarray:
    folder.mkdir(parents=True)
    data = random_images(len(labels), 3, 32).reshape(-1, 3072)
    for split in ("train", "test"):
        write_pickle(folder / split, {"data": data, "fine_labels": labels, "coarse_labels": labels})
    write_pickle(folder / "meta", {"fine_label_names": names, "coarse_label_names": []})
    return data.reshape(-1, 3, 32, 32)


def write_pickle(path: Path, content: object, protocol: int = 2) -> None:
    path.write_bytes(pickle.dumps(content, protocol=protocol))


def encode(pixels: np.ndarray, image_format: str = "PNG", **options) -> bytes:
    """An array [H, W] or [H, W, 3 or 4] as a file's bytes."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, image_format, **options)
    return buffer.getvalue()


def tree_files(size: int = 8, test: str = "test", per_class: dict[str, int] | None = None) -> dict[str, bytes]:
    """Names and bytes of a valid two-class tree."""
    files = {}
    for split, seed in (("train", 0), (test, 1)):
        for c, (name, count) in enumerate((per_class or {"cat": 2, "dog": 3}).items()):
            for n, pixels in enumerate(random_images(count, 3, size, 10 * seed + c)):
                files[f"{split}/{name}/{n}.png"] = encode(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    return files


def write_tree(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def write_zip(path: Path, files: dict[str, bytes], prefix: str = "") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(prefix + name, data)
    return path
