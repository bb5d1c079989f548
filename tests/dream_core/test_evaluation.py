"""The evaluation protocol against the reference, its schedule, and what its numbers mean."""

import pytest
import torch

from dream_core import networks
from dream_core.augmentation import draw_cutmix, draw_stack
from dream_core.evaluation import NetworkScore, protocol_hash, random_real, summarize, train_and_test
from dream_core.evaluation.protocol import accuracy
from dream_core.images import Normalize
from dream_core.randomness import Shuffle, stream
from dream_core.recipes import EvaluationRecipe, make_recipe
from dream_core.subject import TrainingSet
from tests.dream_core import reference
from tests.dream_core.test_matching_against_reference import by_image
from tests.dream_core.tiny import tiny_dataset

CPU = torch.device("cpu")


def evaluate(recipe, dataset, images=None, labels=None, key=(0,)):
    images = dataset.train.images if images is None else images
    labels = dataset.train.labels if labels is None else labels
    training = TrainingSet(images, labels, Normalize(dataset.mean, dataset.std))
    return list(train_and_test(training, dataset, recipe, 5, key, CPU))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("mix_p", [0.0, 0.5])
def test_training_equals_the_reference(monkeypatch, mix_p):
    """SGD .9 with decay; the rate falls to a fifth at 2/3 and 5/6; short last batches; a draw for every image."""
    dataset = tiny_dataset()
    recipe = EvaluationRecipe(epochs=6, batch_size=16, mix_p=mix_p, lr=0.05)
    trained = []
    make = networks.evaluation_network

    def remember(*arguments):
        trained.append(make(*arguments))
        return trained[0]

    monkeypatch.setattr(networks, "evaluation_network", remember)
    evaluate(recipe, dataset)

    network = make(recipe, 3, 3, 8, stream(5, "network", 0), CPU)
    weights = [w.detach().clone().requires_grad_() for w in network.parameters()]
    velocity = [torch.zeros_like(w) for w in weights]
    images, labels = dataset.train.images.double() / 255, dataset.train.labels.tolist()
    batches = Shuffle(len(images), 16, 5, "batches", 0, drop_last=False)
    for number in range(6 * 3):
        lr = 0.05 * 0.2 ** ((number >= 4 * 3) + (number >= 5 * 3))
        batch, generator = batches[number].tolist(), stream(5, "train", 0, number)
        draw = by_image(draw_stack(recipe.augmentation, len(batch), 8, generator), len(batch))
        cut = draw_cutmix(len(batch), 8, mix_p, generator)
        mix = cut and (cut.order.tolist(), (cut.top, cut.bottom, cut.left, cut.right))
        settings = reference.Settings(1, 1, 0, "mse", dataset.mean, dataset.std, lr_net=lr)
        step = reference.Minibatch(batch, draw, mix)
        weights, velocity = reference.network_step(weights, velocity, images, labels, step, settings=settings)
    for ours, theirs in zip(trained[0].parameters(), weights, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-8)


def test_published_protocol_is_the_default():
    recipe = make_recipe("dream", "cifar10", 10).evaluation
    assert (recipe.epochs, recipe.batch_size, recipe.lr, recipe.momentum, recipe.weight_decay) == (
        1000, 64, 0.01, 0.9, 5e-4)  # fmt: skip
    assert (recipe.mix_p, recipe.tests, recipe.repeats) == (0.5, 4, 3)
    assert recipe.augmentation == "color_crop_flip_scale_rotate"  # no cutout where there is CutMix


@pytest.mark.parametrize(
    ("dataset", "ipc", "factor", "augmentation", "mix_p"),
    [
        ("svhn", 10, 2, "color_crop_scale_rotate", 0.5),
        ("svhn", 1, 1, "color_crop_cutout_scale_rotate", 0.0),
        ("mnist", 10, 2, "color_crop_scale_rotate", 0.0),
        ("mnist", 10, 1, "color_crop_scale_rotate", 0.5),
        ("fashion_mnist", 10, 2, "color_crop_flip_scale_rotate", 0.5),
    ],
)
def test_exceptions_of_the_published_protocol(dataset, ipc, factor, augmentation, mix_p):
    """Digits are never mirrored; MNIST with multi-formation and SVHN at one plain image go without CutMix."""
    recipe = make_recipe("dream", dataset, ipc, params={"factor": factor}).evaluation
    assert (recipe.augmentation, recipe.mix_p) == (augmentation, mix_p)


