"""Real images that are chosen: against the reference, with ties and duplicates, and as a method like any other."""

import pytest
import torch

from dream_core import networks
from dream_core.distillation import Distillation
from dream_core.errors import Diverged
from dream_core.images import to_unit
from dream_core.methods.coresets import Coreset, herding, k_center
from dream_core.randomness import stream
from dream_core.recipes import CoresetRecipe, MatchingRecipe, make_recipe
from dream_core.selection import nearest
from tests.dream_core import reference, reference_condensation
from tests.dream_core.tiny import tiny_dataset

CPU = torch.device("cpu")
METHODS = ["random", "herding", "k-center", "kmeans"]
COUNTS = (14, 11, 9)


def recipe(method, ipc=4, **changes):
    small = {"image_size": 8, "depth": 2, "width": 6, "clustering": "torch", "batch_net": 8}
    made = make_recipe(method, "folder:tiny", ipc, seed=3, params=small | changes)
    assert isinstance(made, CoresetRecipe)
    return made


def run(made, dataset=None):
    distillation = Distillation(made, dataset or tiny_dataset(counts=COUNTS), device="cpu")
    progress = list(distillation)
    return distillation, progress


def chosen(distillation, dataset) -> list[list[int]]:
    """Which images of each class were taken, in order."""
    found = []
    for label in range(len(dataset.class_names)):
        real, taken = to_unit(dataset.train.of_class(label)), distillation.synthetic.of_class(label)
        same = (taken[:, None] == real).flatten(2).all(2)
        assert (same.sum(1) >= 1).all()
        found.append(same.int().argmax(1).tolist())
    return found


# ---- the choice itself


