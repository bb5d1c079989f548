"""Uploaded zips, each examined in a real process: what is refused and why, and what becomes of good ones."""

import io
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from PIL import Image

from dream_core.datasets import load_dataset
from tests.dream_core.dataset_files import encode, random_images, tree_files, write_tree
from tests.fixtures.hostile import CORPUS, FINE, NOISE, SVG, archive, tree, with_file
from worker.examination import Bounds
from worker.pictures import prepare
from worker.report import EXPECTED
from worker.unpacking import Limits, Refused
from worker.validation import Unfinished, validate

ROOT = Path(__file__).parents[2]
LIMITS, BOUNDS = Limits(), Bounds()


@pytest.fixture
def examine(tmp_path):
    """The report on a zip of these bytes; good ones become `tmp_path`/uploads/mine."""

    def examine(data, limits=LIMITS, bounds=BOUNDS, **options):
        (tmp_path / "it.zip").write_bytes(data)
        return validate(tmp_path / "it.zip", tmp_path / "uploads", "mine", limits, bounds, **options)

    return examine


def codes(report):
    return [problem["code"] for problem in report.problems]


# ---- what is refused


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """The whole corpus, examined one after the other by a process that does nothing else."""
    folder = tmp_path_factory.mktemp("corpus")
    for number, hostile in enumerate(CORPUS.values()):
        (folder / f"{number}.zip").write_bytes(hostile.build())
    subprocess.run([sys.executable, "-m", "tests.worker.examiner", folder], check=True, cwd=ROOT)
    return json.loads((folder / "outcome.json").read_text()) | {"folder": folder}


@pytest.mark.parametrize("name", CORPUS)
def test_hostile_zips_are_refused_with_a_message_and_leave_nothing_behind(outcome, name):
    number = str([*CORPUS].index(name))
    report = outcome["reports"][number]
    assert not report["ok"]
    assert CORPUS[name].code in [problem["code"] for problem in report["problems"]]
    assert all(len(problem["message"]) > 15 for problem in report["problems"])
    assert report["expected"] == EXPECTED
    assert report["fingerprint"] is None
    assert str(outcome["folder"]) not in json.dumps(report)
    assert [*(outcome["folder"] / number).iterdir()] == []


def test_hostile_zips_take_little_memory(outcome):
    assert outcome["memory"] < 200 << 20


def test_the_largest_images_take_bounded_memory(tmp_path):
    """The most pixels that are accepted, in the format that takes the most memory."""
    data = io.BytesIO()
    Image.new("RGBA", (5000, 5000), (1, 2, 3, 4)).save(data, "WEBP", lossless=True, method=0)
    (tmp_path / "it.zip").write_bytes(with_file(data.getvalue(), "train/cat/9.webp"))
    subprocess.run([sys.executable, "-m", "tests.worker.examiner", tmp_path], check=True, cwd=ROOT)
    outcome = json.loads((tmp_path / "outcome.json").read_text())
    assert outcome["reports"]["it"]["ok"]
    assert outcome["memory"] < 600 << 20


def test_a_report_says_what_was_found(examine):
    data = archive(
        {f"pets/train/{name}/0.png": NOISE for name in ("cat", "dog")} | {"pets/README.md": b"", "pets/test.txt": b""}
    )
    report = examine(data)
    assert codes(report) == ["NO_SPLIT"]
    assert report.found.splitlines() == ["pets/  2 files", "  train/", "    cat/  1 file", "    dog/  1 file"]
    assert "there is no test/ or val/" in report.problems[0]["message"]


def test_a_tree_of_many_classes_is_drawn_in_thirty_lines(examine):
    names = [f"{split}/{c:03}/{n}.txt" for split in ("train", "test", *"abcdef") for c in range(60) for n in range(2)]
    report = examine(tree(*names))
    lines = report.found.splitlines()
    assert len(lines) <= 30
    assert "  … and 52 more" in lines


def test_every_bad_image_is_named_up_to_fifty(examine):
    report = examine(archive(tree_files() | {f"train/cat/bad {n:02}.jpg": SVG for n in range(70)}))
    assert codes(report) == ["NOT_AN_IMAGE"] * 50
    assert report.problems[7]["path"] == "train/cat/bad 07.jpg"
    assert report.more_problems == 20


def test_all_that_is_wrong_is_said_at_once(examine):
    report = examine(archive(tree_files() | {"train/fox/0.png": SVG, "train/cat/notes.txt": b"", "test/owl/": b""}))
    assert sorted(codes(report)) == ["CLASS_IN_ONE_SPLIT", "EMPTY_CLASS", "NOT_AN_IMAGE", "WRONG_EXTENSION"]
    assert {"name": "fox", "train": 1, "test": 0} in report.classes


