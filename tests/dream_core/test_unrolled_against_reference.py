"""MTT and DD against the reference, step for step in float64; experts, memory, resuming, published values."""

import re
from collections import Counter

import pytest
import torch
from safetensors.torch import load, load_file, save
from torch import nn

from dream_core import networks, randomness
from dream_core.augmentation import draw_one
from dream_core.errors import Diverged, InvalidRecipe
from dream_core.evaluation import train_and_test
from dream_core.methods import trajectory
from dream_core.methods.trajectory import TrajectoryMatching
from dream_core.methods.unrolled import Unrolled, crop_and_flip, step_order
from dream_core.methods.unrolling import Unroller
from dream_core.randomness import Shuffle, derive, stream
from dream_core.recipes import is_published, make_recipe
from tests.dream_core import reference, reference_recovery
from tests.dream_core import reference_unrolled as plain
from tests.dream_core.test_matching_against_reference import by_image
from tests.dream_core.tiny import tiny_dataset

CPU = torch.device("cpu")
in_float64 = pytest.mark.usefixtures("float64")


def mtt_recipe(**changes):
    params = {
        "image_size": 8, "depth": 2, "width": 4, "experts": 2, "max_start_epoch": 2, "expert_epochs": 2,
        "batch_expert": 12, "lr_expert": 0.05, "student_steps": 3, "batch_syn": 4, "iterations": 4,
        "lr_img": 2.0, "lr_student": 0.05, "lr_lr": 1e-3,
    }  # fmt: skip
    seed = changes.pop("seed", 3)
    judged = {"depth": 2, "width": 4, "repeats": 1, "baselines": False, "ceiling": "none"}
    return make_recipe("mtt", "folder:tiny", 2, seed, params | changes, judged)


def dd_recipe(**changes):
    params = {
        "image_size": 8, "depth": 2, "width": 4, "distill_steps": 2, "distill_epochs": 2, "lr_steps": 0.1,
        "iterations": 5, "batch_real": 16, "lr": 0.05, "decay_every": 2, "networks": 2,
    }  # fmt: skip
    seed, ipc = changes.pop("seed", 3), changes.pop("ipc", 2)
    judged = {"depth": 2, "width": 4, "repeats": 1, "baselines": False, "ceiling": "none"}
    return make_recipe("dd", "folder:tiny", ipc, seed, params | changes, judged)


def mtt(cache, recipe=None, dataset=None, state=None):
    return TrajectoryMatching(recipe or mtt_recipe(), dataset or tiny_dataset(), CPU, state, cache=cache)


def finish(method):
    """Do what remains; return the losses."""
    return [method.step().loss for _ in iter(lambda: method.step_number < method.recipe.steps, False)]


def until_diverged(method, told):
    """The state before the step that raised."""
    before = {}

    def run():
        while method.step_number < method.recipe.steps:
            before.clear()
            before.update(method.state_dict())
            method.step()

    with pytest.raises(Diverged, match=told):
        run()
    return before


def assert_near(ours, theirs, about="", atol=1e-8):
    torch.testing.assert_close(ours, theirs, rtol=0, atol=atol, msg=lambda text: f"{about}: {text}")


def parameters(network):
    return [p.detach().clone() for p in network.parameters()]


# ================================================================ MTT


class MttReplay:
    """Runs the product, and the reference with the same chance: experts first, then the images."""

    def __init__(self, recipe, cache):
        self.recipe, self.dataset = recipe, tiny_dataset()
        self.loop = mtt(cache, recipe, self.dataset)
        self.start = self.loop.synthetic.images.clone()
        self.images, self.step_sizes, self.losses = [], [], []
        for _ in range(recipe.steps):
            progress = self.loop.step()
            if progress.phase == "distilling":
                self.images.append(self.loop.synthetic.images.clone())
                self.step_sizes.append(self.loop.step_size.clone())
                self.losses.append(progress.loss)

    def inputs(self):
        """The real images in the network's space."""
        images = self.dataset.train.images.double() / 255
        if self.recipe.zca:
            mean, W, _ = reference_recovery.fit_zca(images)
            return reference_recovery.whiten(images, mean, W)
        return reference.normalize(images, self.dataset.mean, self.dataset.std)

    def experts(self):
        recipe, images = self.recipe, self.inputs()
        return [
            plain.train_expert(
                self.fresh(expert), images, self.dataset.train.labels.tolist(), self.epochs(expert),
                recipe.lr_expert, recipe.momentum_expert, recipe.weight_decay_expert,
            )
            for expert in range(recipe.experts)
        ]  # fmt: skip

    def fresh(self, expert):
        generator = stream(self.recipe.expert_seed, "expert", expert)
        return parameters(networks.matched_network(self.recipe, 3, 3, generator, CPU))

    def epochs(self, expert):
        """The minibatches of every epoch with their augmentation."""
        recipe, seed, key = self.recipe, self.recipe.expert_seed, ("expert", expert)
        batches = Shuffle(len(self.dataset.train), recipe.batch_expert, seed, *key, "order", drop_last=False)

        def minibatch(number):
            chosen = batches[number]
            draw = draw_one(recipe.augmentation, len(chosen), 8, stream(seed, *key, number))
            return chosen.tolist(), by_image(draw, len(chosen))

        each = batches.per_pass
        return [
            [minibatch(number) for number in range(epoch * each, epoch * each + each)]
            for epoch in range(recipe.max_start_epoch - 1 + recipe.expert_epochs)
        ]

    def plan(self):
        recipe, experts, plan = self.recipe, self.experts(), []
        order = Shuffle(recipe.experts, 1, recipe.seed, "experts", drop_last=False)
        for number in range(recipe.iterations):
            generator = stream(recipe.seed, "start epoch", number)
            start = int(torch.randint(recipe.max_start_epoch, (1,), generator=generator))
            path = experts[int(order[number])]
            minibatches = [self.student_batch(number, n) for n in range(recipe.student_steps)]
            plan.append(plain.MttIteration(path[start], path[start + recipe.expert_epochs], minibatches))
        return plan

    def student_batch(self, iteration, n):
        recipe, count = self.recipe, len(self.start)
        chosen = Shuffle(count, recipe.batch_syn or count, recipe.seed, "chunk", iteration, drop_last=False)[n]
        draw = draw_one(recipe.augmentation, len(chosen), 8, stream(recipe.seed, "augment", iteration, n))
        return chosen.tolist(), by_image(draw, len(chosen))

    def reference(self):
        recipe, labels = self.recipe, [0, 0, 1, 1, 2, 2]
        start = torch.tensor(recipe.lr_student)
        rates = recipe.lr_img, recipe.lr_lr, recipe.momentum_img
        return plain.mtt(self.start, start, self.plan(), labels, *rates, positive=lambda alpha: alpha)[2]


