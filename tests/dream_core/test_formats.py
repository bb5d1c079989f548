import hashlib
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from dream_core import loader
from dream_core.catalog import METHODS
from dream_core.formats import Result, gallery, preview, read_training_set, write_result
from dream_core.images import Normalize
from dream_core.subject import TrainingSet
from dream_core.synthetic import SyntheticSet
from tests.dream_core.tiny import MEAN, STD, tiny_dataset, tiny_recipe, tiny_recipe_of

PROVENANCE = {"job_id": "job_0", "created_at": "2026-01-01T00:00:00+00:00", "software": {"dream": "0"}}
FILES = {
    "decoded.safetensors": "application/octet-stream",
    "evaluation.json": "application/json",
    "gallery.png": "image/png",
    "load.py": "text/x-python",
    "metrics.jsonl": "application/jsonl",
    "recipe.json": "application/json",
    "synthetic.safetensors": "application/octet-stream",
}
# What a user of the files need not have. A name that is None in sys.modules cannot be imported.
UNKNOWN = ("numpy", "safetensors", "api", "client", "dream_core", "jobs", "worker")
ALONE = f"""
import sys
sys.modules.update(dict.fromkeys({UNKNOWN!r}))
sys.path.insert(0, sys.argv[1])
import torch
from load import load
images, labels = load()
values, _ = load(normalized=False)
stored, stored_labels = load(decoded=False, normalized=False)
torch.save([images, labels, values, stored, stored_labels], sys.argv[2])
network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(int(labels.max()) + 1))
network(images)
optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
losses = []
for _ in range(20):
    loss = torch.nn.functional.cross_entropy(network(images), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
assert losses[-1] < losses[0], losses
"""


def make_result(channels=3, ipc=2, factor=2, formation="single", **changes):
    """A result whose stored images go beyond [0, 1], as pixels do while they are learned."""
    dataset = tiny_dataset(channels)
    recipe = tiny_recipe(ipc=ipc, factor=factor, formation=formation)
    pixels = torch.rand(3 * ipc, channels, 8, 8, generator=torch.Generator().manual_seed(1)) * 1.4 - 0.2
    synthetic = SyntheticSet(pixels, 3, ipc, factor, formation)
    training = TrainingSet(*synthetic.decoded(), Normalize(dataset.mean, dataset.std))
    curve, judged = [(1, 0.5), (2, 0.25)], ({"mean": 50.0}, {"random": None})
    result = Result(synthetic, training, recipe, dataset, curve, *judged, PROVENANCE)
    return replace(result, **changes)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    directory = tmp_path_factory.mktemp("a result") / "set"
    result = make_result()
    return result, write_result(result, directory), directory


