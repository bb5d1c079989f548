"""A user's own images: `folder:PATH`, as a tree and as a zip."""

import io
import stat
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from dream_core.datasets import files, load_dataset
from dream_core.datasets.store import channel_statistics
from dream_core.datasets.tree import to_pixels
from dream_core.errors import DatasetInvalid, DatasetMissing, InvalidRecipe
from dream_core.inventory import find
from tests.dream_core.dataset_files import encode, random_images, tree_files, write_tree, write_zip


def load_tree(tmp_path, contents, size=8):
    return load_dataset("folder:mine", write_tree(tmp_path / "mine", contents).parent, image_size=size)


def load_zip(tmp_path, contents, prefix=""):
    return load_dataset("folder:mine.zip", write_zip(tmp_path / "mine.zip", contents, prefix).parent, image_size=8)


@pytest.mark.parametrize("test", ["test", "val"])
def test_tree(tmp_path, test):
    dataset = load_tree(tmp_path, tree_files(test=test))
    assert dataset.class_names == ("cat", "dog")
    assert dataset.train.counts == dataset.test.counts == (2, 3)
    np.testing.assert_array_equal(dataset.train.of_class(1).numpy(), random_images(3, 3, 8, 1))
    np.testing.assert_array_equal(dataset.test.of_class(0).numpy(), random_images(2, 3, 8, 10))


def test_files_are_in_the_order_of_their_names(tmp_path):
    shades = {f"train/a/{name}.png": shade for shade, name in enumerate(["a", "b", "c"])}
    contents = {name: encode(np.full((8, 8, 3), shade, np.uint8)) for name, shade in reversed(shades.items())}
    dataset = load_tree(tmp_path, tree_files() | contents | {"test/a/0.png": contents["train/a/a.png"]})
    assert dataset.train.of_class(0)[:, 0, 0, 0].tolist() == [0, 1, 2]


def test_test_is_preferred_to_val(tmp_path):
    dataset = load_tree(tmp_path, tree_files(test="val") | tree_files(test="test", per_class={"cat": 5, "dog": 5}))
    assert dataset.test.counts == (5, 5)


def test_absolute_path(tmp_path):
    root = write_tree(tmp_path / "mine", tree_files(size=32))
    dataset = load_dataset(f"folder:{root}", tmp_path / "elsewhere")
    assert dataset.train.images.shape[1:] == (3, 32, 32)


def test_an_uploaded_dataset_is_a_folder_of_its_own_name(tmp_path):
    folder = load_tree(tmp_path, tree_files())
    uploaded = load_dataset("upload:mine", tmp_path, image_size=8)
    assert (uploaded.name, uploaded.fingerprint) == ("upload:mine", folder.fingerprint)


@pytest.mark.parametrize("name", ["", "../mine", "a/b", "Mine", ".mine", "/mine", "mine\n", "m" * 65])
def test_names_that_no_upload_has(tmp_path, name):
    with pytest.raises(InvalidRecipe, match="upload:NAME"):
        find(f"upload:{name}", tmp_path)


@pytest.mark.parametrize("prefix", ["", "my images/"])
def test_zip_equals_tree(tmp_path, prefix):
    contents = tree_files()
    litter = {
        "__MACOSX/train/cat/._0.png": b"x",
        f"{prefix}train/.DS_Store": b"x",
        f"{prefix}train/cat/Thumbs.db": b"x",
    }
    write_zip(tmp_path / "mine.zip", {prefix + name: data for name, data in contents.items()} | litter)
    zipped = load_dataset("folder:mine.zip", tmp_path, image_size=8)
    tree = load_tree(tmp_path, contents | {"train/.DS_Store": b"x"})
    assert zipped.fingerprint == tree.fingerprint
    assert zipped.class_names == tree.class_names


def test_statistics_are_those_of_the_training_images(tmp_path):
    dataset = load_tree(tmp_path, tree_files())
    pixels = dataset.train.images.double() / 255
    assert dataset.mean == pytest.approx(pixels.mean((0, 2, 3)).tolist(), abs=1e-12)
    assert dataset.std == pytest.approx(pixels.std((0, 2, 3), correction=0).tolist(), abs=1e-12)


def test_statistics_of_a_flat_channel_can_be_divided_by():
    mean, std = channel_statistics(torch.full((5, 1, 4, 4), 51, dtype=torch.uint8), chunk=2)
    assert mean == pytest.approx([0.2])
    assert std == pytest.approx([1 / 255])


# ---- pictures of every kind


def test_grey_becomes_rgb():
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    np.testing.assert_array_equal(to_pixels(encode(grey), 8), np.repeat(grey[:, :, None], 3, 2))


