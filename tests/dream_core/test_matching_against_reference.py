"""The whole loop, step for step against the reference, in float64: same chance, same pixels to 1e-8."""

import pytest
import torch

from dream_core import networks
from dream_core.augmentation import draw_cutmix, draw_stack
from dream_core.datasets import Dataset
from dream_core.methods import matching
from dream_core.methods.pixel_sgd import PixelSGD
from dream_core.randomness import stream
from dream_core.recipes import MatchingRecipe
from dream_core.synthetic import SyntheticSet
from tests.dream_core import reference
from tests.dream_core.tiny import tiny_dataset, tiny_recipe

CPU = torch.device("cpu")


pytestmark = pytest.mark.usefixtures("float64")


def by_image(draw, n) -> list[reference.Draw]:
    """A draw with one row per image, or one for all, as the reference takes it."""

    def row(parameters, i):
        values = parameters[i if len(parameters) > 1 else 0].tolist()
        return tuple(values) if isinstance(values, list) else (values,)

    return [[(name, row(parameters, i)) for name, parameters in draw] for i in range(n)]


class Replay:
    """Runs the loop and writes down what chance decided, for the reference."""

    def __init__(self, recipe: MatchingRecipe, dataset: Dataset):
        self.recipe, self.dataset = recipe, dataset
        self.loop = matching.MatchingLoop(recipe, dataset, CPU)
        self.start = self.loop.synthetic.images.clone()
        self.plan: list[reference.Outer] = []
        self.images, self.weights, self.losses = [], [], []
        for _ in range(recipe.steps):
            self.step()

    def step(self) -> None:
        loop, recipe = self.loop, self.recipe
        outer, inner = divmod(loop.step_number, recipe.inner_iterations)
        taken = loop.batches_taken
        progress = loop.step()
        if inner == 0:
            network = networks.matched_network(
                recipe, loop.channels, loop.classes, stream(recipe.seed, "network", outer), CPU
            )
            self.plan.append(reference.Outer([w.detach() for w in network.parameters()], []))
        matches = [self.match(label, outer, inner) for label in range(loop.classes)]
        minibatches = [self.minibatch(number) for number in range(taken, loop.batches_taken)]
        self.plan[-1].inner.append(reference.Inner(matches, minibatches))
        self.images.append(loop.synthetic.images.clone())
        self.weights.append([w.detach().clone() for w in loop.network.parameters()])
        self.losses.append(progress.loss)

    def match(self, label: int, outer: int, inner: int) -> reference.Match:
        recipe, key = self.recipe, (outer, inner, label)
        real = self.loop.selection.batch(label, self.loop.network, outer, 1 if recipe.method == "dream" else inner)
        draw = draw_stack(recipe.augmentation, 1, recipe.image_size, stream(recipe.seed, "augment", *key))
        decoded = len(self.loop.synthetic.decode(self.start[: recipe.ipc]))
        subsample = None
        if decoded > recipe.batch_syn_max:
            order = torch.randperm(decoded, generator=stream(recipe.seed, "sample", *key))
            subsample = order[: recipe.batch_syn_max].tolist()
        return reference.Match(real.tolist(), by_image(draw, 1)[0], subsample)

    def minibatch(self, number: int) -> reference.Minibatch:
        recipe, images = self.recipe, self.loop.batches[number].tolist()
        generator = stream(recipe.seed, "train", number)
        draw = draw_stack(recipe.augmentation_net, len(images), recipe.image_size, generator)
        cut = draw_cutmix(len(images), recipe.image_size, recipe.mix_p_net, generator)
        mix = cut and (cut.order.tolist(), (cut.top, cut.bottom, cut.left, cut.right))
        return reference.Minibatch(images, by_image(draw, len(images)), mix)

    def reference(self) -> reference.Trace:
        recipe, dataset = self.recipe, self.dataset
        settings = reference.Settings(
            recipe.ipc, recipe.factor, recipe.lr_img, recipe.metric, dataset.mean, dataset.std, recipe.formation,
            recipe.momentum_img, recipe.lr_net, recipe.momentum_net, recipe.weight_decay_net,
        )  # fmt: skip
        images = dataset.train.images.double() / 255
        return reference.distil(self.start, images, dataset.train.labels.tolist(), self.plan, settings)[1]