def cloud(n=12, d=3, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mirrored(half):
    """Every row and its opposite: the mean is exactly zero, and all distances to it come in pairs."""
    return torch.stack([half, -half], 1).flatten(0, 1)


WHOLE = torch.randint(-3, 4, (5, 2), generator=torch.Generator().manual_seed(1)).double()
FEATURES = {
    "a cloud": cloud(),
    "many dimensions": cloud(10, 40, seed=2),
    "ties": mirrored(WHOLE),
    "duplicates": cloud(5).repeat(3, 1),
    "ties and duplicates": mirrored(WHOLE).repeat(2, 1),
    "all the same": torch.ones(8, 3, dtype=torch.float64),
    "far from the origin": mirrored(WHOLE) + 1024,
    "one row": torch.ones(1, 3, dtype=torch.float64),
}


@pytest.mark.parametrize("case", FEATURES)
def test_herding_equals_the_reference(case):
    E = FEATURES[case]
    for count in (1, len(E) // 2, len(E)):
        found = herding(E, count)
        assert found == reference_condensation.herding(E, count)
        assert len(set(found)) == count


@pytest.mark.parametrize("case", FEATURES)
def test_k_center_equals_the_reference(case):
    E = FEATURES[case]
    for count in (1, len(E) // 2 or 1, len(E)):
        for first in {0, len(E) // 2, len(E) - 1}:
            found = k_center(E, count, first)
            assert found == reference_condensation.k_center(E, count, first)
            assert len(set(found)) == count


@pytest.mark.parametrize("case", FEATURES)
def test_nearest_rows_to_the_centres_equal_the_reference(case):
    """From the reference's own centres: in order, and none twice where rows are alike."""
    E = FEATURES[case]
    count = max(1, len(E) // 3)
    start = torch.randperm(len(E), generator=torch.Generator().manual_seed(5))[:count].tolist()
    centers = reference.kmeans_lloyd(E, start)
    expected = reference_condensation.kmeans_representatives(E, start, count)
    found = nearest(E, centers).tolist()
    assert len(set(found)) == count

    def distances(rows):
        return torch.stack([(E[i] - center).square().sum() for i, center in zip(rows, centers, strict=True)])

    torch.testing.assert_close(
        distances(found), distances(expected), rtol=0, atol=1e-8
    )  # of equals any, as in a cluster of two
    if case == "many dimensions":
        assert found == expected


def test_herding_follows_the_mean_and_not_the_middle():
    """The third makes up for the first two: by nearness to the mean, which is 1, it would be the last of all."""
    E = torch.tensor([[0.0], [-1.0], [-1.5], [6.5]])
    assert herding(E, 4) == [0, 1, 3, 2]


def test_k_center_covers():
    E = torch.tensor([[0.0], [1.0], [10.0], [4.0], [9.0]])
    assert k_center(E, 3, first=0) == [0, 2, 3]
    assert k_center(E, 5, first=0) == [0, 2, 3, 1, 4]


# ---- as methods


@pytest.mark.parametrize("method", METHODS)
def test_the_images_are_real_ones_of_their_class_none_twice(method):
    """Classes differ in size; of the smallest, all are taken at last."""
    dataset = tiny_dataset(counts=COUNTS)
    for ipc in (1, 4, 9):
        distillation, _ = run(recipe(method, ipc, pretrain_epochs=1), dataset)
        taken = chosen(distillation, dataset)
        assert [len(set(indices)) for indices in taken] == [ipc] * 3
        images, labels = distillation.synthetic.decoded()
        assert torch.equal(images, distillation.synthetic.images)
        assert labels.tolist() == [label for label in range(3) for _ in range(ipc)]
        if ipc == 9:
            assert sorted(taken[2]) == list(range(9))


@pytest.mark.parametrize("method", METHODS)
def test_of_images_that_are_alike_none_is_taken_twice(method):
    """Whole classes of copies, by their indices."""
    dataset = tiny_dataset(counts=COUNTS)
    dataset.train.of_class(0).copy_(dataset.train.of_class(0)[:2].repeat(7, 1, 1, 1))
    dataset.train.of_class(1).copy_(dataset.train.of_class(1)[:1].repeat(11, 1, 1, 1))
    coreset = Coreset(recipe(method, 8), dataset, CPU)
    for label, count in enumerate(COUNTS):
        indices = coreset.chosen(dataset.train.of_class(label), label).tolist()
        assert len(set(indices)) == 8
        assert max(indices) < count


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("epochs", [0, 2])
def test_first_the_network_is_trained_then_images_are_chosen(method, epochs):
    made = recipe(method, pretrain_epochs=epochs)
    distillation, progress = run(made)
    assert made.steps == epochs + 1
    assert [p.phase for p in progress] == ["pretraining"] * epochs + ["distilling"]
    assert [p.step for p in progress] == list(range(1, epochs + 2))
    pixels = [to_unit(tiny_dataset(counts=COUNTS).train.of_class(label)) for label in range(3)]
    missed = [
        (distillation.synthetic.of_class(label).mean(0) - real.mean(0)).square().mean()
        for label, real in enumerate(pixels)
    ]
    assert progress[-1].loss == pytest.approx(float(sum(missed)) / 3, rel=1e-5)


def test_published_choices():
    """Trained features for herding and k-center, untrained ones for k-means, as DREAM takes them."""
    epochs = {method: make_recipe(method, "cifar10", 10).pretrain_epochs for method in METHODS}
    assert epochs == {"random": 0, "herding": 10, "k-center": 10, "kmeans": 0}
    made = make_recipe("herding", "mnist", 10)
    assert (made.lr_net, made.momentum_net, made.weight_decay_net, made.batch_net) == (0.01, 0.9, 5e-4, 128)


def plainly_trained(made, dataset):
    """The weights after `pretrain_epochs` on normalised real images, without augmentation."""
    network = networks.matched_network(made, 3, 3, stream(made.seed, "network", 0), CPU)
    weights = [w.detach().requires_grad_() for w in network.parameters()]
    velocity = [torch.zeros_like(w) for w in weights]
    images = reference.normalize(dataset.train.images.double() / 255, dataset.mean, dataset.std)
    labels, n = dataset.train.labels.tolist(), len(dataset.train)
    for epoch in range(made.pretrain_epochs):
        order = torch.randperm(n, generator=stream(made.seed, "pretrain", "order", epoch)).tolist()
        for first in range(0, n, made.batch_net):
            batch = order[first : first + made.batch_net]
            loss = reference.cross_entropy(reference.logits(weights, images[batch]), [labels[i] for i in batch])
            weights, velocity = reference.network_sgd(weights, velocity, loss, lr=0.01, momentum=0.9, decay=5e-4)
    return [w.detach() for w in weights]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("method", ["herding", "k-center"])
@pytest.mark.parametrize("normalized", [False, True])
def test_choices_are_those_of_the_reference_in_the_trained_features(method, normalized):
    dataset = tiny_dataset(counts=(20, 13, 9))
    made = recipe(method, 5, pretrain_epochs=2, normalize_for_selection=normalized)
    distillation, _ = run(made, dataset)
    weights = plainly_trained(made, dataset)
    for label, found in enumerate(chosen(distillation, dataset)):
        images = dataset.train.of_class(label).double() / 255
        E = reference.features(weights, reference.normalize(images, dataset.mean, dataset.std))
        if method == "herding":
            assert found == reference_condensation.herding(E, 5)
        else:
            first = int(torch.randint(len(E), (1,), generator=stream(made.seed, "choose", label)))
            assert found == reference_condensation.k_center(E, 5, first)


@pytest.mark.parametrize("ipc", [1, 4, 9])
@pytest.mark.parametrize("seed", [0, 3])
def test_kmeans_is_what_dream_starts_from_without_multi_formation(ipc, seed):
    dataset = tiny_dataset(counts=(30, 20, 9))
    params = {"image_size": 8, "depth": 2, "width": 6, "clustering": "torch"}
    coreset = make_recipe("kmeans", "folder:tiny", ipc, seed, params)
    dream = make_recipe("dream", "folder:tiny", ipc, seed, params | {"factor": 1})
    assert isinstance(dream, MatchingRecipe)
    start = Distillation(dream, dataset, device="cpu").synthetic.images
    assert torch.equal(run(coreset, dataset)[0].synthetic.images, start)


def test_kmeans_takes_as_many_images_as_asked_whatever_is_taken_of_a_cluster():
    for ipc, per_cluster in ((4, 2), (5, 2), (3, 4)):
        distillation, _ = run(recipe("kmeans", ipc, per_cluster=per_cluster))
        taken = chosen(distillation, tiny_dataset(counts=COUNTS))
        assert [len(set(indices)) for indices in taken] == [ipc] * 3


@pytest.mark.parametrize("method", METHODS)
def test_same_seed_same_images_resumed_or_not(method):
    made, dataset = recipe(method, pretrain_epochs=2), tiny_dataset(counts=(30, 25, 20))
    whole, _ = run(made, dataset)
    for step in range(made.steps + 1):
        half = Distillation(made, dataset, device="cpu")
        for _ in range(step):
            half.step()
        resumed = Distillation(made, dataset, device="cpu", state=half.state_dict())
        torch.manual_seed(step)
        assert len(list(resumed)) == made.steps - step
        assert torch.equal(resumed.synthetic.images, whole.synthetic.images)
    others = [run(made.model_copy(update={"seed": seed}), dataset)[0].synthetic.images for seed in (4, 5)]
    assert not torch.equal(*others)


def test_random_images_are_random():
    dataset = tiny_dataset(counts=(40, 40, 40))
    seen = []
    for seed in range(30):
        first, second, third = chosen(run(recipe("random", 5).model_copy(update={"seed": seed}), dataset)[0], dataset)
        assert first != second != third
        seen += first
    assert len(set(seen)) > 30
    assert max(seen.count(i) for i in range(40)) < 12


def test_a_network_that_diverges_is_said():
    with pytest.raises(Diverged, match=r"the network's loss became (nan|inf); lower lr_net"):
        run(recipe("herding", lr_net=1e20, pretrain_epochs=3))


def test_they_are_judged_normalised_and_as_they_are():
    dataset = tiny_dataset(counts=COUNTS)
    distillation, _ = run(recipe("herding", pretrain_epochs=1), dataset)
    subject = distillation.training_set()
    assert torch.equal(subject.images, distillation.synthetic.images)
    expected = reference.normalize(subject.images, dataset.mean, dataset.std)
    torch.testing.assert_close(subject.transform(subject.images), expected)


def test_trained_features_do_not_hang_on_the_chunk_they_are_taken_in():
    """Batch normalisation that was trained uses its running statistics."""
    chosen = [
        run(recipe("herding", 4, norm="batch", pretrain_epochs=2, embedding_chunk=chunk))[0] for chunk in (3, 128)
    ]
    assert torch.equal(chosen[0].synthetic.images, chosen[1].synthetic.images)
