"""`load.py`: with PyTorch alone it gives what evaluation trains on; and what a seed makes of an image."""

import math
import subprocess
import sys

import pytest
import torch

from dream_core import formats, loader, networks
from dream_core.distillation import Distillation
from dream_core.evaluation import train_and_test
from dream_core.formats import Result, read_training_set, write_result
from dream_core.images import Zca, to_unit
from dream_core.loader import beta, varied, views
from dream_core.randomness import Shuffle
from dream_core.recipes import make_recipe
from tests.dream_core import reference
from tests.dream_core.test_recovery_against_reference import sre2l_recipe
from tests.dream_core.test_unrolled_against_reference import dd_recipe, mtt_recipe
from tests.dream_core.tiny import tiny_dataset

CPU = torch.device("cpu")
# What a user of the files need not have. A name that is None in sys.modules cannot be imported.
UNKNOWN = ("numpy", "safetensors", "dream_core", "api", "client", "jobs", "worker", "torchvision")
ALONE = f"""
import importlib.util, json, pathlib, sys
sys.modules.update(dict.fromkeys({UNKNOWN!r}))
import torch
root = pathlib.Path(sys.argv[1])
test, found = torch.load(root / "test.pt", weights_only=True), {{}}
for place in sorted(path for path in root.iterdir() if path.is_dir()):
    spec = importlib.util.spec_from_file_location(place.name, place / "load.py")
    load = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(load)
    found[place.name] = seen = {{
        "load": load.load(), "pixels": load.load(normalized=False), "elsewhere": load.load(place),
        "stored": load.load(decoded=False, normalized=False), "stored inputs": load.load(decoded=False),
        "test": load.transform()(test),
    }}
    training = json.loads((place / "manifest.json").read_text())["training"]
    if training["steps"]:
        seen["steps"] = load.steps()
    if training["view"]:
        seen["soft"] = [load.soft_epoch(epoch) for epoch in range(4)]
torch.save(found, root / "found.pt")
"""


def dc_recipe():
    params = {"image_size": 8, "depth": 2, "width": 4, "outer_iterations": 1, "inner_iterations": 2, "batch_real": 5}
    judged = {"depth": 2, "width": 4, "repeats": 1, "baselines": False, "ceiling": "none"}
    return make_recipe("dc", "folder:tiny", 2, 3, params, judged)