def test_the_manifest_lists_every_file_but_itself_as_it_is(written):
    _, manifest, directory = written

    assert json.loads((directory / "manifest.json").read_text()) == manifest
    assert {entry["path"]: entry["media_type"] for entry in manifest["files"]} == FILES
    assert {path.name for path in directory.iterdir()} == {*FILES, "manifest.json"}
    for entry in manifest["files"]:
        content = (directory / entry["path"]).read_bytes()
        assert (entry["bytes"], entry["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())


def test_stored_and_decoded_images_lie_in_0_to_1(written):
    result, _, directory = written
    stored, decoded = (load_file(directory / f"{name}.safetensors") for name in ("synthetic", "decoded"))

    assert stored["images"].shape == (6, 3, 8, 8)
    assert decoded["images"].shape == (6 * 4, 3, 8, 8)
    for tensors, each in ((stored, 2), (decoded, 8)):
        assert (tensors["images"].dtype, tensors["labels"].dtype) == (torch.float32, torch.int64)
        assert tensors["images"].min() >= 0
        assert tensors["images"].max() <= 1
        assert tensors["labels"].tolist() == [0] * each + [1] * each + [2] * each
    assert torch.equal(stored["images"], result.synthetic.images.clamp(0, 1))
    assert result.synthetic.images.max() > 1  # writing changed nothing of the run's own


@pytest.mark.parametrize(
    ("factor", "formation", "told", "decoded"),
    [(1, "single", "none", 6), (2, "single", "uniform", 24), (2, "multi", "multi", 30), (3, "bound", "bound", 54)],
)
def test_the_manifest_says_how_stored_images_decode(tmp_path, factor, formation, told, decoded):
    manifest = write_result(make_result(factor=factor, formation=formation), tmp_path)

    assert manifest["decode"] == {"type": told, "factor": factor, "stored": 6, "decoded": decoded}
    assert len(load_file(tmp_path / "decoded.safetensors")["images"]) == decoded
    assert len(load_file(tmp_path / "synthetic.safetensors")["images"]) == 6


def test_the_manifest_says_what_the_files_are_made_of(written):
    result, manifest, directory = written

    assert manifest["preprocessing"] == {
        "value_range": "0..1", "normalized": False, "mean": list(MEAN), "std": list(STD), "zca": None, "layout": "NCHW"
    }  # fmt: skip
    assert manifest["dataset"] == {
        "name": "tiny", "fingerprint": result.dataset.fingerprint, "train": 34, "test": 18, "licence": "none"
    }  # fmt: skip
    assert (manifest["ipc"], manifest["seed"]) == (2, 3)
    assert [(entry["name"], entry["count"]) for entry in manifest["classes"]] == [("a", 2), ("b", 2), ("c", 2)]
    assert (manifest["method"]["name"], manifest["method"]["paper"]) == ("dream", METHODS["dream"].paper)
    assert PROVENANCE.items() <= manifest.items()
    assert json.loads((directory / "recipe.json").read_text()) == result.recipe.model_dump()
    assert json.loads((directory / "evaluation.json").read_text()) == {
        "evaluation": {"mean": 50.0}, "baselines": {"random": None}
    }  # fmt: skip
    curve = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    assert curve == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25}]


def test_the_loader_needs_nothing_but_torch(written, tmp_path):
    _, _, directory = written

    command = [sys.executable, "-P", "-c", ALONE, str(directory), str(tmp_path / "seen.pt")]
    alone = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)

    assert alone.returncode == 0, alone.stderr
    images, labels, values, stored, stored_labels = torch.load(tmp_path / "seen.pt", weights_only=True)
    for name, seen, seen_labels in (("decoded", values, labels), ("synthetic", stored, stored_labels)):
        expected = load_file(directory / f"{name}.safetensors")
        assert torch.equal(seen, expected["images"])
        assert torch.equal(seen_labels, expected["labels"])
    mean, std = (torch.tensor(constants).view(1, -1, 1, 1) for constants in (MEAN, STD))
    assert torch.equal(images, (values - mean) / std)


def test_the_same_result_has_the_same_bytes(written, tmp_path):
    _, _, directory = written

    write_result(make_result(), tmp_path)

    for name in (*FILES, "manifest.json"):
        assert (tmp_path / name).read_bytes() == (directory / name).read_bytes(), name


def test_a_partial_result_says_so_and_loads(tmp_path):
    result = make_result(evaluation=None, baselines={}, steps_done=7)

    manifest = write_result(result, tmp_path)

    assert (manifest["partial"], manifest["steps_done"]) == (True, 7)
    assert (manifest["evaluation"], manifest["baselines"]) == ([], {})
    assert {entry["path"] for entry in manifest["files"]} == FILES.keys() - {"evaluation.json"}
    images, labels = loader.load(tmp_path)
    expected, expected_labels = result.synthetic.decoded()
    assert torch.equal(images, loader.transform(tmp_path)(expected))
    assert torch.equal(labels, expected_labels)
    assert torch.equal(read_training_set(tmp_path).images, expected)


def test_a_partial_result_without_its_soft_labels_is_to_be_trained_on(tmp_path):
    """Ended before the teacher had labelled it."""
    recipe = tiny_recipe_of("sre2l")
    assert recipe.evaluation.mode == "soft"

    manifest = write_result(make_result(recipe=recipe, evaluation=None, baselines={}, steps_done=3), tmp_path)

    assert manifest["training"]["mode"] == "train"
    assert read_training_set(tmp_path).soft is None