def test_what_is_made_may_not_be_larger_than_what_is_allowed(examine, tmp_path):
    noise = Image.effect_noise((256, 256), 90)
    data = io.BytesIO()
    noise.save(data, "JPEG", quality=10)
    files = {f"{split}/{c}/{n}.jpg": data.getvalue() for split in ("train", "test") for c in "ab" for n in range(5)}
    zipped = archive(files)
    report = examine(zipped, Limits(total_bytes=len(data.getvalue()) * 21))
    assert codes(report) == ["TOO_LARGE"]
    assert [*(tmp_path / "uploads").iterdir()] == []


# ---- bounds of the process


def test_too_much_memory(examine):
    large = encode(np.zeros((4000, 4000, 3), np.uint8))
    report = examine(with_file(large), bounds=Bounds(memory_bytes=100 << 20))
    assert codes(report) in (["TOO_MANY_PIXELS"], ["TOO_COSTLY"])


def test_too_much_time(examine, tmp_path):
    files = {f"{split}/{c}/{n}.png": NOISE for split in ("train", "test") for c in "ab" for n in range(2000)}
    data = archive(files)
    assert codes(examine(data, bounds=Bounds(cpu_s=1))) == ["TOO_COSTLY"]
    assert codes(examine(data, bounds=Bounds(wall_s=0.5))) == ["TOO_COSTLY"]
    assert [*(tmp_path / "uploads").iterdir()] == []


def test_it_ends_when_it_is_told_to(examine, tmp_path):
    files = {f"{split}/{c}/{n}.png": NOISE for split in ("train", "test") for c in "ab" for n in range(2000)}
    with pytest.raises(Unfinished):
        examine(archive(files), go_on=lambda: False)
    assert [*(tmp_path / "uploads").iterdir()] == []
    assert _examiners() == []


def test_a_killed_process_is_not_the_uploads_fault(examine, tmp_path):
    files = {f"{split}/{c}/{n}.png": NOISE for split in ("train", "test") for c in "ab" for n in range(2000)}

    def kill():
        while not (found := _examiners()):
            pass
        os.kill(found[0], signal.SIGKILL)

    killer = Thread(target=kill)
    killer.start()
    with pytest.raises(Unfinished):
        examine(archive(files))
    killer.join()
    assert [*(tmp_path / "uploads").iterdir()] == []


def test_a_full_disk_is_not_the_uploads_fault(small_disk, tmp_path):
    disk = small_disk("200k")
    noise = encode(np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8))
    (tmp_path / "it.zip").write_bytes(
        archive({f"{s}/{c}/{n}.png": noise for s in ("train", "test") for c, n in ("a0", "b0", "b1")})
    )
    with pytest.raises(OSError, match="the disk is full"):
        validate(tmp_path / "it.zip", disk / "uploads", "mine", Limits(), Bounds())
    assert [*(disk / "uploads").iterdir()] == []


def test_what_a_killed_worker_left_behind_is_removed(examine, tmp_path):
    write_tree(tmp_path / "uploads", {".preparing-x/tree/train/a/0.png": b"", "mine/train/old/0.png": b""})
    assert examine(tree(*FINE)).ok
    assert [path.name for path in (tmp_path / "uploads").iterdir()] == ["mine"]
    assert not (tmp_path / "uploads/mine/train/old").exists()


# ---- what is accepted


@pytest.mark.parametrize("prefix", ["", "my pets/"])
def test_a_good_zip_gives_the_pixels_of_its_images(examine, tmp_path, prefix):
    files = tree_files()
    report = examine(archive({prefix + name: data for name, data in files.items()} | {"__MACOSX/x": b""}))
    assert report.ok, report.problems
    assert report.problems == []
    assert report.warnings == ["left out what belongs to no dataset: __MACOSX/x"]
    assert report.classes == [{"name": "cat", "train": 2, "test": 2}, {"name": "dog", "train": 3, "test": 3}]
    assert (report.channels, report.size) == (3, {"min": [8, 8], "max": [8, 8]})
    prepared = sorted(
        path.relative_to(tmp_path / "uploads").as_posix() for path in tmp_path.glob("uploads/mine/*/cat/*")
    )
    assert prepared == [f"mine/{split}/cat/00000{n}.png" for split in ("test", "train") for n in (1, 2)]
    write_tree(tmp_path / "plain", files)
    plain = load_dataset("folder:plain", tmp_path, image_size=8)
    uploaded = load_dataset("upload:mine", tmp_path / "uploads", image_size=8)
    assert uploaded.fingerprint == plain.fingerprint
    assert uploaded.class_names == plain.class_names