RECIPES = {
    "mtt": lambda: mtt_recipe(zca=True, experts=1, iterations=2, lr_img=20.0),
    "dd": lambda: dd_recipe(iterations=2),
    "sre2l": lambda: sre2l_recipe(iterations=2),
    "dc": dc_recipe,
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A finished run of every method, its directory, and what `load.py` finds there without this project."""
    root, dataset, made = tmp_path_factory.mktemp("results"), tiny_dataset(), {}
    for name, recipe in RECIPES.items():
        run = Distillation(recipe(), dataset, "cpu", cache=tmp_path_factory.mktemp("cache"))
        list(run)
        result = Result(run.synthetic, run.training_set(), run.recipe, dataset, [], {}, {}, {})
        write_result(result, root / name)
        made[name] = run
    torch.save(to_unit(dataset.test.images), root / "test.pt")
    command = [sys.executable, "-I", "-c", ALONE, str(root)]
    alone = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120, check=False)
    assert alone.returncode == 0, alone.stderr
    return root, dataset, made, torch.load(root / "found.pt", weights_only=True)


@pytest.fixture
def shown(monkeypatch):
    """Every batch that networks are shown while they are trained, and while they are tested."""
    batches, make = {True: [], False: []}, networks.evaluation_network

    def watched(*arguments):
        network = make(*arguments)
        network.register_forward_pre_hook(lambda module, inputs: batches[module.training].append(inputs[0].detach()))
        return network

    monkeypatch.setattr(networks, "evaluation_network", watched)
    return batches


def judge(run, dataset, epochs=1):
    changes = {"epochs": epochs, "batch_size": 64, "augmentation": "none", "tests": 1}
    recipe = run.recipe.evaluation.model_copy(update=changes)
    list(train_and_test(run.training_set(), dataset, recipe, 5, (0,), CPU))


@pytest.mark.parametrize("name", RECIPES)
def test_the_loader_gives_what_a_run_has(runs, name):
    root, dataset, made, found = runs
    run, seen = made[name], found[name]
    training = run.training_set()
    images, labels = seen["load"]
    assert (images.dtype, labels.dtype) == (torch.float32, torch.int64)
    assert torch.equal(labels, training.labels)
    assert torch.equal(images, training.transform(to_unit(training.images)))
    assert torch.equal(seen["pixels"][0], training.images)
    assert torch.equal(seen["stored"][0], run.synthetic.pixels())
    assert torch.equal(seen["stored"][1], run.synthetic.labels)
    assert torch.equal(seen["stored inputs"][0], training.transform(run.synthetic.pixels()))
    assert torch.equal(seen["elsewhere"][0], images)
    assert torch.equal(seen["test"], training.transform(to_unit(dataset.test.images)))
    assert isinstance(training.transform, Zca) == (root / name / formats.ZCA_FILE).exists() == (name == "mtt")
    torch.testing.assert_close(images, run.synthetic.images, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["mtt", "dc"])
def test_an_evaluation_trains_on_what_the_loader_gives(runs, name, shown):
    _, dataset, made, found = runs
    judge(made[name], dataset)
    order = Shuffle(6, 64, 5, "batches", 0, drop_last=False)[0]
    assert torch.equal(shown[True][0], found[name]["load"][0][order])
    assert torch.equal(torch.cat(shown[False]), found[name]["test"])


def test_an_evaluation_replays_the_steps_that_the_loader_gives(runs, shown):
    _, dataset, made, found = runs
    judge(made["dd"], dataset)
    steps = found["dd"]["steps"]
    assert len(shown[True]) == len(steps) == 4
    rates = made["dd"].training_set().replay.rates
    for inputs, (images, labels, rate), expected in zip(shown[True], steps, rates.tolist(), strict=True):
        assert torch.equal(inputs, images)
        assert labels.tolist() == [0, 1, 2]
        assert rate == expected
    assert len(set(rates.tolist())) == 4


def test_an_evaluation_trains_on_the_soft_epochs_that_the_loader_gives(runs, shown):
    """The last one asked for begins again."""
    _, dataset, made, found = runs
    judge(made["sre2l"], dataset, epochs=4)
    walk = Shuffle(6, 64, 5, "batches", 0, drop_last=False)
    for epoch, (images, logits) in enumerate(found["sre2l"]["soft"]):
        assert torch.equal(shown[True][epoch], images[walk[epoch]])
        assert (logits.dtype, logits.shape) == (torch.float32, (6, 3))
        assert torch.equal(logits, made["sre2l"].training_set().soft.logits[epoch % 3].float())
    first, second, _, fourth = (images for images, _ in found["sre2l"]["soft"])
    assert torch.equal(first, fourth)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("name", RECIPES)
def test_a_training_set_is_read_back_as_it_was(runs, name):
    root, _, made, _ = runs
    ours, read = made[name].training_set(), read_training_set(root / name)
    assert torch.equal(read.images, ours.images)
    assert torch.equal(read.labels, ours.labels)
    assert torch.equal(read.transform(read.images), ours.transform(ours.images))
    assert read.lr == ours.lr
    assert (read.lr is not None) == (name == "mtt")
    assert (read.replay is not None) == (ours.replay is not None) == (name == "dd")
    assert (read.soft is not None) == (ours.soft is not None) == (name == "sre2l")
    if ours.replay:
        assert torch.equal(torch.stack(read.replay.order), torch.stack(ours.replay.order))
        assert torch.equal(read.replay.rates, ours.replay.rates)
        assert (read.replay.initialization, read.replay.init_seed) == ("xavier", None)
    if ours.soft:
        assert torch.equal(read.soft.seeds, ours.soft.seeds)
        assert torch.equal(read.soft.logits, ours.soft.logits)
        assert read.soft.view == ours.soft.view


def test_every_type_of_tensor_is_read(tmp_path):
    from safetensors.torch import save_file

    tensors = {
        "f32": torch.rand(2, 3), "f64": torch.rand(3, dtype=torch.float64), "f16": torch.rand(5).half(),
        "i64": torch.tensor([[-(2**62), 7]]), "u8": torch.tensor([0, 255], dtype=torch.uint8),
        "scalar": torch.tensor(2.0),
    }  # fmt: skip
    save_file(tensors, tmp_path / "file.safetensors", metadata={"about": "nothing"})
    read = loader.read_safetensors(tmp_path / "file.safetensors")
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(read[name], tensor)
        assert read[name].dtype == tensor.dtype


# ================================================================ views


def noise(n, size=8, seed=0):
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


def seeds(n, first=0):
    return torch.arange(first, first + n) * 7919


@pytest.mark.parametrize("view", ["shift", "resized"])
def test_a_seed_gives_the_same_view_whatever_batch_it_is_in(view):
    images = noise(6)
    together = views(images, seeds(6), view, True, "none", 1.0)
    for n in range(6):
        alone = views(images[n : n + 1], seeds(6)[n : n + 1], view, True, "none", 1.0)
        torch.testing.assert_close(alone[0], together[n], rtol=0, atol=1e-6)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    shuffled = views(images[order], seeds(6)[order], view, True, "none", 1.0)
    torch.testing.assert_close(shuffled, together[order], rtol=0, atol=1e-6)
    assert torch.equal(views(images, seeds(6), view, True, "none", 1.0), together)
    assert not torch.allclose(views(images, seeds(6, 100), view, True, "none", 1.0), together)


def test_one_seed_for_all_gives_all_the_same_view():
    images = noise(3)
    together = varied(images, torch.tensor([11]), "resized", True)
    each = varied(images, torch.tensor([11, 11, 11]), "resized", True)
    assert torch.equal(together, each)


def test_shifts_are_whole_pixels_with_zeros_coming_in():
    """Up to an eighth: one pixel of 8. Each view is exactly one of the image's, mirrored or not."""
    image = noise(1)[0]
    moves = [(mirror, down, right) for mirror in (False, True) for down in range(-2, 3) for right in range(-2, 3)]
    candidates = [reference.op_crop(reference.op_flip(image, mirror), *move) for mirror, *move in moves]
    seen = varied(image.expand(150, -1, -1, -1), seeds(150), "shift", True)
    near = (seen[:, None] - torch.stack(candidates)).abs().amax((2, 3, 4)) < 1e-5
    assert near.sum(1).tolist() == [1] * 150
    found = {moves[n] for n in near.int().argmax(1).tolist()}
    assert found == {(mirror, down, right) for mirror, down, right in moves if abs(down) < 2 and abs(right) < 2}


@pytest.mark.parametrize(("size", "reach"), [(8, 1), (16, 2), (28, 4), (32, 4)])
def test_shifts_reach_an_eighth_and_are_uniform(size, reach):
    """One bright pixel in the middle, wherever it goes."""
    image = torch.zeros(1, size, size)
    image[0, size // 2, size // 2] = 1
    seen = varied(image.expand(900, -1, -1, -1), seeds(900), "shift", False)
    brightest = seen.flatten(1).max(1)
    torch.testing.assert_close(brightest.values, torch.ones(900), rtol=0, atol=1e-4)
    for places in (brightest.indices // size, brightest.indices % size):
        moves, counts = (places - size // 2).unique(return_counts=True)
        assert moves.tolist() == list(range(-reach, reach + 1))
        expected = 900 / (2 * reach + 1)
        assert ((counts - expected).abs() < 5 * math.sqrt(expected)).all()


@pytest.mark.parametrize("view", ["shift", "resized"])
def test_about_half_are_mirrored_and_none_where_that_changes_the_class(view):
    ramp = torch.arange(16.0).expand(1, 16, 16)
    count = 600

    def mirrored(flip):
        seen = varied(ramp.expand(count, -1, -1, -1), seeds(count), view, flip)
        return seen[:, 0, 8, 6] > seen[:, 0, 8, 9]

    assert mirrored(True).float().mean() == pytest.approx(0.5, abs=0.07)
    assert not mirrored(False).any()


def found_crops(count, size=32):
    """Width, height and centre of resized crops in image sides from the middle, read off two ramps."""
    place = (torch.arange(size) + 0.5) / size - 0.5
    ramps = torch.stack([place.expand(size, size), place.expand(size, size).T]).expand(count, 2, size, size)
    seen = varied(ramps, seeds(count), "resized", False)
    low, high = size // 2 - 1, size // 2  # in the middle, where no border has a say
    across, down = (seen[:, 0, low, high] - seen[:, 0, low, low]), (seen[:, 1, high, low] - seen[:, 1, low, low])
    x, y = (seen[:, 0, low, low] + seen[:, 0, low, high]) / 2, (seen[:, 1, low, low] + seen[:, 1, high, low]) / 2
    return across * size, down * size, x, y


def test_resized_crops_lie_within_the_image_and_are_of_every_size():
    """8 to 100 % of its area at sides of 3 : 4 to 4 : 3, anywhere."""
    width, height, x, y = found_crops(2000)
    assert (x.abs() + width / 2).max() <= 0.5 + 1e-4
    assert (y.abs() + height / 2).max() <= 0.5 + 1e-4
    area, whole = width * height, (width < 0.9999) & (height < 0.9999)
    assert area.min() > 0.08 - 1e-3
    assert area.max() > 0.95
    assert area[whole].min() < 0.1
    ratio = (width / height)[whole]
    assert 3 / 4 - 1e-3 < ratio.min() < 0.78
    assert 4 / 3 + 1e-3 > ratio.max() > 1.28
    assert ratio.log().mean() == pytest.approx(0, abs=0.02)
    assert area.mean() == pytest.approx(0.54, abs=0.03)
    small = width < 0.5
    assert (x[small] < -0.2).any()
    assert (x[small] > 0.2).any()
    assert x.mean() == pytest.approx(0, abs=0.01)
    assert y.mean() == pytest.approx(0, abs=0.01)


def test_a_resized_crop_of_one_colour_is_that_colour():
    """A crop lies within the image: nothing from beyond its border comes in."""
    seen = varied(torch.ones(200, 1, 16, 16), seeds(200), "resized", True)
    torch.testing.assert_close(seen, torch.ones_like(seen), rtol=0, atol=1e-4)


# ---------------------------------------------------------------- mixing


def test_a_box_of_another_image_comes_in():
    """Its area, before it is cut off at the border, is uniform in [0, 1]; its centre anywhere; the other any image."""
    count, size = 300, 16
    images = noise(count, size)
    own = varied(images, seeds(count), "shift", True)
    mixed = views(images, seeds(count), "shift", True, "cutmix", 1.0)
    others, areas = [], []
    for n, seed in enumerate(seeds(count).tolist()):
        generator = torch.Generator().manual_seed(seed ^ 1)
        other = int(torch.randint(count, (1,), generator=generator))
        taken = float(torch.rand(1, generator=generator))
        row, column = torch.randint(size, (2,), generator=generator).tolist()
        top, bottom, left, right = reference.cutmix_box(1 - taken, row, column, size, size)
        expected = own[n].clone()
        expected[:, top:bottom, left:right] = own[other, :, top:bottom, left:right]
        assert torch.equal(mixed[n], expected)
        others.append(other)
        areas.append(float((mixed[n] != own[n]).any(0).float().mean()))
    assert len(set(others)) > count / 2
    assert min(areas) == 0
    assert max(areas) > 0.7
    assert 0.2 < sum(areas) / count < 0.4  # of a half, a third or so lies within the image


def test_a_share_of_another_image_comes_in():
    count = 600
    images = noise(count)
    own = varied(images, seeds(count), "shift", True)
    mixed = views(images, seeds(count), "shift", True, "mixup", 0.8)
    shares = []
    for n, seed in enumerate(seeds(count).tolist()):
        generator = torch.Generator().manual_seed(seed ^ 1)
        other = own[int(torch.randint(count, (1,), generator=generator))]
        if torch.equal(other, own[n]):
            continue
        away = own[n] - other
        share = float(((mixed[n] - other) * away).sum() / (away * away).sum())
        torch.testing.assert_close(mixed[n], share * own[n] + (1 - share) * other, rtol=0, atol=1e-5)
        shares.append(share)
    found = torch.tensor(shares)
    assert found.min() > -1e-5
    assert found.max() < 1 + 1e-5
    assert found.mean() == pytest.approx(0.5, abs=0.05)
    assert found.var() == pytest.approx(1 / (4 * (2 * 0.8 + 1)), abs=0.012)


@pytest.mark.parametrize("mixing", ["cutmix", "mixup"])
def test_mixed_views_are_the_same_for_the_same_seeds(mixing):
    images = noise(5)
    first, again, others = (views(images, seeds(5, n), "shift", True, mixing, 0.8) for n in (0, 0, 9))
    assert torch.equal(first, again)
    assert not torch.equal(first, others)
    # what is seen of an image unmixed does not hang on the mixing's draws
    assert torch.equal(views(images, seeds(5), "shift", True, "none", 0.8), varied(images, seeds(5), "shift", True))


def test_views_change_no_input():
    images = noise(4)
    before = images.clone()
    for mixing in ("none", "cutmix", "mixup"):
        views(images, seeds(4), "resized", True, mixing, 0.8)
    assert torch.equal(images, before)


@pytest.mark.parametrize("alpha", [0.3, 0.8, 1.0, 2.0])
def test_beta_has_the_mean_and_the_variance_of_its_distribution(alpha):
    generator = torch.Generator().manual_seed(1)
    drawn = torch.tensor([beta(alpha, generator) for _ in range(4000)])
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    variance = 1 / (4 * (2 * alpha + 1))
    assert drawn.mean() == pytest.approx(0.5, abs=4 * math.sqrt(variance / 4000))
    assert drawn.var() == pytest.approx(variance, rel=0.07)