@pytest.mark.parametrize(
    ("dataset", "ipc", "expected"),
    [
        ("cifar10", 1, 5e-4), ("cifar10", 10, 5e-3), ("cifar100", 50, 2.5e-2), ("svhn", 1, 5e-4),
        ("mnist", 1, 1e-5), ("mnist", 50, 5e-4), ("fashion_mnist", 1, 7.65625e-6), ("fashion_mnist", 50, 3.828125e-4),
        ("tinyimagenet", 1, 2e-3), ("tinyimagenet", 10, 2e-2), ("tinyimagenet", 50, 2e-5),
    ],
)  # fmt: skip
def test_learning_rate_of_pixels_is_scaled_as_published(dataset, ipc, expected):
    """By IPC / 10 and (size / base)²: the base is 28 for MNIST alone, FashionMNIST's is 32."""
    assert make_recipe("dream", dataset, ipc).lr_img == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("dataset", "metric", "n_data", "batches"),
    [
        ("cifar10", "mse", 2000, (64, 128)), ("cifar100", "mse", 2000, (64, 128)), ("svhn", "mse", 500, (64, 128)),
        ("mnist", "l1", 500, (64, 128)), ("fashion_mnist", "l1", 500, (64, 128)),
        ("tinyimagenet", "mse", 1000, (64, 64)),
    ],
)  # fmt: skip
def test_published_settings(dataset, metric, n_data, batches):
    idc, dream = (make_recipe(method, dataset, 10) for method in ("idc", "dream"))
    for recipe in (idc, dream):
        assert (recipe.metric, recipe.n_data, recipe.factor) == (metric, n_data, 2)
        assert (recipe.outer_iterations, recipe.inner_iterations, recipe.momentum_img) == (2000, 100, 0.5)
        assert (recipe.lr_net, recipe.momentum_net, recipe.weight_decay_net) == (0.01, 0.9, 5e-4)
        assert recipe.batch_syn_max == 128
    assert (idc.batch_real, dream.batch_real) == batches
    assert (idc.selection, idc.init, dream.selection, dream.init) == (
        "random", "first", "representative", "representative")  # fmt: skip
    assert (dream.interval, dream.per_cluster, dream.normalize_for_selection) == (10, 1, False)


@pytest.mark.parametrize(("factor", "matching", "mix_p_net"), [(1, "color_crop_cutout", 0.5), (2, "color_crop", 0.0)])
def test_mnist_with_multi_formation_has_neither_cutout_nor_cutmix(factor, matching, mix_p_net):
    recipe = make_recipe("dream", "mnist", 10, params={"factor": factor})
    assert (recipe.augmentation, recipe.augmentation_net, recipe.mix_p_net) == (matching, "color_crop", mix_p_net)


# ---- numbers


def test_the_test_set_is_looked_at_four_times_and_at_the_end():
    looks = [e.number for e in evaluate(EvaluationRecipe(epochs=8), tiny_dataset()) if e.accuracy is not None]
    assert looks == [2, 4, 6, 8]


@pytest.mark.parametrize("epochs", [1, 2, 3, 7, 10])
def test_any_number_of_epochs_ends_with_a_look(epochs):
    seen = evaluate(EvaluationRecipe(epochs=epochs), tiny_dataset())
    assert len(seen) == epochs
    assert seen[-1].accuracy is not None


def test_real_images_of_separable_classes_are_learned():
    dataset = tiny_dataset(counts=(40, 40, 40))
    recipe = EvaluationRecipe(epochs=20, batch_size=8, augmentation="none", mix_p=0.0)
    assert (evaluate(recipe, dataset)[-1].accuracy or 0) > 80


def test_accuracy_is_in_percent_of_the_test_set():
    dataset = tiny_dataset()

    class Always(torch.nn.Module):
        def forward(self, x):
            return torch.tensor([[0.0, 1, 0]]).expand(len(x), 3)

    assert accuracy(Always(), dataset.test, Normalize(dataset.mean, dataset.std), CPU) == pytest.approx(100 / 3)


def test_runs_with_the_same_key_are_the_same_and_others_differ():
    recipe, dataset = EvaluationRecipe(epochs=4, lr=0.1), tiny_dataset()
    first, again = ([e.accuracy for e in evaluate(recipe, dataset)] for _ in range(2))
    assert first == again
    seen = {str([e.accuracy for e in evaluate(recipe, dataset, key=(run,))]) for run in range(6)}
    assert len(seen) > 1


def test_best_is_kept_apart_from_last():
    score = summarize([NetworkScore(50, 60), NetworkScore(54, 54), NetworkScore(52, 57)])
    assert (score.mean, score.std, score.n, score.best_mean) == (52, 2, 3, 57)
    assert summarize([NetworkScore(50, 60)]).std == 0


def test_random_baseline_has_ipc_images_of_each_class():
    dataset = tiny_dataset()
    images, labels = random_real(dataset.train, 4, seed=0, run=0)
    assert labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    for label in range(3):
        own = {tuple(image.flatten().tolist()) for image in dataset.train.of_class(label)}
        chosen = {tuple(image.flatten().tolist()) for image in images[labels == label]}
        assert chosen <= own
        assert len(chosen) == 4
    other, _ = random_real(dataset.train, 4, seed=0, run=1)
    assert not torch.equal(images, other)


def test_scores_share_a_hash_only_if_measured_alike():
    base = EvaluationRecipe()
    same = base.model_copy(update={"repeats": 7, "baselines": False})
    assert protocol_hash(base, "cifar10", 32) == protocol_hash(same, "cifar10", 32)
    others = [
        protocol_hash(base.model_copy(update={field: value}), "cifar10", 32)
        for field, value in {"epochs": 999, "lr": 0.02, "mix_p": 0.0, "batch_size": 65, "augmentation": "none"}.items()
    ]
    others += [protocol_hash(base, "cifar100", 32), protocol_hash(base, "cifar10", 64)]
    assert len({protocol_hash(base, "cifar10", 32), *others}) == 8