def test_sixteen_bit_grey_is_not_clipped():
    grey = (np.arange(64, dtype=np.uint16) * 1024).reshape(8, 8)
    np.testing.assert_array_equal(to_pixels(encode(grey), 8)[..., 0], grey >> 8)


def test_palette_with_transparency():
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    buffer = io.BytesIO()
    image.save(buffer, "PNG", transparency=bytes([0, 128]))
    assert to_pixels(buffer.getvalue(), 8)[0, 0].tolist() == [10, 20, 30]


def test_alpha_is_dropped():
    pixels = np.full((8, 8, 4), (1, 2, 3, 0), np.uint8)
    assert to_pixels(encode(pixels), 8)[4, 4].tolist() == [1, 2, 3]


def test_exif_turns_the_image_upright():
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:, :4] = 255  # left half white; orientation 6 says: turn a quarter clockwise, so the top is white
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = to_pixels(encode(pixels, exif=exif), 8)
    assert turned[:4].min() == 255
    assert turned[4:].max() == 0


def test_shorter_side_is_resized_and_the_centre_kept():
    wide = np.zeros((16, 48, 3), np.uint8)
    wide[:, 16:32] = 255
    tall = np.ascontiguousarray(wide.transpose(1, 0, 2))
    np.testing.assert_array_equal(to_pixels(encode(wide), 8)[:, 1:7], 255)  # at the rim the black shines in
    np.testing.assert_array_equal(to_pixels(encode(tall), 8)[1:7], 255)


def test_shrinking_averages():
    checks = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    assert abs(to_pixels(encode(checks), 8).astype(int) - 128).max() <= 2


@pytest.mark.parametrize("image_format", ["JPEG", "WEBP"])
def test_jpeg_and_webp(tmp_path, image_format):
    suffix = {"JPEG": "JPG", "WEBP": "webp"}[image_format]
    data = encode(np.full((300, 200, 3), 77, np.uint8), image_format)
    contents = {f"{split}/{c}/x.{suffix}": data for split in ("train", "test") for c in "ab"}
    assert abs(load_tree(tmp_path, contents).train.images.int() - 77).max() <= 1


# ---- what is wrong, and what is said


def expect(tmp_path, contents, *texts, loader=load_tree):
    with pytest.raises(DatasetInvalid) as caught:
        loader(tmp_path, contents)
    for text in texts:
        assert text in str(caught.value)


def test_missing_path(tmp_path):
    with pytest.raises(DatasetMissing, match=r"expected a folder or \.zip of train/<class>"):
        load_dataset("folder:nowhere", tmp_path)


@pytest.mark.parametrize("name", ["a" * 300, "a\0b"])
def test_impossible_path(tmp_path, name):
    found = find(f"folder:{name}", tmp_path)
    assert not found.available
    assert found.advice
    with pytest.raises(DatasetMissing):
        load_dataset(f"folder:{name}", tmp_path)


def test_not_a_zip_by_name(tmp_path):
    (tmp_path / "mine.tar").write_bytes(b"x")
    assert "neither a folder nor a .zip" in find("folder:mine.tar", tmp_path).advice


def test_missing_split_shows_what_was_expected_and_found(tmp_path):
    write_tree(tmp_path / "mine", {"cats/0.png": b"", "README.txt": b""})
    with pytest.raises(DatasetMissing) as caught:
        load_dataset("folder:mine", tmp_path)
    assert "has no train/ and no test/ or val/" in str(caught.value)
    assert "found README.txt, cats/" in str(caught.value)


def test_missing_split_in_zip(tmp_path):
    contents = {name: data for name, data in tree_files().items() if name.startswith("train/")}
    expect(tmp_path, contents, "expected train/<class>/*.png", "found train/", loader=load_zip)


def test_empty_class(tmp_path):
    (tmp_path / "mine" / "train" / "zebra").mkdir(parents=True)
    expect(tmp_path, tree_files(), "no images in train/zebra")


def test_empty_split(tmp_path):
    write_tree(tmp_path / "mine", tree_files())
    for path in (tmp_path / "mine" / "test").rglob("*.png"):
        path.unlink()
    with pytest.raises(DatasetInvalid, match="no images in test/cat, test/dog"):
        load_dataset("folder:mine", tmp_path)


def test_classes_must_be_the_same_in_both_splits(tmp_path):
    contents = tree_files()
    contents["train/fox/0.png"] = contents["train/cat/0.png"]
    contents["test/owl/0.png"] = contents["train/cat/0.png"]
    expect(tmp_path, contents, "only in train/: fox", "only in test/: owl")


def test_one_class_is_not_enough(tmp_path):
    expect(tmp_path, tree_files(per_class={"cat": 2}), "two classes at least")