CASES = {
    "dream": {},
    "dream l1": {"metric": "l1"},
    "dream cosine": {"metric": "cosine"},
    "idc": {"method": "idc"},
    "idc without multi-formation": {"method": "idc", "factor": 1, "ipc": 3},
    "more decoded images than are matched": {"batch_syn_max": 3},
    "a factor that does not divide the side": {"factor": 3, "ipc": 1, "batch_real": 4},
    "multi formation": {"formation": "multi"},
    "bound formation": {"formation": "bound", "factor": 3, "ipc": 1},
    "every operator": {"augmentation": "color_crop_cutout_flip_scale_rotate", "inner_iterations": 6},
    "no augmentation, no cutmix": {"augmentation": "none", "augmentation_net": "none", "mix_p_net": 0.0},
    "always cutmix": {"mix_p_net": 1.0, "augmentation_net": "color_crop_flip_scale_rotate"},
    "large steps, so that clamping matters": {"lr_img": 20.0, "outer_iterations": 3, "inner_iterations": 2},
    "other optimisers": {"momentum_img": 0.9, "lr_net": 0.1, "momentum_net": 0.5, "weight_decay_net": 0.1},
    "no momentum": {"momentum_img": 0.0, "momentum_net": 0.0},
    "noise": {"init": "noise"},
}


@pytest.mark.parametrize("case", CASES)
def test_step_for_step(case):
    """Images, networks and losses after every inner iteration."""
    replay = Replay(tiny_recipe(**{"method": "dream"} | CASES[case]), tiny_dataset())
    trace = replay.reference()
    for step, (ours, theirs) in enumerate(zip(replay.images, trace.images, strict=True)):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-8, msg=f"images after step {step}")
        for a, b in zip(replay.weights[step], trace.weights[step], strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-8, msg=f"network after step {step}")
        assert replay.losses[step] == pytest.approx(sum(trace.losses[step]) / len(trace.losses[step]), rel=1e-8)
    assert (replay.images[-1] - replay.start).abs().max() > 1e-4  # and it did move


def test_step_for_step_on_grey_images_of_28_pixels():
    """The first convolution pads to 32."""
    recipe = tiny_recipe(
        "idc", image_size=28, factor=3, ipc=1, depth=3, width=3, outer_iterations=1, inner_iterations=2, n_data=5
    )
    replay = Replay(recipe, tiny_dataset(channels=1, size=28, counts=(10, 12)))
    torch.testing.assert_close(replay.images[-1], replay.reference().images[-1], rtol=0, atol=1e-8)


def test_the_cases_reach_what_they_mean_to():
    """CutMix on and off, every operator, pixels outside [0, 1] before a clamp."""
    mixed = [b.mix for o in Replay(tiny_recipe(), tiny_dataset()).plan for i in o.inner for b in i.minibatches]
    assert None in mixed
    assert any(mixed)
    every = Replay(tiny_recipe(**CASES["every operator"]), tiny_dataset())
    drawn = {name for o in every.plan for i in o.inner for m in i.matches for name, _ in m.draw}
    assert drawn == {"color", "crop", "cutout", "flip", "scale", "rotate"}
    large = Replay(tiny_recipe(**CASES["large steps, so that clamping matters"]), tiny_dataset())
    assert large.images[1].max() > 1 or large.images[1].min() < 0


# ---- traps, one by one


def test_one_augmentation_for_real_and_synthetic_redrawn_for_every_class_and_step():
    plan = Replay(tiny_recipe(), tiny_dataset()).plan
    draws = [str(match.draw) for outer in plan for inner in outer.inner for match in inner.matches]
    assert len(set(draws)) == len(draws)


def test_the_network_gets_a_draw_of_its_own_for_every_image():
    minibatch = Replay(tiny_recipe(), tiny_dataset()).plan[0].inner[0].minibatches[0]
    assert len({str(draw) for draw in minibatch.draws}) == len(minibatch.draws)


def test_every_outer_iteration_has_a_fresh_network_and_a_fresh_optimiser():
    recipe = tiny_recipe(outer_iterations=2, inner_iterations=2)
    loop = matching.MatchingLoop(recipe, tiny_dataset(), CPU)
    first = [p.detach().clone() for p in loop.network.parameters()]
    loop.step()
    loop.step()
    used = loop.network_sgd
    loop.step()
    assert loop.network_sgd is not used
    again = networks.matched_network(recipe, 3, 3, stream(recipe.seed, "network", 1), CPU)
    assert not torch.equal(next(again.parameters()), first[0])


def test_the_network_is_in_training_mode():
    """It matters to batch normalisation alone, which then uses the statistics of the batch at hand."""
    loop = matching.MatchingLoop(tiny_recipe(norm="batch"), tiny_dataset(), CPU)
    for _ in range(4):
        assert loop.network.training
        loop.step()