def test_names_are_kept_in_any_script(tmp_path):
    names = ("été", "猫", "a name of " + "many words " * 8)
    result = make_result()

    write_result(replace(result, dataset=replace(result.dataset, class_names=names)), tmp_path)

    manifest = json.loads((tmp_path / "manifest.json").read_text(encoding="utf-8"))
    assert tuple(entry["name"] for entry in manifest["classes"]) == names
    with Image.open(tmp_path / "gallery.png") as page:
        page.verify()


@pytest.mark.parametrize(
    ("classes", "ipc", "channels", "side"),
    [(10, 1, 1, 8), (10, 1, 3, 32), (3, 11, 3, 28), (2, 50, 1, 28), (100, 1, 3, 32), (100, 10, 3, 32), (2, 1, 3, 256)],
)
def test_a_gallery_shows_up_to_ten_of_every_class(tmp_path, classes, ipc, channels, side):
    # each class in a shade of its own, so that it can be found on the page
    shades = torch.arange(1, classes + 1).div(classes + 1).repeat_interleave(ipc)
    images = shades.view(-1, 1, 1, 1).expand(-1, channels, side, side)

    gallery(images, ipc, tuple(str(label) for label in range(classes))).save(tmp_path / "gallery.png")

    with Image.open(tmp_path / "gallery.png") as page:
        assert page.mode == "RGB"
        assert page.width <= 1500
        assert page.height <= 300 * classes
        colours = {colour: count for count, colour in page.getcolors(page.width * page.height)}
    cell = side * max(1, round(64 / side))
    for shade in (shades[::ipc] * 255).round().int().tolist():
        assert colours[(shade, shade, shade)] >= min(ipc, 10) * cell**2


# ---------------------------------------------------------------- previews


def shaded(classes, ipc, channels, side):
    """Each image in a shade of its own, by class and then by number."""
    shades = torch.linspace(0, 1, classes * ipc)
    return shades, SyntheticSet(shades.view(-1, 1, 1, 1).repeat(1, channels, side, side), classes, ipc)


@pytest.mark.parametrize(
    ("classes", "ipc", "channels", "side", "cell"),
    [(10, 1, 1, 8, 64), (10, 10, 3, 32, 64), (3, 11, 3, 28, 56), (2, 50, 1, 28, 56), (100, 10, 3, 32, 32),
     (200, 50, 3, 64, 32), (10, 10, 3, 256, 64), (1, 1, 3, 28, 616)],
)  # fmt: skip
def test_a_preview_has_a_row_for_every_class(classes, ipc, channels, side, cell):
    shades, synthetic = shaded(classes, ipc, channels, side)
    rows, columns = min(classes, 20), min(ipc, 10)

    page = preview(synthetic)

    assert page.mode == "RGB"
    assert page.size == (columns * (cell + 1) - 1, rows * (cell + 1) - 1)
    assert max(page.size) <= 660
    for row in range(rows):
        for column in range(columns):
            shade = int((shades[row * ipc + column] * 255).round())
            place = (column * (cell + 1) + cell // 2, row * (cell + 1) + cell // 2)
            assert page.getpixel(place) == (shade,) * 3


def test_a_preview_shows_pixels_as_they_are_published_and_touches_nothing():
    """Mapped back from the space that they are learned in, each pixel a square of its own."""
    space = Normalize((0.5,) * 3, (0.25,) * 3)
    pixels = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    synthetic = SyntheticSet(space(pixels), 2, 1, space=space)
    before, state = synthetic.images.clone(), torch.get_rng_state()

    page = torch.from_numpy(np.array(preview(synthetic)))

    assert torch.equal(synthetic.images, before)
    assert torch.equal(torch.get_rng_state(), state)
    scale = 320 // 8
    for number, row in enumerate(page.split(321)):
        shown = row[:320].unflatten(0, (8, scale)).unflatten(2, (8, scale))
        assert (shown == shown[:, :1, :, :1]).all()
        expected = (synthetic.pixels()[number].clamp(0, 1) * 255).round().to(torch.uint8)
        assert torch.equal(shown[:, 0, :, 0].permute(2, 0, 1), expected)
