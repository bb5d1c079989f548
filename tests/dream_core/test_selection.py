"""Which real images are chosen: nearest to the centres, from raw pixels, every `interval` steps."""

from itertools import pairwise

import pytest
import torch

from dream_core import networks
from dream_core.images import Normalize, to_unit
from dream_core.methods import matching
from dream_core.randomness import stream
from dream_core.selection import Representatives, RepresentativeSelection, closest, embed, nearest
from dream_core.timing import Stopwatch
from tests.dream_core import reference
from tests.dream_core.tiny import tiny_dataset, tiny_recipe

CPU = torch.device("cpu")


def representatives(recipe, dataset):
    return Representatives(recipe, "torch", Normalize(dataset.mean, dataset.std), CPU, Stopwatch(CPU))


def network(recipe, channels=3):
    return networks.matched_network(recipe, channels, 3, stream(0, "network"), CPU)


def rows(n, d=4, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def test_nearest_is_searched_among_all_rows():
    E, centers = rows(30), rows(8, seed=1)
    assert nearest(E, centers, unique=False).tolist() == reference.nearest_representatives(E, centers)


def test_far_from_the_origin_the_nearest_is_still_found():
    E, centers = rows(30), rows(8, seed=1)
    far = nearest(E + 1000, centers + 1000, unique=False).tolist()
    assert far == reference.nearest_representatives(E, centers)


def test_a_row_taken_is_passed_over_for_the_next_nearest():
    E = torch.tensor([[0.0], [1.0], [2.0], [9.0]])
    centers = torch.tensor([[0.1], [0.2], [0.3]])
    assert nearest(E, centers, unique=True).tolist() == [0, 1, 2]
    assert nearest(E, centers, unique=False).tolist() == [0, 0, 0]


def test_several_rows_per_centre_come_nearest_first():
    E = torch.tensor([[0.0], [1.0], [2.0], [9.0], [10.0]])
    assert nearest(E, torch.tensor([[0.1], [9.1]]), per_center=2).tolist() == [0, 1, 3, 4]


def test_representatives_are_unique_and_as_many_as_asked():
    recipe, dataset = tiny_recipe(), tiny_dataset(counts=(60, 40, 30))
    for label in range(3):
        chosen = representatives(recipe, dataset)(dataset.train.of_class(label), network(recipe), 20, ("x", label))
        assert len(chosen) == len(set(chosen.tolist())) == 20


def test_a_small_class_is_taken_whole():
    recipe, dataset = tiny_recipe(), tiny_dataset()
    chosen = representatives(recipe, dataset)(dataset.train.of_class(2), network(recipe), 20, ("x",))
    assert chosen.tolist() == list(range(9))


def test_official_choice_repeats_images():
    recipe, dataset = tiny_recipe(official=True), tiny_dataset(counts=(40, 40, 40))
    select = representatives(recipe, dataset)
    chosen = [select(dataset.train.of_class(0), network(recipe), 30, ("x", n)) for n in range(5)]
    assert all(len(c) == 30 for c in chosen)
    assert min(len(set(c.tolist())) for c in chosen) < 30


def test_clusters_are_as_many_as_images_unless_several_are_taken_of_each(monkeypatch):
    recipe, dataset = tiny_recipe(per_cluster=4, batch_real=12), tiny_dataset(counts=(60, 40, 30))
    select, asked = representatives(recipe, dataset), []
    make = select._kmeans
    monkeypatch.setattr(select, "_kmeans", lambda clusters, *rest: asked.append(clusters) or make(clusters, *rest))
    assert len(select(dataset.train.of_class(0), network(recipe), 12, ("x",))) == 12
    assert len(select(dataset.train.of_class(0), network(recipe), 12, ("x",), per_cluster=1)) == 12
    assert asked == [3, 12]


def test_selection_sees_raw_pixels_unless_told_otherwise():
    """In [0, 1], not normalised, not augmented, while training sees normalised ones: the published code's habit."""
    recipe, dataset = tiny_recipe(), tiny_dataset()
    images, net = dataset.train.of_class(0), network(recipe)
    normalize = Normalize(dataset.mean, dataset.std)
    raw, normalized = net.embed(images / 255), net.embed(normalize(images / 255))
    torch.testing.assert_close(embed(net, images, 128, CPU, None), raw)
    torch.testing.assert_close(embed(net, images, 128, CPU, normalize), normalized)
    assert representatives(recipe, dataset).normalize is None
    assert representatives(tiny_recipe(normalize_for_selection=True), dataset).normalize is not None


@pytest.mark.parametrize("chunk", [1, 5, 14, 100])
def test_chunks_do_not_change_the_features(chunk):
    recipe, dataset = tiny_recipe(), tiny_dataset()
    images, net = dataset.train.of_class(0), network(recipe)
    torch.testing.assert_close(embed(net, images, chunk, CPU, None), embed(net, images, 14, CPU, None))


def test_features_keep_no_graph():
    recipe, dataset = tiny_recipe(), tiny_dataset()
    assert not embed(network(recipe), dataset.train.of_class(0), 4, CPU, None).requires_grad


def test_classes_are_clustered_anew_every_interval_by_the_network_as_it_is():
    recipe = tiny_recipe(interval=3, batch_real=8)
    dataset = tiny_dataset(counts=(40, 40, 40))
    selection = RepresentativeSelection(recipe, dataset.train, representatives(recipe, dataset))
    net = network(recipe)
    kept = [selection.batch(0, net, 0, inner).tolist() for inner in range(7)]
    assert kept[0] == kept[1] == kept[2]
    assert kept[3] == kept[4] == kept[5]
    assert len({str(kept[n]) for n in (0, 3, 6)}) == 3
    assert selection.batch(0, net, 1, 0).tolist() != kept[0]


# ---- clustering made cheap


def selection(counts=(40, 40, 40), **changes):
    recipe, dataset = tiny_recipe(batch_real=8, **changes), tiny_dataset(counts=counts)
    return RepresentativeSelection(recipe, dataset.train, representatives(recipe, dataset))


def choices(selection, steps=14, label=0):
    """What a class is matched with, step by step, by networks that differ from one outer iteration to the next."""
    found = []
    for outer, inner in (divmod(step, selection.recipe.inner_iterations) for step in range(steps)):
        net = networks.matched_network(selection.recipe, 3, 3, stream(outer, "network"), CPU)
        found.append(selection.batch(label, net, outer, inner).tolist())
    return found


def due(selection, steps=60):
    """Step -> classes that are clustered in it."""
    per_outer, classes = selection.recipe.inner_iterations, selection.train.classes
    turns = (divmod(step, per_outer) for step in range(steps))
    return [[label for label in range(classes) if selection.due(label, *turn)] for turn in turns]


@pytest.mark.parametrize("pool", [40, 1000])
def test_a_pool_of_the_whole_class_changes_nothing(pool):
    assert choices(selection(pool=pool)) == choices(selection())


def test_a_pool_bounds_what_is_embedded_and_is_drawn_anew(monkeypatch):
    select, seen = selection(pool=12, interval=2, inner_iterations=6), []
    choose = select.representatives
    spy = lambda images, *rest, **more: seen.append(images) or choose(images, *rest, **more)  # noqa: E731
    monkeypatch.setattr(select, "representatives", spy)
    found = choices(select)
    assert [len(images) for images in seen] == [12] * 7  # every second step, and when a network is new
    assert not torch.equal(seen[0], seen[1])
    assert all(len(set(chosen)) == 8 for chosen in found)
    assert found == choices(selection(pool=12, interval=2, inner_iterations=6))


def test_a_pool_as_large_as_the_batch_is_taken_whole():
    assert all(len(set(chosen)) == 8 for chosen in choices(selection(pool=8)))


def test_a_class_smaller_than_the_batch_is_still_taken_whole():
    found = choices(selection(counts=(40, 40, 5), pool=8, warm_start=True, interval=2), label=2)
    assert all(chosen == list(range(5)) for chosen in found)


@pytest.mark.parametrize("inner_iterations", [3, 7, 20])
@pytest.mark.parametrize("interval", [1, 5, 10])
@pytest.mark.parametrize("classes", [1, 3, 4, 12])
def test_staggered_classes_take_turns_and_are_never_older_than_the_interval(inner_iterations, interval, classes):
    select = selection(counts=(9,) * classes, staggered=True, interval=interval, inner_iterations=inner_iterations)
    turns = due(select)
    assert turns[0] == list(range(classes))
    assert max(map(len, turns[1:])) == -(-classes // interval)
    for label in range(classes):
        when = [step for step, labels in enumerate(turns) if label in labels]
        assert max(later - earlier for earlier, later in pairwise(when)) <= interval


def test_one_class_alone_has_nothing_to_stagger():
    changes = {"counts": (40,), "interval": 5, "inner_iterations": 10}
    assert choices(selection(staggered=True, **changes), 20) == choices(selection(**changes), 20)


def spied(monkeypatch, select):
    """Clusterings as they are made: what k-means started from, and the clusterer."""
    made, make = [], select.representatives._kmeans

    def spy(clusters, init, seed):
        made.append((init, make(clusters, init, seed)))
        return made[-1][1]

    monkeypatch.setattr(select.representatives, "_kmeans", spy)
    return made


@pytest.mark.parametrize("changes", [{}, {"pool": 25}, {"per_cluster": 3}, {"ranking": "closest"}])
def test_warm_starts_are_the_last_choice_where_the_network_now_puts_it(monkeypatch, changes):
    select = selection(warm_start=True, interval=2, inner_iterations=5, **changes)
    made = spied(monkeypatch, select)
    found = choices(select, 10)
    assert [isinstance(init, str) for init, _ in made] == [True, False, False] * 2  # cold when a network is new
    net = networks.matched_network(select.recipe, 3, 3, stream(0, "network"), CPU)
    features = embed(net, select.train.of_class(0), 128, CPU, None)
    last = torch.tensor(found[1])[:: changes.get("per_cluster", 1)]
    torch.testing.assert_close(made[1][0], features[last])


def test_a_warm_start_needs_fewer_iterations_and_is_as_good(monkeypatch):
    """With a network that stands still, over ten clusterings."""
    iterations, inertia = {}, {}
    for warm in (True, False):
        select = selection(counts=(400, 40, 40), warm_start=warm, interval=2, inner_iterations=20)
        made = spied(monkeypatch, select)
        choices(select, 20)
        features = embed(network(select.recipe), select.train.of_class(0), 128, CPU, None)
        centers = [kmeans.cluster_centers_ for _, kmeans in made[1:]]
        iterations[warm] = sum(kmeans.n_iter_ for _, kmeans in made[1:])
        inertia[warm] = sum(float(torch.cdist(features, c).min(1).values.square().sum()) for c in centers)
    assert iterations[True] < 0.8 * iterations[False]
    assert inertia[True] < inertia[False] * 1.01


def test_initial_images_are_representatives_in_the_untrained_network_of_outer_iteration_0():
    """IPC · factor² clusters, tiled into grids by nearest neighbour."""
    recipe, dataset = tiny_recipe(ipc=2, factor=2), tiny_dataset()
    loop = matching.MatchingLoop(recipe, dataset, CPU)
    first = networks.matched_network(recipe, 3, 3, stream(recipe.seed, "network", 0), CPU)
    for a, b in zip(loop.network.parameters(), first.parameters(), strict=True):
        assert torch.equal(a, b)
    select = representatives(recipe, dataset)
    for label in range(3):
        images = dataset.train.of_class(label)
        chosen = select(images, first, 8, ("init", label), per_cluster=1)
        assert len(set(chosen.tolist())) == 8
        expected = reference.init_mix(to_unit(images)[chosen], 2, 2)
        assert torch.equal(loop.synthetic.of_class(label), expected)


def test_init_first_is_the_first_images_of_the_class():
    recipe, dataset = tiny_recipe("idc", factor=1, ipc=3), tiny_dataset()
    loop = matching.MatchingLoop(recipe, dataset, CPU)
    for label in range(3):
        assert torch.equal(loop.synthetic.of_class(label), to_unit(dataset.train.of_class(label)[:3]))


def test_init_random_is_random():
    dataset = tiny_dataset()
    starts = [
        matching.MatchingLoop(tiny_recipe("idc", init="random", seed=seed), dataset, CPU).synthetic.images
        for seed in (0, 1)
    ]
    first = matching.MatchingLoop(tiny_recipe("idc"), dataset, CPU).synthetic.images
    assert not torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], first)


def test_of_two_that_only_rounding_tells_apart_the_first_is_taken():
    features = torch.tensor([[4.0, 0.0], [1.0, 3.0], [1.0 + 1e-7, -3.0], [-6.0, 0.0]])
    centers = torch.tensor([[1.0 + 5e-8, 0.0]])
    assert nearest(features, centers, per_center=2).tolist() == [0, 1]
    assert nearest(features.flip(0), centers, per_center=2).tolist() == [1, 2]
    assert closest(features, centers, count=2).tolist() == [0, 1]
