"""The augmentation operators against the reference, their draws, their composition, and CutMix."""

import pytest
import torch
import torch.nn.functional as F

from dream_core.augmentation import OPERATORS, augment, draw_cutmix, draw_one, draw_stack
from dream_core.images import Normalize, to_unit
from tests.dream_core import reference


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images(n=3, channels=3, size=8):
    return torch.randn(n, channels, size, size, generator=generator(9), dtype=torch.float64)


def always_cutmix(n, size, seed):
    cut = draw_cutmix(n, size, 1.0, generator(seed))
    assert cut is not None
    return cut


def as_reference(name, row):
    """One row of parameters as the reference takes them."""
    values = row.tolist()
    return tuple(values) if isinstance(values, list) else (values,)


@pytest.mark.parametrize("size", [8, 9, 28])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", OPERATORS)
def test_operator_equals_the_reference(name, channels, size):
    x = images(channels=channels, size=size)
    for seed in range(3):
        parameters = OPERATORS[name].draw(len(x), size, generator(seed))
        if parameters.is_floating_point():
            parameters = parameters.double()
        ours = OPERATORS[name].apply(x, parameters)
        theirs = [
            reference.augment(image, [(name, as_reference(name, row))])
            for image, row in zip(x, parameters, strict=True)
        ]
        torch.testing.assert_close(ours, torch.stack(theirs), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", OPERATORS)
def test_one_row_of_parameters_serves_every_image(name):
    """Siamese: real and synthetic batches of different size get the same transformation."""
    x = images(n=5)
    for seed in range(4):
        row = OPERATORS[name].draw(1, 8, generator(seed))
        together = augment(x, [(name, row)])
        apart = torch.cat([augment(x[:4], [(name, row)]), augment(x[4:], [(name, row)])])
        by_image = augment(x, [(name, row.expand(5, *row.shape[1:]))])
        torch.testing.assert_close(together, apart, rtol=0, atol=1e-12)
        torch.testing.assert_close(together, by_image, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", OPERATORS)
def test_gradients_flow_through(name):
    x = images(n=2, size=4).requires_grad_()
    parameters = OPERATORS[name].draw(2, 4, generator(1))
    if parameters.is_floating_point():
        parameters = parameters.double()
    assert torch.autograd.gradcheck(lambda x: OPERATORS[name].apply(x, parameters), x)


def test_the_input_is_left_alone():
    x = images()
    before = x.clone()
    for name in OPERATORS:
        augment(x, [(name, OPERATORS[name].draw(3, 8, generator()))])
    always_cutmix(3, 8, 0).paste(x)
    assert torch.equal(x, before)


# ---- ranges of the draws


def test_saturation_and_contrast_factors_reach_from_nothing_to_double():
    """Saturation is multiplied by 0..2, contrast by 0.5..1.5, brightness moves by half a unit at most."""
    x = images()
    zero, one = torch.zeros(1, dtype=x.dtype), torch.ones(1, dtype=x.dtype)
    from dream_core.augmentation import brightness, contrast, saturation

    grey = x.mean(1, keepdim=True)
    mean = x.mean((1, 2, 3), keepdim=True)
    torch.testing.assert_close(saturation(x, zero), grey.expand_as(x))
    torch.testing.assert_close(saturation(x, one), 2 * x - grey)
    torch.testing.assert_close(contrast(x, zero), (x + mean) / 2)
    torch.testing.assert_close(contrast(x, one), 1.5 * x - 0.5 * mean)
    torch.testing.assert_close(brightness(x, zero), x - 0.5)


@pytest.mark.parametrize(("size", "reach"), [(8, 1), (28, 4), (32, 4), (64, 8), (224, 28)])
def test_crop_shifts_by_an_eighth_both_ways(size, reach):
    shifts = OPERATORS["crop"].draw(4000, size, generator())
    assert shifts.unique().tolist() == list(range(-reach, reach + 1))


@pytest.mark.parametrize(("size", "last"), [(32, 32), (28, 28), (10, 9), (64, 64)])
def test_cutout_centre_reaches_the_far_border_only_for_an_even_square(size, last):
    centres = OPERATORS["cutout"].draw(20000, size, generator())
    assert (int(centres.min()), int(centres.max())) == (0, last)


def test_cutout_is_clipped_at_the_border():
    ones = torch.ones(1, 1, 32, 32)
    for centre, area in (((16, 16), 256), ((0, 16), 128), ((0, 0), 64), ((32, 32), 64), ((32, 0), 64)):
        hole = OPERATORS["cutout"].apply(ones, torch.tensor([centre])) == 0
        assert int(hole.sum()) == area


def test_scale_rotate_and_flip_ranges():
    factors = OPERATORS["scale"].draw(4000, 32, generator())
    assert 1 / 1.2 <= float(factors.min()) < 0.84
    assert 1.19 < float(factors.max()) <= 1.2
    assert not torch.equal(factors[:, 0], factors[:, 1])  # the two axes are independent
    degrees = OPERATORS["rotate"].draw(4000, 32, generator())
    assert -15 <= float(degrees.min()) < -14.9
    assert 14.9 < float(degrees.max()) <= 15
    assert 0.45 < float(OPERATORS["flip"].draw(4000, 32, generator()).float().mean()) < 0.55


@pytest.mark.parametrize("name", ["crop", "cutout", "scale", "rotate"])
def test_padding_is_the_mean_colour(name):
    """Normalised first, augmented after: an image of the mean colour comes out as it went in."""
    mean = (0.2, 0.6, 0.4)
    flat = to_unit(torch.tensor([51, 153, 102], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 16, 16))
    x = Normalize(mean, (0.25, 0.25, 0.25))(flat)
    parameters = torch.tensor([[1.2, 1.2]]) if name == "scale" else OPERATORS[name].draw(1, 16, generator(3))
    assert OPERATORS[name].apply(x, parameters).abs().max() < 1e-5


# ---- composition


def names(draw):
    return [name for name, _ in draw]


def test_rule_b_stacks_color_and_cutout_around_one_of_the_rest():
    """IDC and DREAM: flip, color and cutout always; of crop, scale and rotate exactly one."""
    strategy = "color_crop_cutout_flip_scale_rotate"
    seen = [names(draw_stack(strategy, 1, 32, generator(seed))) for seed in range(300)]
    assert {(n[0], n[1], n[3]) for n in seen} == {("flip", "color", "cutout")}
    counts = {name: sum(n[2] == name for n in seen) for name in ("crop", "scale", "rotate")}
    assert sum(counts.values()) == 300
    assert min(counts.values()) > 60


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("color_crop_cutout", ["color", "crop", "cutout"]),
        ("color_crop", ["color", "crop"]),
        ("none", []),
        ("cutout", ["cutout"]),
        ("color_flip", ["flip", "color"]),
    ],
)
def test_rule_b_draws_only_what_the_strategy_names(strategy, expected):
    assert all(names(draw_stack(strategy, 2, 32, generator(seed))) == expected for seed in range(20))