MTT_CASES = {
    "augmented, in chunks": {},
    "no augmentation": {"augmentation": "none"},
    "all images in every step": {"batch_syn": None, "student_steps": 2},
    "whitened": {"zca": True, "lr_lr": 1e-4},
    "whitened, no augmentation, many steps": {"zca": True, "augmentation": "none", "student_steps": 6, "lr_lr": 1e-4},
    "from noise": {"init": "noise", "momentum_img": 0.9, "lr_lr": 1e-4},
    "other experts": {"momentum_expert": 0.9, "weight_decay_expert": 0.1, "expert_seed": 5, "experts": 1},
    "a long stretch": {"max_start_epoch": 1, "expert_epochs": 3, "experts": 1},
}


@in_float64
@pytest.mark.parametrize("case", MTT_CASES)
def test_mtt_step_for_step(case, tmp_path):
    """Images, step size and loss after every iteration, the experts being the reference's own."""
    replay = MttReplay(mtt_recipe(**MTT_CASES[case]), tmp_path)
    trace = replay.reference()
    assert replay.losses == pytest.approx(trace.losses, rel=1e-8)
    for step in range(replay.recipe.iterations):
        assert_near(replay.images[step], trace.images[step], f"images after iteration {step}")
        assert_near(replay.step_sizes[step], trace.raws[step], f"step size after iteration {step}")
    assert (replay.images[-1] - replay.start).abs().max() > 1e-3  # and they did move
    assert abs(float(replay.step_sizes[-1]) - replay.recipe.lr_student) > 1e-6
    assert min(replay.step_sizes) > 1e-3  # where the product does nothing to keep the step size positive


@in_float64
@pytest.mark.parametrize("case", ["augmented, in chunks", "whitened", "other experts"])
def test_mtt_keeps_what_an_expert_was_before_training_and_after_every_epoch(case, tmp_path):
    replay = MttReplay(mtt_recipe(**MTT_CASES[case]), tmp_path)
    for number, path in enumerate(replay.experts()):
        kept = load_file(replay.loop.experts.cache.directory / f"expert-{number:03d}.safetensors")
        assert sorted(kept) == ["000", "001", "002", "003"]
        for epoch, snapshot in enumerate(path):
            assert_near(kept[f"{epoch:03d}"], torch.cat([w.flatten() for w in snapshot]), f"{number} at {epoch}")
        for epoch in range(3):  # copies: a snapshot is not what the network became later
            assert (kept[f"{epoch + 1:03d}"] - kept[f"{epoch:03d}"]).norm() > 1e-3


@in_float64
def test_mtt_gradients_of_one_iteration(tmp_path, monkeypatch):
    """Before any optimiser: the loss's gradients with respect to images and step size."""
    found = []
    monkeypatch.setattr(TrajectoryMatching, "descend", lambda self, *gradients: found.append(gradients))
    replay = MttReplay(mtt_recipe(iterations=2), tmp_path)
    alpha = torch.tensor(replay.recipe.lr_student)
    for iteration, ours in zip(replay.plan(), found, strict=True):
        arguments = iteration.start, iteration.target, iteration.minibatches, [0, 0, 1, 1, 2, 2]
        _, *theirs = plain.mtt_step(replay.start, alpha, *arguments)
        for a, b in zip(ours, theirs, strict=True):
            assert_near(a, b)
            assert b.abs().max() > 1e-6