@pytest.mark.parametrize("data", [b"", b"no image", encode(np.zeros((8, 8), np.uint8))[:40]])
@pytest.mark.parametrize("loader", [load_tree, load_zip])
def test_corrupt_image_is_named(tmp_path, data, loader):
    expect(tmp_path, tree_files() | {"train/cat/bad.png": data}, "train/cat/bad.png is not a readable", loader=loader)


def test_other_formats_are_refused_whatever_their_name(tmp_path):
    gif = encode(np.zeros((8, 8), np.uint8), "GIF")
    expect(tmp_path, tree_files() | {"train/cat/a.gif": gif}, "train/cat/a.gif is not named as a PNG")
    (tmp_path / "mine" / "train" / "cat" / "a.gif").unlink()
    expect(tmp_path, tree_files() | {"train/cat/a.png": gif}, "train/cat/a.png is not a readable PNG")


def test_too_many_pixels(tmp_path):
    bomb = encode(np.zeros((9000, 8000), np.uint8))  # 72 million pixels in a few kilobytes
    expect(tmp_path, tree_files() | {"train/cat/bomb.png": bomb}, "bomb.png", "8000 x 9000 pixels are too many")


def test_image_in_a_wrong_place(tmp_path):
    data = tree_files()["train/cat/0.png"]
    expect(tmp_path, tree_files() | {"train/cat/more/0.png": data}, "train/cat/more/0.png lies where no image belongs")
    (tmp_path / "mine" / "train" / "cat" / "more" / "0.png").unlink()
    (tmp_path / "mine" / "train" / "cat" / "more").rmdir()
    expect(tmp_path, {"train/0.png": data}, "train/0.png lies where")


# ---- hostile zips


@pytest.mark.parametrize(
    "name", ["../train/cat/9.png", "/train/cat/9.png", "train/../../9.png", "train\\cat\\9.png", "C:/9.png"]
)
def test_names_that_lead_out_of_the_zip(tmp_path, name):
    expect(tmp_path, tree_files() | {name: b"x"}, "leads out of the archive", loader=load_zip)


def test_a_nameless_file_in_a_zip(tmp_path):
    expect(tmp_path, tree_files() | {".": b"x"}, "no name of a file", loader=load_zip)


def test_links_in_a_zip(tmp_path):
    path = write_zip(tmp_path / "mine.zip", tree_files())
    link = zipfile.ZipInfo("train/cat/link.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(DatasetInvalid, match=r"train/cat/link\.png is a link"):
        load_dataset("folder:mine.zip", tmp_path)


def test_an_encrypted_zip(tmp_path):
    path = write_zip(tmp_path / "mine.zip", tree_files())
    data = bytearray(path.read_bytes())
    entry = data.index(b"PK\x01\x02")
    data[entry + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(DatasetInvalid, match="is encrypted"):
        load_dataset("folder:mine.zip", tmp_path)


def test_caps_on_size_and_number(tmp_path, monkeypatch):
    contents = tree_files()
    largest = max(map(len, contents.values()))
    monkeypatch.setattr(files, "MAX_FILES", len(contents) - 1)
    expect(tmp_path, contents, "at most 9 files", loader=load_zip)
    monkeypatch.undo()
    monkeypatch.setattr(files, "MAX_TOTAL_BYTES", sum(map(len, contents.values())) - 1)
    expect(tmp_path, contents, "holds 10 files", loader=load_zip)
    monkeypatch.undo()
    monkeypatch.setattr(files, "MAX_FILE_BYTES", largest - 1)
    expect(tmp_path, contents, "is larger than", loader=load_zip)
    expect(tmp_path, contents, "is larger than")


def test_a_file_longer_than_its_header_says(tmp_path):
    path = tmp_path / "mine.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in (tree_files() | {"train/cat/big.png": b"\0" * 10_000_000}).items():
            archive.writestr(name, data)
    data = bytearray(path.read_bytes())
    size = data.rindex((10_000_000).to_bytes(4, "little"))
    data[size : size + 4] = (100).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(DatasetInvalid, match=r"train/cat/big\.png"):
        load_dataset("folder:mine.zip", tmp_path)


def test_not_a_zip_and_a_damaged_one(tmp_path):
    (tmp_path / "mine.zip").write_bytes(b"no zip")
    with pytest.raises(DatasetInvalid, match="is not a readable zip"):
        load_dataset("folder:mine.zip", tmp_path)
    path = write_zip(tmp_path / "mine.zip", tree_files())
    data = bytearray(path.read_bytes())
    data[60:80] = bytes(20)
    path.write_bytes(data)
    with pytest.raises(DatasetInvalid, match=r"train/cat/0\.png cannot be read"):
        load_dataset("folder:mine.zip", tmp_path)
