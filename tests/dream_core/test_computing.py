"""Compiled functions and bfloat16 compute what the plain ones do."""

import logging

import pytest
import torch
import torch._dynamo

from dream_core import computing
from dream_core.computing import PLAIN, Computing, choose_computing, filled_up, lacks_compiler
from dream_core.distillation import Distillation
from dream_core.errors import DreamError, InvalidRecipe
from dream_core.evaluation import protocol_hash, train_and_test
from dream_core.networks import ConvNet
from dream_core.objectives import Matching
from dream_core.recipes import EvaluationRecipe, make_recipe
from dream_core.selection import embed
from tests.dream_core.tiny import tiny_dataset

CPU = torch.device("cpu")
COMPILED = Computing(compiled=True)
SMALL = {"depth": 1, "width": 4, "batch_real": 6, "factor": 2, "n_data": 8, "interval": 2, "inner_iterations": 2}


@pytest.fixture
def compiler():
    """Skips where there is none."""
    if missing := lacks_compiler("cpu"):
        pytest.skip(missing)


@pytest.fixture(autouse=True)
def fresh():
    """No test finds what another has compiled in this process, nor a compiler that another has taken away."""
    yield
    torch._dynamo.reset()
    computing._compiled.cache_clear()
    lacks_compiler.cache_clear()


def recipe(**params):
    image = {"image_size": 8} | SMALL | {"outer_iterations": 2} | params
    return make_recipe("dream", "folder:tiny", 1, 0, image, {"depth": 1, "width": 4, "epochs": 2})


def run(made, state=None, steps=None):
    distillation = Distillation(made, tiny_dataset(), CPU, state)
    for progress in distillation:
        if progress.step == steps:
            break
    return distillation


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("objective", ["gradient", pytest.param("both", marks=pytest.mark.nightly)])
def test_compiled_it_gives_the_loss_and_gradient_of_the_plain_one_for_every_network(objective):
    """What was compiled for a network serves the next, and every class."""
    for seed, label in ((0, 1), (1, 2)):
        torch.manual_seed(seed)
        network = ConvNet(3, 4, 8, depth=1, width=4)
        real, synthetic = torch.randn(6, 3, 8, 8 + seed)[..., :8], torch.randn(4, 3, 8 + seed, 8)[:, :, :8]  # cropped
        with torch._dynamo.config.patch(error_on_recompile=seed > 0):
            found = Matching(network, objective, "mse", "convolutions", COMPILED).match(real, synthetic, label)
        plain = Matching(network, objective, "mse", "convolutions").match(real, synthetic, label)
        torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("compiler")
@pytest.mark.nightly
def test_a_compiled_run_is_the_plain_one_but_for_rounding_and_resumes_to_the_same_bytes():
    plain, whole = run(recipe(compiled="off")), run(recipe(compiled="on"))
    assert whole._method.computing == COMPILED if not _native() else Computing(True, True)
    exact = run(recipe(compiled="on", precision="float32"))
    torch.testing.assert_close(exact.synthetic.images, plain.synthetic.images, rtol=1e-4, atol=1e-5)
    for step in (1, 2, 3):
        torch._dynamo.reset()
        resumed = run(recipe(compiled="on"), state=run(recipe(compiled="on"), steps=step).state_dict())
        assert torch.equal(resumed.synthetic.images, whole.synthetic.images)


def _native() -> bool:
    return computing.has_bfloat16(CPU)