def test_the_images_keep_their_momentum_over_outer_iterations():
    recipe = tiny_recipe(outer_iterations=2, inner_iterations=1, lr_img=1e-3, momentum_img=0.9)
    loop = matching.MatchingLoop(recipe, tiny_dataset(), CPU)
    loop.step()
    assert loop.image_sgd.momentum_buffer.abs().max() > 0
    kept = loop.image_sgd.momentum_buffer
    loop.step()
    assert loop.image_sgd.momentum_buffer is kept


def test_pixels_are_clamped_when_an_outer_iteration_begins_and_at_no_other_time():
    recipe = tiny_recipe(lr_img=50.0, outer_iterations=2, inner_iterations=2)
    loop = matching.MatchingLoop(recipe, tiny_dataset(), CPU)
    loop.step()
    loop.step()
    outside = (loop.synthetic.images < 0) | (loop.synthetic.images > 1)
    assert outside.any()
    clamped = loop.synthetic.images.clamp(0, 1)
    state = loop.state_dict()
    state["images"] = clamped  # clamping beforehand changes nothing: the next step would do it anyway
    other = matching.MatchingLoop(recipe, tiny_dataset(), CPU)
    other.load_state_dict(state)
    loop.step()
    other.step()
    assert torch.equal(loop.synthetic.images, other.synthetic.images)


def test_momentum_half_doubles_the_step_of_a_gradient():
    """Coasting through the other classes' turns, a gradient moves its pixels by lr · (1 + ½ + ¼ + …) in all."""
    images = torch.zeros(10, 1, 2, 2)
    optimiser = PixelSGD(SyntheticSet(images, classes=10, ipc=1), lr=0.1, momentum=0.5)
    for label in range(10):
        optimiser.step(label, torch.ones(1, 1, 2, 2))
    assert images[0, 0, 0, 0].item() == pytest.approx(-0.2, rel=2e-3)
    assert images[9, 0, 0, 0].item() == pytest.approx(-0.1)
    for label in range(10):
        optimiser.step(label, torch.zeros(1, 1, 2, 2))
    assert images[9, 0, 0, 0].item() == pytest.approx(-0.2, rel=2e-3)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_class_steps_are_those_of_one_optimiser_over_the_whole_tensor(momentum):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(6, 2, 3, 3, generator=generator)
    whole = images.clone().requires_grad_()
    sgd = torch.optim.SGD([whole], lr=0.3, momentum=momentum)
    by_class = PixelSGD(SyntheticSet(images, classes=3, ipc=2), lr=0.3, momentum=momentum)
    for _ in range(4):
        for label in range(3):
            gradient = torch.randn(2, 2, 3, 3, generator=generator)
            whole.grad = torch.zeros_like(whole)
            whole.grad[2 * label : 2 * label + 2] = gradient
            at_turn = by_class.at_turn(label)
            torch.testing.assert_close(at_turn.detach(), whole.detach()[2 * label : 2 * label + 2])
            sgd.step()
            by_class.step(label, gradient)
    torch.testing.assert_close(images, whole.detach(), rtol=0, atol=1e-12)


def test_the_network_sees_n_data_images_of_all_classes_and_goes_on_where_it_was():
    """Minibatches until n_data images are seen; the next inner iteration walks on through the same pass."""
    recipe, dataset = tiny_recipe("idc", n_data=12, batch_real=5), tiny_dataset()
    replay = Replay(recipe, dataset)
    batches = [b.images for outer in replay.plan for inner in outer.inner for b in inner.minibatches]
    per_step = [sum(len(b.images) for b in inner.minibatches) for outer in replay.plan for inner in outer.inner]
    assert all(12 <= seen < 12 + 5 for seen in per_step)
    passed = [i for batch in batches for i in batch][: len(dataset.train)]
    assert sorted(passed) == list(range(len(dataset.train)))


def test_real_batches_walk_through_a_class_before_they_repeat():
    """IDC: a shuffled cycle per class, full batches only, of a size that a small class can give."""
    replay = Replay(tiny_recipe("idc", ipc=1, batch_real=5, inner_iterations=4), tiny_dataset(counts=(14, 11, 4)))
    for label, count in ((0, 14), (1, 11)):
        batches = [inner.matches[label].real for outer in replay.plan for inner in outer.inner]
        assert all(len(b) == 5 for b in batches)
        for first, second in zip(batches[::2], batches[1::2], strict=True):
            assert len(set(first) | set(second)) == 10
        assert max(max(b) for b in batches) < count
    assert all(len(inner.matches[2].real) == 4 for outer in replay.plan for inner in outer.inner)