def test_digits(examine, tmp_path):
    from sklearn.datasets import load_digits

    digits = load_digits()
    files = {
        f"{'test' if n % 5 == 0 else 'train'}/{label}/{n}.png": encode((pixels * 15).astype(np.uint8))
        for n, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True))
    }
    report = examine(archive(files))
    assert report.ok
    assert sum(of_class["train"] + of_class["test"] for of_class in report.classes) == 1797
    dataset = load_dataset("upload:mine", tmp_path / "uploads", image_size=8)
    assert sorted(dataset.class_names) == [str(digit) for digit in range(10)]
    assert dataset.train.images[:, 0].max() == 240


def test_the_fingerprint_is_of_the_content_and_not_of_the_zip(examine):
    files = tree_files()
    first = examine(archive(files)).fingerprint
    renamed = {f"around/{name.replace('test', 'val')}": data for name, data in reversed(files.items())}
    assert examine(archive(renamed)).fingerprint == first
    swapped = files | {"train/cat/0.png": files["train/cat/1.png"]}
    assert examine(archive(swapped)).fingerprint != first
    assert len(first) == 64


def test_jpeg_grey_and_large_images_among_others(examine, tmp_path):
    grey = np.full((8, 8), 100, np.uint8)
    wide = np.zeros((300, 900, 3), np.uint8)
    wide[:, 300:600] = 200
    files = tree_files() | {
        "train/cat/grey.png": encode(grey),
        "train/cat/photo.JPG": encode(np.full((64, 64, 3), 50, np.uint8), "JPEG"),
        "train/cat/wide.webp": encode(wide, "WEBP", lossless=True),
    }
    report = examine(archive(files))
    assert report.ok, report.problems
    assert report.size == {"min": [8, 8], "max": [900, 300]}
    assert report.warnings == [
        "1 images are not square: the square in their middle is taken",
        "1 of 13 images are grey: they are made RGB like the others",
    ]
    made = []
    for path in sorted((tmp_path / "uploads/mine/train/cat").iterdir()):
        with Image.open(path) as image:
            made.append(np.asarray(image))
    assert [image.shape for image in made[2:]] == [(8, 8, 3), (64, 64, 3), (256, 256, 3)]
    np.testing.assert_array_equal(made[2], 100)
    np.testing.assert_allclose(made[3], 50, atol=1)
    assert made[4].min() >= 180  # at the rim the black shines in


def test_images_are_turned_upright_and_lose_all_that_is_not_pixels(examine, tmp_path):
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:, :4] = 255
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "the secret place"
    photo = encode(pixels, "PNG", exif=exif, icc_profile=b"the secret profile", dpi=(72, 72))
    assert examine(archive(tree_files() | {"train/cat/9.png": photo + b"the secret end"})).ok
    made = tmp_path / "uploads/mine/train/cat/000003.png"
    assert b"secret" not in made.read_bytes()
    with Image.open(made) as image:
        assert image.info == {}
        assert np.asarray(image)[:4].min() == 255


def test_class_names_in_any_script(examine, tmp_path):
    files = {
        f"{split}/{name}/0.png": NOISE for split in ("train", "test") for name in ("\u732b", "caf\xe9 no. 1", "10")
    }
    report = examine(archive(files))
    assert report.ok, report.problems
    assert [of_class["name"] for of_class in report.classes] == ["10", "caf\xe9 no. 1", "\u732b"]
    assert load_dataset("upload:mine", tmp_path / "uploads", image_size=8).class_names == (
        "10",
        "caf\xe9 no. 1",
        "\u732b",
    )


def test_images_outside_of_the_splits_are_left_out_and_named(examine, tmp_path):
    report = examine(archive(tree_files() | {"unlabelled/9.png": NOISE, "val/cat/0.png": NOISE, "LICENSE": b"CC0"}))
    assert report.ok
    assert report.warnings == ["left out, as it lies outside of the splits: LICENSE, unlabelled, val"]
    assert sorted(path.name for path in (tmp_path / "uploads/mine").iterdir()) == ["test", "train"]


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP"])
def test_damaged_images_are_read_or_refused(image_format):
    """Whatever a decoder makes of wrong bytes, it is one image's problem."""
    whole = encode(random_images(1, 3, 40)[0].transpose(1, 2, 0).copy(), image_format)
    dice = np.random.default_rng(0)
    read = 0
    for _ in range(300):
        data = bytearray(whole)
        for place in dice.integers(0, len(data), 3):
            data[place] = dice.integers(0, 256)
        with suppress(Refused):
            assert prepare(f"x.{image_format.lower()}", bytes(data)).png.startswith(b"\x89PNG")
            read += 1
    assert read < 300


def _examiners() -> list[int]:
    """Processes of ours that examine a zip."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            status, command = (place / "stat").read_text(), (place / "cmdline").read_bytes()
        except OSError:
            continue
        if b"worker.examination" in command and int(status.rpartition(")")[2].split()[1]) == os.getpid():
            found.append(int(place.name))
    return found