@pytest.mark.usefixtures("compiler")
def test_images_that_fill_no_chunk_embed_as_any_others():
    network, images = ConvNet(3, 4, 8, depth=1, width=4), torch.randint(0, 256, (11, 3, 8, 8), dtype=torch.uint8)
    features = embed(network, images, 4, CPU, None, COMPILED)
    torch.testing.assert_close(features, embed(network, images, 4, CPU, None), rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("compiler")
@pytest.mark.nightly
def test_a_network_is_judged_compiled_as_it_is_plainly():
    dataset, made = tiny_dataset(), recipe()
    training = run(made, steps=1).training_set()
    found = []
    for compiled in ("on", "off"):
        how = made.evaluation.model_copy(update={"compiled": compiled, "precision": "float32", "epochs": 40})
        found.append([epoch.accuracy for epoch in train_and_test(training, dataset, how, 0, ("judge",), CPU)][-1])
    assert found[0] == pytest.approx(found[1], abs=12)  # of 18 images, two


def test_bfloat16_is_of_convolutions_alone_and_changes_features_a_little():
    network, images = ConvNet(3, 4, 8, depth=2, width=16), torch.randn(8, 3, 8, 8)
    features, plain = Computing(bfloat16=True).embed(network, images), PLAIN.embed(network, images)
    assert features.dtype == Computing(bfloat16=True).logits(network, images).dtype == torch.float32
    difference = (features - plain).norm() / plain.norm()
    assert 0 < difference < 0.03
    gradients = torch.autograd.grad(Computing(bfloat16=True).logits(network, images).sum(), list(network.parameters()))
    assert {gradient.dtype for gradient in gradients} == {torch.float32}


def test_plainly_nothing_is_changed():
    network, images = ConvNet(3, 4, 8, depth=2, width=16), torch.randn(8, 3, 8, 8)
    assert torch.equal(PLAIN.embed(network, images), network.embed(images))
    assert torch.equal(PLAIN.logits(network, images), network(images))
    network, images = network.double(), images.double()
    assert torch.equal(PLAIN.logits(network, images), network(images))


@pytest.mark.parametrize(
    ("dataset", "params", "worth"),
    [
        ("cifar10", {}, True),
        ("mnist", {}, True),
        ("tinyimagenet", {}, True),
        ("digits", {}, False),
        ("cifar10", {"width": 16}, False),
        ("cifar10", {"norm": "batch"}, False),
        ("cifar10", {"network": "resnet10"}, False),
    ],
)
def test_what_is_worth_compiling(dataset, params, worth):
    made = make_recipe("dream", dataset, 1, 0, params)
    assert made.worth_compiling == worth
    assert make_recipe("dream", dataset, 1, 0, params | {"outer_iterations": 1}).worth_compiling == worth


def test_what_is_compiled_and_in_which_precision(monkeypatch):
    def chosen(worth=True, **params):
        return choose_computing(EvaluationRecipe(**params), worth, CPU)

    monkeypatch.setattr(computing, "lacks_compiler", lambda device: None)
    for native in (True, False):
        monkeypatch.setattr(computing, "has_bfloat16", lambda device, native=native: native)
        assert chosen() == chosen(False, compiled="on") == Computing(True, native)
        assert chosen(False) == chosen(compiled="off") == PLAIN
        assert chosen(precision="float32") == COMPILED
        assert chosen(False, precision="bfloat16") == Computing(False, True)


def test_where_nothing_can_be_compiled_auto_does_without_and_on_says_why(monkeypatch, caplog):
    monkeypatch.setenv("CXX", "no-such-compiler")
    lacks_compiler.cache_clear()
    with caplog.at_level(logging.INFO):
        assert choose_computing(EvaluationRecipe(), True, CPU) == Computing(False, _native())
    assert "networks are not compiled: there is no C++ compiler no-such-compiler" in caplog.text
    with pytest.raises(DreamError, match="no C\\+\\+ compiler no-such-compiler; mend that, or use auto or off"):
        choose_computing(EvaluationRecipe(compiled="on"), False, CPU)


def test_a_compiler_that_fails_is_told_of(monkeypatch):
    monkeypatch.setenv("CXX", "false")
    monkeypatch.setenv("TORCHINDUCTOR_FORCE_DISABLE_CACHES", "1")
    lacks_compiler.cache_clear()
    with torch._inductor.config.patch({"cpp.cxx": ("false",), "force_disable_caches": True}):
        assert "compiling failed" in str(lacks_compiler("cpu"))


def test_batch_normalisation_is_not_compiled():
    with pytest.raises(InvalidRecipe, match="batch normalisation is not compiled"):
        make_recipe("dream", "cifar10", 1, 0, {"norm": "batch", "compiled": "on"})


def test_how_a_score_is_computed_is_not_what_it_is_of():
    hashes = {
        protocol_hash(EvaluationRecipe(compiled=compiled, precision=precision), "images", 32)
        for compiled in ("on", "off")
        for precision in ("float32", "bfloat16")
    }
    assert len(hashes) == 1


def test_black_images_fill_a_batch_up():
    images = torch.ones(2, 3, 4, 4)
    filled = filled_up(images, 5)
    assert torch.equal(filled[:2], images)
    assert filled.shape == (5, 3, 4, 4)
    assert not filled[2:].any()
