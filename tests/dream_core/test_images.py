"""Pixels to network inputs and back: normalised, whitened."""

import pytest
import torch
from torch.nn.functional import interpolate

from dream_core.evaluation import train_and_test
from dream_core.images import Normalize, Zca, to_unit
from dream_core.recipes import EvaluationRecipe
from dream_core.subject import TrainingSet
from tests.dream_core.reference import normalize
from tests.dream_core.reference_recovery import fit_zca, unwhiten, whiten
from tests.dream_core.tiny import MEAN, STD, tiny_dataset

EPS = 0.1


def photographs(n, channels=3, size=10, seed=0):
    """uint8 images whose neighbouring pixels and channels are alike, with a little noise, as in photographs."""
    generator = torch.Generator().manual_seed(seed)
    light = interpolate(torch.rand(n, 1, 3, 3, generator=generator), size=(size, size), mode="bilinear")
    tint = interpolate(torch.rand(n, channels, 2, 2, generator=generator), size=(size, size), mode="bilinear")
    noise = torch.rand(n, channels, size, size, generator=generator)
    return ((0.6 * light + 0.3 * tint + 0.1 * noise) * 255).to(torch.uint8)


def assert_near(ours, theirs, atol):
    torch.testing.assert_close(ours, theirs, rtol=0, atol=atol)


# ---- uint8 to floats


def test_bytes_become_fractions_of_255():
    images = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    units = to_unit(images)
    assert units.dtype == torch.float32
    assert (units.min(), units.max()) == (0, 1)
    assert torch.equal(units, images.float() / 255)


def test_floats_are_moved_and_not_divided():
    images = torch.tensor([[[[0.0, 0.5], [-3.0, 255.0]]]], dtype=torch.float64)
    assert torch.equal(to_unit(images), images.float())
    assert to_unit(images, "meta").device.type == "meta"


@pytest.mark.usefixtures("float64")
def test_floats_are_of_the_default_type():
    assert to_unit(torch.zeros(1, 1, 2, 2, dtype=torch.uint8)).dtype == torch.float64
    assert to_unit(torch.zeros(1, 1, 2, 2, dtype=torch.float32)).dtype == torch.float64


# ---- normalisation


@pytest.mark.parametrize("channels", [1, 3])
def test_normalisation_equals_the_reference_and_goes_back(channels):
    images = torch.rand(4, channels, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    transform = Normalize(MEAN[:channels], STD[:channels])
    inputs = transform(images)
    assert_near(inputs, normalize(images, MEAN[:channels], STD[:channels]), 1e-12)
    assert_near(transform.inverse(inputs), images, 1e-12)
    outside = 5 * images - 2  # what a method may learn is not cut off
    assert_near(transform.inverse(transform(outside)), outside, 1e-12)
    assert transform(images.float()).dtype == torch.float32


# ---- whitening


@pytest.fixture(params=["more pixels than images", "more images than pixels", "grey"])
def case(request):
    n, channels, size = {"more p": (40, 3, 8), "more i": (120, 3, 5), "grey": (90, 1, 8)}[request.param[:6]]
    return photographs(n, channels, size)


@pytest.mark.usefixtures("float64")
def test_whitening_equals_the_reference_and_goes_back(case):
    images = case.double() / 255
    mean, W, W_inverse = fit_zca(images, EPS)
    transform = Zca.fit(case, EPS)
    others = photographs(7, *case.shape[1:3], seed=1).double() / 255
    for pixels in (images[:9], others, 3 * others - 1):
        inputs = transform(pixels)
        assert_near(inputs, whiten(pixels, mean, W), 1e-9)
        assert_near(transform.inverse(inputs), unwhiten(inputs, mean, W_inverse), 1e-9)
        assert_near(transform.inverse(inputs), pixels, 1e-10)


def test_whitening_goes_back_in_float32():
    images = photographs(300)
    transform = Zca.fit(images, EPS)
    for pixels in (to_unit(images), to_unit(photographs(50, seed=1))):
        inputs = transform(pixels)
        assert inputs.dtype == torch.float32
        assert_near(transform.inverse(inputs), pixels, 1e-6)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("eps", [0.1, 1e-3])
def test_whitened_training_images_have_the_covariance_of_whitening(eps):
    """U diag(λ / (λ + ε)) Uᵀ around 0: nearly 1 where light varies much, nearly nothing where it does not."""
    images = photographs(150, 3, 6)
    transform = Zca.fit(images, eps)
    rows = (images.double() / 255).flatten(1)
    values, U = torch.linalg.eigh(torch.cov(rows.T))
    whitened = transform(images.double() / 255).flatten(1)
    assert_near(whitened.mean(0), torch.zeros(108), 1e-10)
    assert_near(torch.cov(whitened.T), U * (values / (values + eps)) @ U.T, 1e-9)
    assert values[-1] / (values[-1] + eps) > 0.5


def test_whitening_is_the_same_however_the_images_are_cut_into_chunks():
    images = photographs(50, 1, 6)
    pixels = to_unit(photographs(5, 1, 6, seed=1))
    whole = Zca.fit(images, EPS)(pixels)
    for chunk in (1, 7, 50):
        assert_near(Zca.fit(images, EPS, chunk)(pixels), whole, 1e-5)


def test_eps_is_what_it_is_given_as():
    images = photographs(50, 1, 6)
    pixels = to_unit(images)
    weak, strong = Zca.fit(images, 1e-4)(pixels), Zca.fit(images, 10.0)(pixels)
    assert weak.std() > 5 * strong.std()


def test_a_whitening_is_rebuilt_from_its_tensors():
    images = photographs(60, 3, 6)
    first = Zca.fit(images, 0.05)
    again = Zca(**first.tensors(), eps=first.eps)
    pixels = to_unit(images)
    assert torch.equal(again(pixels), first(pixels))
    assert torch.equal(again.inverse(pixels), first.inverse(pixels))


def test_a_direction_without_variance_does_no_harm():
    """Rounding makes its eigenvalue a little less than nothing."""
    images = photographs(3, 1, 8)
    transform = Zca.fit(images, 1e-12)
    assert transform(to_unit(images)).isfinite().all()


@pytest.mark.usefixtures("float64")
def test_test_images_are_whitened_with_the_training_images_statistics(monkeypatch):
    """By the transform that the training set brings, wherever a network is judged."""
    from dream_core import networks

    dataset = tiny_dataset()
    shown, make = [], networks.evaluation_network

    def watched(*arguments):
        network = make(*arguments)
        network.register_forward_pre_hook(lambda module, args: None if module.training else shown.append(args[0]))
        return network

    monkeypatch.setattr(networks, "evaluation_network", watched)
    training = TrainingSet(dataset.train.images, dataset.train.labels, Zca.fit(dataset.train.images, EPS))
    recipe = EvaluationRecipe.model_validate({"epochs": 1, "tests": 1, "depth": 1, "width": 2})
    list(train_and_test(training, dataset, recipe, 0, (0,), torch.device("cpu")))

    mean, W, _ = fit_zca(dataset.train.images.double() / 255, EPS)
    assert_near(torch.cat(shown), whiten(dataset.test.images.double() / 255, mean, W), 1e-9)