def test_rule_a_draws_one_operator_of_all():
    """DSA: color counts as one, and nothing is stacked."""
    seen = [names(draw_one("color_crop_cutout_flip_scale_rotate", 1, 32, generator(seed))) for seed in range(300)]
    assert all(len(n) == 1 for n in seen)
    assert {n[0] for n in seen} == set(OPERATORS)


def test_draws_hold_as_many_rows_as_asked():
    strategy = "color_crop_cutout_flip_scale_rotate"
    for n in (1, 7):
        for seed in range(10):
            assert all(len(parameters) == n for _, parameters in draw_stack(strategy, n, 32, generator(seed)))


def test_a_draw_is_decided_by_its_generator_alone():
    torch.manual_seed(1)
    first = draw_stack("color_crop_cutout", 4, 32, generator(5))
    torch.manual_seed(2)
    again = draw_stack("color_crop_cutout", 4, 32, generator(5))
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(first, again, strict=True))


def test_drawing_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    draw_stack("color_crop_cutout_flip_scale_rotate", 8, 32, generator(5))
    draw_cutmix(8, 32, 1.0, generator(5))
    assert torch.equal(torch.get_rng_state(), before)


# ---- CutMix


def test_cutmix_equals_the_reference():
    x, labels = images(n=6), torch.tensor([0, 1, 2, 2, 1, 0])
    logits = torch.randn(6, 3, generator=generator(4), dtype=torch.float64)
    for seed in range(20):
        cut = always_cutmix(6, 8, seed)
        order = cut.order.tolist()
        mixed, share = reference.cutmix(x, order, (cut.top, cut.bottom, cut.left, cut.right))
        torch.testing.assert_close(cut.paste(x), mixed, rtol=0, atol=0)
        own, partner = labels.tolist(), [labels.tolist()[i] for i in order]
        expected = share * reference.cross_entropy(logits, own) + (1 - share) * reference.cross_entropy(logits, partner)
        torch.testing.assert_close(cut.loss(logits, labels), expected)


def test_cutmix_share_is_that_of_the_clipped_box():
    """A box over the corner takes less than 1 − λ drawn; the labels follow what it really takes."""
    cuts = [always_cutmix(4, 32, seed) for seed in range(200)]
    assert all(0 <= c.top <= c.bottom <= 32 and 0 <= c.left <= c.right <= 32 for c in cuts)
    clipped = [c for c in cuts if (c.bottom - c.top) != (c.right - c.left)]
    assert clipped
    logits, labels = torch.eye(4) * 3, torch.arange(4)
    for cut in clipped[:10]:
        share = 1 - (cut.bottom - cut.top) * (cut.right - cut.left) / 1024
        expected = share * F.cross_entropy(logits, labels) + (1 - share) * F.cross_entropy(logits, labels[cut.order])
        torch.testing.assert_close(cut.loss(logits, labels), expected)


def test_cutmix_box_is_that_of_its_lambda_and_centre():
    """The draw replayed: a coin, λ uniform (Beta(1, 1)), the centre anywhere, then the order."""
    for seed in range(20):
        cut, g = always_cutmix(5, 32, seed), generator(seed)
        torch.rand(1, generator=g)
        lam = float(torch.rand(1, generator=g))
        row, column = torch.randint(32, (2,), generator=g).tolist()
        assert (cut.top, cut.bottom, cut.left, cut.right) == reference.cutmix_box(lam, row, column, 32, 32)


def test_cutmix_comes_with_its_probability():
    assert all(draw_cutmix(4, 32, 0.0, generator(seed)) is None for seed in range(50))
    share = sum(draw_cutmix(4, 32, 0.5, generator(seed)) is not None for seed in range(1000)) / 1000
    assert 0.45 < share < 0.55
