"""Runs from start to end: same seed same bytes, resumed anywhere same bytes, and what stops a run."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save

from dream_core.catalog import METHODS as CATALOG
from dream_core.distillation import Distillation, choose_device
from dream_core.errors import Diverged, DreamError, InvalidRecipe
from tests.dream_core.tiny import tiny_dataset, tiny_recipe, tiny_recipe_of

GOLDEN = Path(__file__).parent / "golden_curves.json"
METHODS = list(CATALOG)
MATCHING = [name for name, facts in CATALOG.items() if facts.family == "matching"]


def start(recipe, dataset=None):
    return Distillation(recipe, dataset or tiny_dataset(), device="cpu")


def run(recipe, dataset=None):
    distillation = start(recipe, dataset)
    losses = [progress.loss for progress in distillation]
    return distillation.synthetic.images, losses


@pytest.mark.parametrize("method", METHODS)
def test_same_seed_same_bytes_other_seed_others(method):
    first, first_losses = run(tiny_recipe_of(method))
    torch.manual_seed(99)  # nothing hangs on the global generator
    again, again_losses = run(tiny_recipe_of(method))
    other, _ = run(tiny_recipe_of(method, seed=4))
    assert torch.equal(first, again)
    assert first_losses == again_losses
    assert not torch.equal(first, other)


def test_seed_0_is_a_seed():
    first, again = (run(tiny_recipe(seed=0))[0] for _ in range(2))
    assert torch.equal(first, again)


@pytest.mark.parametrize("method", METHODS)
def test_resumed_after_any_step_it_ends_in_the_same_bytes(method):
    """Saved to a file's bytes and loaded into a new run, at every boundary of steps and of outer iterations."""
    resumes_to_the_same_bytes(tiny_recipe_of(method))


@pytest.mark.parametrize("changes", [{"warm_start": True}, {"pool": 7}, {"staggered": True},
                                     {"warm_start": True, "pool": 7, "staggered": True}])  # fmt: skip
def test_however_cheap_its_clustering_a_run_resumes_to_the_same_bytes(changes):
    resumes_to_the_same_bytes(tiny_recipe(**changes, inner_iterations=4))


def resumes_to_the_same_bytes(recipe):
    whole = start(recipe)
    saved = [save(whole.state_dict())]
    losses = []
    for progress in whole:
        losses.append(progress.loss)
        saved.append(save(whole.state_dict()))
    assert len(saved) == recipe.steps + 1
    for step, state in enumerate(saved):
        resumed = start(recipe)
        resumed.load_state_dict(load(state))
        assert resumed.step_number == step
        assert [progress.loss for progress in resumed] == losses[step:]
        assert torch.equal(resumed.synthetic.images, whole.synthetic.images), f"resumed after step {step}"
        assert save(resumed.state_dict()) == saved[-1], f"resumed after step {step}"


def test_a_run_resumed_twice_is_still_the_same():
    recipe = tiny_recipe()
    whole, _ = run(recipe)
    state = start(recipe).state_dict()
    for _ in range(recipe.steps):
        distillation = start(recipe)
        distillation.load_state_dict(state)
        distillation.step()
        state = distillation.state_dict()
    assert torch.equal(state["images"], whole)


def test_batch_norm_statistics_are_saved():
    recipe = tiny_recipe("idc", norm="batch")
    whole, _ = run(recipe)
    half = start(recipe)
    half.step()
    half.step()
    resumed = start(recipe)
    resumed.load_state_dict(half.state_dict())
    assert list(resumed)
    assert torch.equal(resumed.synthetic.images, whole)


def test_a_saved_state_does_not_change_when_the_run_goes_on():
    distillation = start(tiny_recipe())
    distillation.step()
    state = distillation.state_dict()
    before = {name: value.clone() for name, value in state.items()}
    distillation.step()
    assert all(torch.equal(state[name], value) for name, value in before.items())


def test_a_loaded_state_is_not_written_to():
    first = start(tiny_recipe())
    first.step()
    state = first.state_dict()
    before = {name: value.clone() for name, value in state.items()}
    other = start(tiny_recipe())
    other.load_state_dict(state)
    other.step()
    assert all(torch.equal(state[name], value) for name, value in before.items())


def test_progress_counts_and_times():
    recipe = tiny_recipe()
    progress = list(start(recipe))
    assert [p.step for p in progress] == list(range(1, recipe.steps + 1))
    assert {p.steps for p in progress} == {recipe.steps}
    assert {"matching", "network"} <= progress[0].seconds.keys()
    assert all(seconds >= 0 for p in progress for seconds in p.seconds.values())


def test_the_run_ends():
    distillation = start(tiny_recipe())
    assert len(list(distillation)) == 6
    assert list(distillation) == []


@pytest.mark.parametrize("width", [1, 5])
def test_imbalanced_classes_and_images_fewer_than_a_batch(width):
    """Counts follow the data: a class smaller than the batch gives what it has."""
    images, losses = run(tiny_recipe(width=width, ipc=1, batch_real=30), tiny_dataset(counts=(40, 4, 31)))
    assert images.isfinite().all()
    assert len(losses) == 6


def test_loss_that_is_no_longer_finite_stops_the_run():
    with pytest.raises(Diverged, match=r"the matching loss became (nan|inf) at step \d; lower lr_img"):
        list(start(tiny_recipe(lr_img=9e29, outer_iterations=1, inner_iterations=6)))


def test_too_few_images_is_said_before_anything_runs():
    with pytest.raises(InvalidRecipe, match="ipc x factor² = 12 of each class"):
        start(tiny_recipe(ipc=3))


def test_choose_device():
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type in ("cpu", "cuda")


@pytest.mark.parametrize("device", ["cuda:99", "gpu", "cpu:x", ""])
def test_a_device_that_is_not_here(device):
    with pytest.raises(DreamError, match="device"):
        choose_device(device)


def test_it_learns():
    """On a set whose classes differ in their mean, the matching loss of the same network falls."""
    recipe = tiny_recipe(
        init="noise", lr_img=0.5, outer_iterations=1, inner_iterations=30, augmentation="none", n_data=1
    )
    _, losses = run(recipe)
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


# ---- on a GPU


@pytest.mark.gpu
@pytest.mark.parametrize("method", METHODS)
def test_on_a_gpu_same_seed_same_bytes_and_nearly_those_of_a_cpu(method):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    first, again = (Distillation(tiny_recipe_of(method), tiny_dataset(), device="cuda") for _ in range(2))
    on_cpu = start(tiny_recipe_of(method))
    assert first.step().loss == pytest.approx(on_cpu.step().loss, rel=1e-3)
    list(first)
    list(again)
    assert torch.equal(first.synthetic.images, again.synthetic.images)


# ---- golden curves


def golden_recipe(method):
    if CATALOG[method].family == "matching":
        return tiny_recipe_of(method, outer_iterations=4, inner_iterations=5)
    return tiny_recipe_of(method)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("method", METHODS)
def test_golden_curve(method, request):
    """The first losses (twenty of the matching methods), in float64 so that they hold on every CPU.

    To accept new ones delete the JSON and run twice.
    """
    _, losses = run(golden_recipe(method))
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.is_file() else {}
    if method not in golden:
        GOLDEN.write_text(json.dumps(golden | {method: losses}, indent=1) + "\n")
        pytest.fail(f"{GOLDEN.name} had no curve for {method}; wrote one")
    assert losses == pytest.approx(golden[method], rel=1e-5)