@in_float64
def test_mtt_cases_reach_what_they_mean_to(tmp_path):
    """Several operators, both experts, both starts, chunks that are shuffled anew after a pass."""
    replay = MttReplay(mtt_recipe(iterations=8), tmp_path)
    plan = replay.plan()
    drawn = {name for it in plan for _, draws in it.minibatches for draw in draws for name, _ in draw}
    assert len(drawn) >= 4
    assert len({str(w.start[0]) for w in plan}) == 4
    for iteration in plan:
        first, second, third = (set(chosen) for chosen, _ in iteration.minibatches)
        assert (len(first), len(second), len(third)) == (4, 2, 4)
        assert first | second == set(range(6))
    assert len({str(it.minibatches[0][0]) for it in plan}) > 4
    each = [draw for it in plan for _, draws in it.minibatches for draw in draws if draw and draw[0][0] == "color"]
    assert len({str(draw) for draw in each}) == len(each)  # every image its own parameters


def test_mtt_starts_from_distinct_real_images_of_every_class(tmp_path):
    dataset = tiny_dataset()
    loop = mtt(tmp_path, mtt_recipe(), dataset)
    pixels = (loop.synthetic.pixels() * 255).round().to(torch.uint8)
    for label in range(3):
        own = {tuple(image.flatten().tolist()) for image in dataset.train.of_class(label)}
        chosen = {tuple(image.flatten().tolist()) for image in pixels[2 * label : 2 * label + 2]}
        assert len(chosen) == 2
        assert chosen <= own
    other = mtt(tmp_path, mtt_recipe(seed=4), dataset)
    assert not torch.equal(other.synthetic.images, loop.synthetic.images)


@in_float64
def test_mtt_never_clamps_its_images(tmp_path):
    loop = mtt(tmp_path, mtt_recipe(lr_img=500.0))
    finish(loop)
    pixels = loop.synthetic.pixels()
    assert pixels.min() < 0 or pixels.max() > 1
    assert_near(loop.training_set().transform(loop.training_set().images), loop.synthetic.images)


@in_float64
def test_mtt_step_size_stays_positive_where_its_gradient_would_push_it_below_zero(tmp_path):
    """And above 1e-6: the reference, which lets it go, ends below zero at the same iteration."""
    recipe = mtt_recipe(lr_student=3.0, lr_lr=1e3, iterations=3)
    replay = MttReplay(recipe, tmp_path)
    pushed = [float(raw) for raw in replay.reference().raws]
    assert min(pushed[:1]) < 0, pushed
    assert float(replay.step_sizes[0]) == 1e-6
    assert all(float(step_size) >= 1e-6 for step_size in replay.step_sizes)
    assert replay.loop.training_set().lr == float(replay.step_sizes[-1])


def test_mtt_is_judged_with_the_learned_step_size_and_its_own_transform(tmp_path):
    loop = mtt(tmp_path, mtt_recipe(zca=True))
    finish(loop)
    training = loop.training_set()
    assert training.lr == float(loop.step_size)
    assert training.lr != loop.recipe.lr_student
    assert training.transform is loop.space
    real = loop.training_set(*(t[:5] for t in (loop.dataset.train.images, loop.dataset.train.labels)))
    assert (real.lr, real.transform) == (training.lr, training.transform)


# ---------------------------------------------------------------- experts in the cache


@pytest.fixture
def trained_epochs(monkeypatch):
    """Counts the epochs that experts are trained for."""
    counted, train = Counter(), trajectory.Experts.train

    def count(self, expert, epoch):
        counted[expert] += 1
        return train(self, expert, epoch)

    monkeypatch.setattr(trajectory.Experts, "train", count)
    return counted


def expert_files(cache):
    return {path.name: path.read_bytes() for path in cache.glob("*/expert-*.safetensors")}


def outcome(loop):
    """The bytes of what a run has learned, whatever it knows of experts."""
    state = loop.state_dict()
    return save({name: state[name] for name in state if not name.startswith("expert.")})


def test_mtt_experts_are_a_file_each_and_trained_once(tmp_path, trained_epochs):
    first = mtt(tmp_path)
    finish(first)
    assert trained_epochs == {0: 3, 1: 3}
    files = expert_files(tmp_path)
    assert sorted(files) == ["expert-000.safetensors", "expert-001.safetensors"]
    assert len({path.parent for path in tmp_path.glob("*/*")}) == 1

    trained_epochs.clear()
    second = mtt(tmp_path)
    phases = [second.step() for _ in range(6)]
    assert not trained_epochs
    assert [p.phase for p in phases] == ["pretraining"] * 2 + ["distilling"] * 4
    assert [p.step for p in phases] == [3, 6, 7, 8, 9, 10]  # an expert that is there is passed over in one step
    assert outcome(second) == outcome(first)
    assert expert_files(tmp_path) == files


def test_mtt_other_seeds_and_rates_meet_the_same_experts(tmp_path, trained_epochs):
    finish(mtt(tmp_path))
    trained_epochs.clear()
    finish(mtt(tmp_path, mtt_recipe(seed=9, lr_img=1.0, student_steps=2, iterations=2, batch_syn=None)))
    assert not trained_epochs


