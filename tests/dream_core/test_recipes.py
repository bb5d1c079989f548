"""The published settings, value by value, and what a wrong one is answered with."""

import pytest

from dream_core.errors import InvalidRecipe
from dream_core.recipes import make_recipe

IPCS = (1, 10, 50)


@pytest.mark.parametrize(
    ("dataset", "rates"),
    [
        ("cifar10", (5e-4, 5e-3, 2.5e-2)),
        ("cifar100", (5e-4, 5e-3, 2.5e-2)),
        ("svhn", (5e-4, 5e-3, 2.5e-2)),
        ("mnist", (1e-5, 1e-4, 5e-4)),
        ("fashion_mnist", (7.65625e-6, 7.65625e-5, 3.828125e-4)),  # 28 pixels over a base of 32
        ("tinyimagenet", (2e-3, 2e-2, 2e-5)),
    ],
)
def test_the_pixels_learning_rate_follows_ipc_and_size(dataset, rates):
    found = [make_recipe("dream", dataset, ipc).lr_img for ipc in IPCS]
    assert found == pytest.approx(rates)


@pytest.mark.parametrize(
    ("dataset", "metric", "n_data", "depth"),
    [
        ("cifar10", "mse", 2000, 3),
        ("cifar100", "mse", 2000, 3),
        ("svhn", "mse", 500, 3),
        ("mnist", "l1", 500, 3),
        ("fashion_mnist", "l1", 500, 3),
        ("tinyimagenet", "mse", 1000, 4),
    ],
)
def test_metric_network_data_and_depth(dataset, metric, n_data, depth):
    recipe = make_recipe("idc", dataset, 10)
    assert (recipe.metric, recipe.n_data, recipe.depth, recipe.factor) == (metric, n_data, depth, 2)
    assert (recipe.outer_iterations, recipe.inner_iterations, recipe.momentum_img) == (2000, 100, 0.5)
    assert (recipe.lr_net, recipe.momentum_net, recipe.weight_decay_net) == (0.01, 0.9, 5e-4)


def test_dream_is_idc_with_other_real_images():
    idc, dream = (make_recipe(method, "cifar10", 10).model_dump() for method in ("idc", "dream"))
    assert {name for name in idc if idc[name] != dream[name]} == {"method", "init", "selection", "batch_real"}
    assert (idc["batch_real"], dream["batch_real"], dream["interval"]) == (64, 128, 10)


@pytest.mark.parametrize("dataset", ["mnist", "svhn", "digits"])
def test_digits_are_not_mirrored(dataset):
    assert "flip" not in make_recipe("dream", dataset, 10).evaluation.augmentation


def test_mnist_with_multi_formation_has_no_cutmix_and_no_cutout():
    recipe = make_recipe("dream", "mnist", 10)
    assert (recipe.augmentation, recipe.mix_p_net, recipe.evaluation.mix_p) == ("color_crop", 0, 0)
    plain = make_recipe("dream", "mnist", 10, params={"factor": 1})
    assert (plain.augmentation, plain.mix_p_net, plain.evaluation.mix_p) == ("color_crop_cutout", 0.5, 0.5)


def test_svhn_at_one_plain_image_is_evaluated_with_cutout_instead_of_cutmix():
    evaluation = make_recipe("idc", "svhn", 1, params={"factor": 1}).evaluation
    assert (evaluation.mix_p, evaluation.augmentation) == (0, "color_crop_cutout_scale_rotate")


def test_tinyimagenet_takes_smaller_batches():
    assert make_recipe("dream", "tinyimagenet", 1).batch_real == 64


def test_a_users_value_wins_and_others_follow_it():
    recipe = make_recipe("dream", "cifar10", 7, params={"interval": 3}, evaluation={"epochs": 9})
    assert (recipe.interval, recipe.evaluation.epochs) == (3, 9)
    assert recipe.lr_img == pytest.approx(5e-3 * 0.7)


@pytest.mark.parametrize(
    ("field", "told", "request_"),
    [
        ("dataset", "known: digits", {"dataset": "imagenet"}),
        ("method", "known: dc, dsa, dm, idc, dream", {"method": "magic"}),
        ("ipc", "use at most that", {"ipc": 5422}),
        ("ipc", "greater than or equal to 1", {"ipc": 0}),
        ("params.factor", "does not fit", {"dataset": "digits", "params": {"factor": 8}}),
        ("params.factor", "lower ipc or factor", {"ipc": 3000}),
        ("params.depth", "poolings leave nothing", {"params": {"depth": 6}}),
        ("params.metric", "mse", {"params": {"metric": "l7"}}),
        ("params.intervall", "not permitted", {"params": {"intervall": 3}}),
        ("params.image_size", "only folder:PATH", {"params": {"image_size": 64}}),
        ("params.seed", "top level", {"params": {"seed": 3}}),
        ("params.per_cluster", "batch_real", {"params": {"per_cluster": 1000}}),
        ("params.pool", "batch_real = 128", {"params": {"pool": 127}}),
        ("params.pool", "official", {"params": {"pool": 500, "official": True}}),
        ("params.staggered", "official", {"params": {"staggered": True, "official": True}}),
        ("params.warm_start", "official", {"params": {"warm_start": True, "official": True}}),
        ("params.warm_start", "interval below 10", {"params": {"warm_start": True, "inner_iterations": 10}}),
        ("params.lr_img", "finite", {"params": {"lr_img": float("nan")}}),
        ("evaluation.epochs", "greater than", {"evaluation": {"epochs": 0}}),
        ("evaluation.epoch", "not permitted", {"evaluation": {"epoch": 1}}),
        ("params.augmentation", "match", {"params": {"augmentation": "color_blur"}}),
    ],
)
def test_a_wrong_value_is_named_with_what_to_do(field, told, request_):
    with pytest.raises(InvalidRecipe) as caught:
        make_recipe(**({"method": "dream", "dataset": "mnist", "ipc": 1} | request_))
    found = dict(caught.value.problems)
    assert field in found
    assert told in found[field]