@pytest.mark.parametrize("damage", ["deleted", "cut", "empty", "overwritten"])
@pytest.mark.parametrize("when", ["before the run", "after the experts' phase"])
def test_mtt_a_lost_expert_is_trained_again_with_the_same_bytes(damage, when, tmp_path, trained_epochs):
    whole = mtt(tmp_path)
    finish(whole)
    files = expert_files(tmp_path)
    trained_epochs.clear()
    again = mtt(tmp_path)
    if when != "before the run":
        again.step()
        again.step()
    (path,) = tmp_path.glob("*/expert-001.safetensors")
    content = path.read_bytes()
    match damage:
        case "deleted":
            path.unlink()
        case "cut":
            path.write_bytes(content[: len(content) // 2])
        case "empty":
            path.write_bytes(b"")
        case _:
            path.write_bytes(b"\xff" * len(content))
    finish(again)
    assert trained_epochs == {1: 3}
    assert outcome(again) == outcome(whole)
    assert expert_files(tmp_path) == files


EXPERTS_HANG_ON = {
    "network": "lenet", "width": 5, "depth": 1, "norm": "none", "activation": "swish", "pooling": "max", "zca": True,
    "augmentation": "color_crop", "expert_seed": 1, "lr_expert": 0.02, "momentum_expert": 0.5,
    "weight_decay_expert": 1e-3, "batch_expert": 13, "max_start_epoch": 3, "expert_epochs": 1,
}  # fmt: skip


def test_mtt_another_setting_of_the_experts_has_a_folder_of_its_own(tmp_path):
    def folder(dataset=None, **changes):
        recipe = mtt_recipe(**changes)
        dataset = dataset or tiny_dataset(size=recipe.image_size)
        return mtt(tmp_path, recipe, dataset).experts.cache.directory

    larger = {"image_size": 16}
    others = [
        folder(**(larger if name == "network" else {}), **{name: value}) for name, value in EXPERTS_HANG_ON.items()
    ]
    others += [folder(**larger), folder(tiny_dataset(seed=1)), folder(zca=True, zca_eps=0.2)]
    assert len({folder(), *others}) == len(others) + 1
    indifferent = {
        "seed": 8, "experts": 3, "lr_img": 9.0, "lr_lr": 1.0, "lr_student": 0.5, "batch_syn": 3, "student_steps": 9,
        "iterations": 7, "init": "noise", "momentum_img": 0.0,
    }  # fmt: skip
    assert {folder(**{name: value}) for name, value in indifferent.items()} == {folder()}


def test_mtt_no_stream_of_the_experts_serves_two_purposes(tmp_path, monkeypatch):
    """A key names one purpose: the order of the images and their augmentation are not drawn from the same numbers."""
    opened = []
    monkeypatch.setattr(randomness, "derive", lambda *key: opened.append(key) or derive(*key))
    loop = mtt(tmp_path, mtt_recipe(experts=1))
    opened.clear()
    for _ in range(loop.experts.epochs):
        loop.step()
    fresh = (0, "expert", 0)  # opened again for the same network
    assert {key for key, count in Counter(opened).items() if count > 1 and key != fresh} == set()


# ---------------------------------------------------------------- resuming and diverging


@pytest.mark.parametrize("cached", [True, False])
def test_mtt_resumed_after_any_step_it_ends_in_the_same_bytes(cached, tmp_path):
    """Within the experts' phase and after it; with the experts at hand, and where all are lost."""

    def cache(name):
        return tmp_path / name if cached else None

    whole = mtt(cache("whole"))
    states, losses = [save(whole.state_dict())], []
    while whole.step_number < whole.recipe.steps:
        losses.append(whole.step().loss)
        states.append(save(whole.state_dict()))
    assert len(states) == 2 * 3 + 4 + 1
    for step, state in enumerate(states):
        lost = mtt(cache(f"lost after {step}"), state=load(state))
        assert lost.step_number == step
        assert finish(lost) == losses[step:]
        assert save(lost.state_dict()) == states[-1], f"resumed after step {step}, experts lost"
        if cached:
            found = mtt(cache("whole"), state=load(state))
            finish(found)
            assert outcome(found) == outcome(whole), f"resumed after step {step}, experts found"
    if cached:
        assert len({str(expert_files(path)) for path in tmp_path.iterdir()} - {"{}"}) <= 2


def test_mtt_a_run_that_found_its_experts_has_the_state_of_one_that_trained_them(tmp_path):
    """All that the next step depends on: no network is left over that nothing will use."""
    first, second = mtt(tmp_path), None
    finish(first)
    second = mtt(tmp_path)
    finish(second)
    assert sorted(second.state_dict()) == sorted(first.state_dict())


def test_mtt_saved_state_is_a_copy(tmp_path):
    loop = mtt(tmp_path)
    for _ in range(7):
        loop.step()
        state = loop.state_dict()
        before = save(state)
        loop.step()
        assert save(state) == before
        other = mtt(tmp_path, state=state)
        other.step()
        assert save(state) == before


@pytest.mark.parametrize("lr_img", [1e6, 1e12, 1e20, 1e29])
def test_mtt_that_diverges_stops_before_it_spoils_anything(lr_img, tmp_path):
    loop = mtt(tmp_path, mtt_recipe(lr_img=lr_img, lr_lr=1e3, iterations=200))
    for _ in range(loop.experts.epochs):
        loop.step()
    before = until_diverged(loop, "lower lr_img")
    assert save(loop.state_dict()) == save(before)
    for name, value in before.items():
        assert value.isfinite().all(), name


def test_mtt_an_expert_that_diverges_is_left_as_it_was(tmp_path):
    loop = mtt(tmp_path, mtt_recipe(lr_expert=1e25))
    before = until_diverged(loop, "lower lr_expert")
    assert save(loop.state_dict()) == save(before)
    assert not expert_files(tmp_path)


# ================================================================ the unroll's memory


class Held:
    """Counts the bytes that graphs keep for their backward passes, and the most there were at a time."""

    def __init__(self):
        self.live = self.peak = 0

    def __enter__(self):
        def pack(tensor):
            return _Kept(self, tensor)

        self.hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept.tensor)
        self.hooks.__enter__()
        return self

    def __exit__(self, *error):
        self.hooks.__exit__(*error)


class _Kept:
    def __init__(self, held, tensor):
        self.held, self.tensor, self.bytes = held, tensor, tensor.numel() * tensor.element_size()
        held.live += self.bytes
        held.peak = max(held.peak, held.live)

    def __del__(self):
        self.held.live -= self.bytes


def unrolled_gradients(steps):
    """The peak of kept bytes, the images' and the rates' gradients, and the path."""
    network = networks.build_network("convnet", 3, 3, 8, stream(0, "unrolled"), CPU, depth=2, width=4)
    unroller, generator = Unroller(network), torch.Generator().manual_seed(steps)
    labels, rates = torch.tensor([0, 1, 2]), [0.1] * steps
    images = [torch.randn(3, 3, 8, 8, generator=generator) for _ in range(steps)]

    def batch(n):
        leaf = images[n].clone().requires_grad_()
        return leaf, leaf, labels

    batches = [lambda n=n: batch(n) for n in range(steps)]
    with Held() as held:
        path = unroller.unroll(list(network.parameters()), batches, rates)
        after_unroll = held.live
        found = unroller.backward(path, batches, rates, [torch.ones_like(p) for p in path[-1]])
    return held.peak, after_unroll, path, found, (network, images)


def test_the_unroll_keeps_the_graph_of_one_step_whatever_their_number():
    few, many = unrolled_gradients(2), unrolled_gradients(16)
    assert few[1] == many[1] == 0  # nothing is kept between the way forward and the way back
    assert few[0] > 0
    assert many[0] <= 1.01 * few[0]
    assert all(p.grad_fn is None for step in many[2] for p in step)
    assert all(g.grad_fn is None and not g.requires_grad for part in many[3] for g in part)


@in_float64
def test_the_unrolls_gradients_are_those_of_the_whole_graph():
    _, _, path, (by_image_, by_rate), (network, images) = unrolled_gradients(4)
    leaves = plain.leaves(images)
    rates = torch.full((4,), 0.1).requires_grad_()
    weights = plain.leaves(parameters(network))
    for n in range(4):
        loss = plain.batch_loss(weights, leaves[n], [0, 1, 2], ([0, 1, 2], [[], [], []]))
        weights = plain.unrolled_step(weights, loss, rates[n])
        for ours, theirs in zip(path[n + 1], weights, strict=True):
            assert_near(ours, theirs.detach())
    final = sum(w.sum() for w in weights)
    *of_images, of_rates = torch.autograd.grad(final, [*leaves, rates])
    for ours, theirs in zip(by_image_, of_images, strict=True):
        assert_near(ours, theirs)
    assert_near(torch.stack(by_rate), of_rates)


# ================================================================ DD


def shares(images, classes, ipc, steps):
    """The images of every gradient step: of each class its k-th share."""
    by_class, each = images.reshape(classes, ipc, *images.shape[1:]), ipc // steps
    return [torch.cat([by_class[c, k * each : (k + 1) * each] for c in range(classes)]) for k in range(steps)]


def crop_and_flip_plainly(images, generator):
    """Pixel by pixel: 4 pixels of reflection on every side, a window of the old size, mirrored half the time."""
    count, size = len(images), images.shape[-1]
    down, right = torch.randint(9, (2, count), generator=generator).tolist()
    mirrored = (torch.rand(count, generator=generator) < 0.5).tolist()

    def reflected(i):
        return -i if i < 0 else 2 * (size - 1) - i if i >= size else i

    out = torch.zeros_like(images)
    for n in range(count):
        for i in range(size):
            for j in range(size):
                column = size - 1 - j if mirrored[n] else j
                out[n, :, i, j] = images[n, :, reflected(i + down[n] - 4), reflected(column + right[n] - 4)]
    return out


class DdReplay:
    """Runs the product, and the reference with the same chance."""

    def __init__(self, recipe):
        self.recipe, self.dataset = recipe, tiny_dataset()
        self.loop = Unrolled(recipe, self.dataset, CPU)
        self.start = self.loop.synthetic.images.clone()
        self.images, self.raws, self.losses = [], [], []
        for _ in range(recipe.steps):
            self.losses.append(self.loop.step().loss)
            self.images.append(self.loop.synthetic.images.clone())
            self.raws.append(self.loop.raw_rates.clone())

    def networks(self, iteration):
        keys = [("network", iteration, number) for number in range(self.recipe.networks)]
        if self.recipe.fixed_init:
            keys = [("network", "fixed")] * self.recipe.networks
        made = [
            networks.matched_network(self.recipe, 3, 3, stream(self.recipe.seed, *key), CPU, self.recipe.initialization)
            for key in keys
        ]
        return [parameters(network) for network in made]

    def reference(self):
        recipe, train, plan = self.recipe, self.dataset.train, []
        batches = Shuffle(len(train), recipe.batch_real, recipe.seed, "real", drop_last=False)
        for number in range(recipe.iterations):
            chosen = batches[number]
            real = reference.normalize(train.images[chosen].double() / 255, self.dataset.mean, self.dataset.std)
            if recipe.crop_and_flip:
                real = crop_and_flip_plainly(real, stream(recipe.seed, "augment", number))
            factor = recipe.decay ** (number // recipe.decay_every)
            plan.append(plain.DdIteration(self.networks(number), real, train.labels[chosen].tolist(), factor))
        start = torch.full((recipe.distill_steps * recipe.distill_epochs,), recipe.lr_steps)
        labels = [c for c in range(3) for _ in range(recipe.images_per_step)]
        steps = shares(self.start, 3, recipe.ipc, recipe.distill_steps)
        betas = recipe.beta1, recipe.beta2
        return plain.dd(steps, plain.softplus_inverse(start), plan, labels, recipe.lr, betas)[2]


DD_CASES = {
    "two networks, two steps, twice": {},
    "one image per step, one network": {"ipc": 3, "distill_steps": 3, "distill_epochs": 1, "networks": 1},
    "two images of a class in a step": {"ipc": 4, "distill_steps": 2, "networks": 1, "iterations": 3},
    "one network for ever": {"fixed_init": True, "networks": 1},
    "cropped and mirrored": {"crop_and_flip": True, "networks": 1},
    "default weights, another Adam": {"initialization": "default", "beta1": 0.9, "beta2": 0.9, "decay": 0.1},
}


@in_float64
@pytest.mark.parametrize("case", DD_CASES)
def test_dd_step_for_step(case):
    """Images, raw rates and loss after every iteration."""
    replay = DdReplay(dd_recipe(**DD_CASES[case]))
    trace, recipe = replay.reference(), replay.recipe
    assert replay.losses == pytest.approx(trace.losses, rel=1e-8)
    for step in range(recipe.iterations):
        ours = shares(replay.images[step], 3, recipe.ipc, recipe.distill_steps)
        for a, b in zip(ours, trace.images[step], strict=True):
            assert_near(a, b, f"images after iteration {step}")
        assert_near(replay.raws[step], trace.raws[step], f"rates after iteration {step}")
    assert (replay.images[-1] - replay.start).abs().max() > 1e-2
    assert replay.raws[-1].unique().numel() == len(replay.raws[-1])  # every step has a rate of its own


@in_float64
def test_dd_starts_from_noise_at_the_given_rate():
    loop = Unrolled(dd_recipe(ipc=20, distill_steps=10, lr_steps=0.02), tiny_dataset(), CPU)
    assert loop.synthetic.images.mean() == pytest.approx(0, abs=0.03)
    assert loop.synthetic.images.std() == pytest.approx(1, abs=0.03)
    rates = loop.training_set().replay.rates
    assert_near(rates, torch.full((20,), 0.02), atol=1e-12)


def test_dd_rates_stay_positive_however_far_they_are_pushed():
    loop = Unrolled(dd_recipe(), tiny_dataset(), CPU)
    loop.raw_rates.fill_(-50)
    assert loop.training_set().replay.rates.min() > 0
    loop.step()
    assert loop.training_set().replay.rates.min() > 0


def test_dd_networks_are_xavier_with_zero_biases_and_never_twice_the_same():
    loop = Unrolled(dd_recipe(width=64), tiny_dataset(), CPU)
    network = loop.network(0)
    assert network.training
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(module.weight)
            assert float(module.weight.detach().std()) == pytest.approx((2 / (fan_in + fan_out)) ** 0.5, rel=0.1)
            assert not module.bias.any()
    drawn = [network, loop.network(1)]
    loop.step_number = 1
    drawn += [loop.network(0), loop.network(1)]
    assert len({float(parameters(made)[0].sum()) for made in drawn}) == 4


@pytest.mark.parametrize(("classes", "ipc", "steps", "epochs"), [(10, 10, 10, 3), (3, 4, 2, 2), (2, 6, 3, 1)])
def test_dd_steps_take_turns_with_as_many_of_every_class(classes, ipc, steps, epochs):
    order = [indices.tolist() for indices in step_order(classes, ipc, steps, epochs)]
    assert len(order) == steps * epochs
    assert order == order[:steps] * epochs
    assert sorted(i for indices in order[:steps] for i in indices) == list(range(classes * ipc))
    for indices in order:
        assert [i // ipc for i in indices] == [c for c in range(classes) for _ in range(ipc // steps)]


def test_dd_images_that_steps_do_not_divide_are_refused():
    with pytest.raises(InvalidRecipe, match=re.escape("params.distill_steps")):
        dd_recipe(ipc=3, distill_steps=2)


@pytest.mark.parametrize("size", [8, 12])
def test_crop_and_flip_equals_a_plain_loop(size):
    images = torch.rand(12, 3, size, size, generator=torch.Generator().manual_seed(0))
    ours, theirs = (cut(images, stream(1, "crop")) for cut in (crop_and_flip, crop_and_flip_plainly))
    assert torch.equal(ours, theirs)
    assert not torch.equal(ours, images)


def test_crop_and_flip_draws_for_every_image_and_reaches_every_place():
    ramp = torch.arange(32.0).expand(32, 32)  # columns in one channel, rows in the other
    images = torch.stack([ramp, ramp.T]).expand(800, 2, 32, 32)
    cut = crop_and_flip(images, stream(2, "crop"))
    mirrored = cut[:, 0, 16, 10] > cut[:, 0, 16, 20]
    assert mirrored.float().mean() == pytest.approx(0.5, abs=0.06)
    columns = torch.where(mirrored, cut[:, 0, 16, 31 - 10], cut[:, 0, 16, 10]) - 10
    assert columns.unique().tolist() == list(range(-4, 5))
    assert (cut[:, 1, 10, 16] - 10).unique().tolist() == list(range(-4, 5))


# ---------------------------------------------------------------- replayed


@in_float64
@pytest.mark.parametrize("initialization", ["xavier", "default"])
def test_dd_is_judged_by_exactly_its_own_steps_on_a_fresh_network(initialization, judged_networks):
    """No more steps, no momentum, no augmentation; and what they make of a network is what is tested."""
    replay = DdReplay(dd_recipe(initialization=initialization, networks=1))
    recipe, dataset = replay.recipe, replay.dataset
    for key in (0, 1):
        (epoch,) = train_and_test(replay.loop.training_set(), dataset, recipe.evaluation, 5, (key,), CPU)
        fresh = networks.evaluation_network(
            recipe.evaluation, 3, 3, 8, stream(5, "network", key), CPU, initialization
        )  # fmt: skip
        images, labels = shares(replay.images[-1], 3, 2, 2), [0, 1, 2]
        rates = plain.softplus(replay.raws[-1])
        weights = plain.replay(images, rates, parameters(fresh), [0, 1, 0, 1], labels)
        for ours, theirs in zip(judged_networks[2 * key].parameters(), weights, strict=True):
            assert_near(ours.detach(), theirs)
        test = reference.normalize(dataset.test.images.double() / 255, dataset.mean, dataset.std)
        right = reference.logits(weights, test).argmax(1) == dataset.test.labels
        assert (epoch.number, epoch.epochs) == (1, 1)
        assert epoch.accuracy == pytest.approx(100 * right.double().mean().item())


def test_dd_of_one_initialisation_is_judged_on_that_one(judged_networks):
    """Whatever the evaluation's own seed is."""
    loop = Unrolled(dd_recipe(fixed_init=True, networks=1, iterations=1), tiny_dataset(), CPU)
    finish(loop)
    for seed, key in ((5, 0), (6, 1)):
        list(train_and_test(loop.training_set(), loop.dataset, loop.recipe.evaluation, seed, (key,), CPU))
    first, second = (parameters(network) for network in judged_networks)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    start = parameters(loop.network(0))
    replay = loop.training_set().replay
    images = loop.synthetic.images
    weights = plain.replay(
        [images[indices] for indices in replay.order[:2]], replay.rates, start, [0, 1, 0, 1], [0, 1, 2]
    )
    for ours, theirs in zip(first, weights, strict=True):
        assert_near(ours, theirs, atol=1e-5)


def test_dd_replays_other_images_by_the_same_steps():
    """So that a baseline is judged alike."""
    loop = Unrolled(dd_recipe(), tiny_dataset(), CPU)
    real = torch.rand(6, 3, 8, 8)
    training = loop.training_set(real, torch.tensor([0, 0, 1, 1, 2, 2]))
    assert torch.equal(training.images, real)
    assert [i.tolist() for i in training.replay.order] == [i.tolist() for i in loop.order]


@pytest.mark.parametrize("own", [{"depth": 1}, {"norm": "none"}, {"width": 7}, {"network": "mlp", "norm": "none"}])
def test_dd_is_judged_on_the_network_that_its_steps_were_learned_for(own):
    recipe = make_recipe("dd", "folder:tiny", 10, params={"image_size": 32} | own)
    judge = recipe.evaluation
    assert (judge.network, judge.norm) == (recipe.network, recipe.norm)
    if recipe.network == "convnet":
        assert (judge.depth, judge.width) == (recipe.depth, recipe.width)


# ---------------------------------------------------------------- resuming and diverging


def test_dd_resumed_after_any_step_it_ends_in_the_same_bytes():
    whole = Unrolled(dd_recipe(), tiny_dataset(), CPU)
    states, losses = [save(whole.state_dict())], []
    while whole.step_number < whole.recipe.steps:
        losses.append(whole.step().loss)
        states.append(save(whole.state_dict()))
    for step, state in enumerate(states):
        resumed = Unrolled(dd_recipe(), tiny_dataset(), CPU, load(state))
        assert resumed.step_number == step
        assert finish(resumed) == losses[step:]
        assert save(resumed.state_dict()) == states[-1], f"resumed after step {step}"


def test_dd_saved_state_is_a_copy():
    loop = Unrolled(dd_recipe(), tiny_dataset(), CPU)
    loop.step()
    state = loop.state_dict()
    before = save(state)
    loop.step()
    other = Unrolled(dd_recipe(), tiny_dataset(), CPU, state)
    other.step()
    assert save(state) == before


@pytest.mark.parametrize("lr", [1e20, 1e25])
def test_dd_that_diverges_stops_before_it_spoils_anything(lr):
    loop = Unrolled(dd_recipe(iterations=50, decay=1.0, lr=lr), tiny_dataset(), CPU)
    before = until_diverged(loop, "lower lr_steps or lr")
    assert save(loop.state_dict()) == save(before)
    for name, value in before.items():
        assert value.isfinite().all(), name


@pytest.mark.parametrize("method", ["dd", "mtt"])
@pytest.mark.parametrize("spoilt", ["images", "rates"])
def test_a_gradient_that_is_not_finite_spoils_nothing_though_the_loss_is(method, spoilt, tmp_path, monkeypatch):
    loop = Unrolled(dd_recipe(), tiny_dataset(), CPU) if method == "dd" else mtt(tmp_path)
    while loop.step_number < (2 if method == "dd" else 8):
        loop.step()
    backward = Unroller.backward

    def overflow(self, *arguments):
        images, rates = backward(self, *arguments)
        (images if spoilt == "images" else rates)[1].fill_(float("inf"))
        return images, rates

    monkeypatch.setattr(Unroller, "backward", overflow)
    before = save(loop.state_dict())
    with pytest.raises(Diverged):
        loop.step()
    assert save(loop.state_dict()) == before


# ================================================================ published values

MTT_FIELDS = ("student_steps", "expert_epochs", "max_start_epoch", "lr_img", "lr_lr", "lr_student", "batch_syn", "zca")


@pytest.mark.parametrize(
    ("dataset", "ipc", "values"),
    [
        ("cifar10", 1, (50, 2, 2, 100, 1e-7, 0.01, None, True)),
        ("cifar10", 10, (30, 2, 20, 100, 1e-5, 0.001, None, True)),
        ("cifar10", 50, (30, 2, 40, 1000, 1e-5, 0.001, None, False)),
        ("cifar100", 1, (20, 3, 20, 1000, 1e-5, 0.01, None, True)),
        ("cifar100", 10, (20, 2, 20, 1000, 1e-5, 0.01, None, False)),
        ("cifar100", 50, (80, 2, 40, 1000, 1e-5, 0.01, 125, True)),
        ("tinyimagenet", 1, (10, 2, 10, 10_000, 1e-4, 0.01, None, False)),
        ("tinyimagenet", 10, (20, 2, 40, 10_000, 1e-4, 0.01, 200, False)),
        ("tinyimagenet", 50, (20, 2, 40, 10_000, 1e-4, 0.01, 300, False)),
    ],
)
def test_mtt_published_values(dataset, ipc, values):
    recipe = make_recipe("mtt", dataset, ipc)
    assert tuple(getattr(recipe, name) for name in MTT_FIELDS) == values
    assert is_published(recipe)
    assert recipe.depth == (4 if dataset == "tinyimagenet" else 3)
    assert (recipe.network, recipe.width, recipe.norm) == ("convnet", 128, "instance")
    assert (recipe.iterations, recipe.momentum_img, recipe.init, recipe.zca_eps) == (5000, 0.5, "random", 0.1)
    assert (recipe.experts, recipe.batch_expert) == (100, 256)
    assert (recipe.lr_expert, recipe.momentum_expert, recipe.weight_decay_expert) == (0.01, 0, 0)
    assert recipe.augmentation == "color_crop_cutout_flip_scale_rotate"
    # no longer than a student that starts last looks
    assert recipe.epochs_per_expert == recipe.max_start_epoch - 1 + recipe.expert_epochs


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100", "tinyimagenet"])
def test_mtt_published_protocol(dataset):
    judge = make_recipe("mtt", dataset, 10).evaluation
    assert (judge.lr, judge.epochs, judge.batch_size, judge.schedule) == ("learned", 1001, 256, "tenth")
    assert (judge.optimizer, judge.momentum, judge.weight_decay) == ("sgd", 0.9, 5e-4)
    assert (judge.augmentation, judge.composition) == ("color_crop_cutout_flip_scale_rotate", "one")
    assert (judge.mode, judge.mix_p, judge.tests, judge.network) == ("train", 0, 1, "convnet")


def test_mtt_has_no_published_values_elsewhere():
    assert not is_published(make_recipe("mtt", "cifar10", 5))
    svhn = make_recipe("mtt", "svhn", 10)
    assert not is_published(svhn)
    assert not svhn.zca
    assert svhn.augmentation == svhn.evaluation.augmentation == "color_crop_cutout_scale_rotate"  # digits


@pytest.mark.parametrize(
    ("dataset", "network", "lr_steps", "iterations", "decay_every", "crop_and_flip"),
    [
        ("mnist", "lenet", 0.02, 400 * 59, 40 * 59, False),
        ("cifar10", "alexcifarnet", 0.001, 400 * 49, 40 * 49, True),
    ],
)
def test_dd_published_values(dataset, network, lr_steps, iterations, decay_every, crop_and_flip):
    recipe = make_recipe("dd", dataset, 10)
    assert is_published(recipe)
    assert (recipe.network, recipe.initialization, recipe.fixed_init) == (network, "xavier", False)
    assert (recipe.distill_steps, recipe.distill_epochs, recipe.images_per_step, recipe.networks) == (10, 3, 1, 1)
    assert (recipe.lr_steps, recipe.crop_and_flip) == (lr_steps, crop_and_flip)
    assert (recipe.batch_real, recipe.iterations, recipe.decay_every) == (1024, iterations, decay_every)
    assert (recipe.lr, recipe.beta1, recipe.beta2, recipe.decay) == (0.01, 0.5, 0.999, 0.5)
    assert (recipe.evaluation.mode, recipe.evaluation.network, recipe.evaluation.epochs) == ("replay", network, 1)
    assert not is_published(make_recipe("dd", dataset, 50))
