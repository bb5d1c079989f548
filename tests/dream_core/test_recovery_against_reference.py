"""SRe2L against the reference: its three stages, resuming, soft labels; schedules of evaluation; published values."""

import math
from collections import Counter

import pytest
import torch
from safetensors.torch import load, save
from torch import nn

from dream_core import loader, networks, randomness
from dream_core.augmentation import draw_stack
from dream_core.datasets import Dataset
from dream_core.errors import Diverged, InvalidRecipe
from dream_core.evaluation import protocol, train_and_test
from dream_core.evaluation.protocol import soft_loss
from dream_core.images import Normalize
from dream_core.methods import recovery
from dream_core.methods.recovery import Recovery, squeeze_rate
from dream_core.randomness import Shuffle, derive, stream
from dream_core.recipes import EvaluationRecipe, is_published, make_recipe
from dream_core.subject import SoftLabels, TrainingSet
from dream_core.training import saved
from tests.dream_core import reference, reference_recovery
from tests.dream_core.reference_unrolled import leaves
from tests.dream_core.test_matching_against_reference import by_image
from tests.dream_core.tiny import MEAN, STD, tiny_dataset

CPU = torch.device("cpu")
in_float64 = pytest.mark.usefixtures("float64")


def sre2l_recipe(**changes):
    params = {
        "network": "convnet", "image_size": 8, "depth": 2, "width": 4, "squeeze_epochs": 2, "squeeze_batch": 12,
        "iterations": 3, "batch_syn": 2, "roll": 2, "label_epochs": 3, "r_bn": 0.5,
    }  # fmt: skip
    seed, judged = changes.pop("seed", 3), changes.pop("evaluation", {})
    usual = {"network": "convnet", "depth": 1, "width": 4, "repeats": 1, "baselines": False, "ceiling": "none"}
    return make_recipe("sre2l", "folder:tiny", 2, seed, params | changes, usual | judged)


def sre2l(cache, recipe=None, dataset=None, state=None):
    return Recovery(recipe or sre2l_recipe(), dataset or tiny_dataset(), CPU, state, cache=cache)


def finish(method):
    """Do what remains; return the losses."""
    return [method.step().loss for _ in iter(lambda: method.step_number < method.recipe.steps, False)]


def until(method, step):
    while method.step_number < step:
        method.step()
    return method


def assert_near(ours, theirs, about="", atol=1e-8):
    torch.testing.assert_close(ours, theirs, rtol=0, atol=atol, msg=lambda text: f"{about}: {text}")


def teacher_weights(method):
    """As the reference takes them: running statistics beside the parameters of their layer."""
    return [value.clone() for name, value in method.teacher.state_dict().items() if "num_batches" not in name]


# ================================================================ squeeze


@in_float64
@pytest.mark.parametrize(("epochs", "warmup"), [(7, 0), (10, 3), (5, 1)])
def test_the_teachers_rate_is_that_of_pytorchs_schedulers(epochs, warmup):
    recipe = sre2l_recipe(squeeze_epochs=epochs, squeeze_warmup=warmup, squeeze_lr=0.2)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.2)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs - warmup)
    if warmup:
        rise = torch.optim.lr_scheduler.LinearLR(optimizer, 0.01, total_iters=warmup)
        scheduler = torch.optim.lr_scheduler.SequentialLR(optimizer, [rise, scheduler], [warmup])
    for epoch in range(epochs):
        assert squeeze_rate(recipe, epoch) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        scheduler.step()


@in_float64
def test_the_teacher_is_trained_by_sgd_on_cropped_and_mirrored_images(tmp_path):
    """A plain loop of PyTorch's own optimiser and cosine, the network in training mode, the draws of the product."""
    recipe, dataset = sre2l_recipe(squeeze_epochs=3), tiny_dataset()
    method = until(sre2l(tmp_path, recipe, dataset), 3)
    network = networks.matched_network(recipe, 3, 3, stream(0, "teacher"), CPU).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 3)
    images = reference.normalize(dataset.train.images.double() / 255, MEAN, STD)
    batches = Shuffle(34, 12, 0, "teacher", "epochs", "order", drop_last=False)
    for number in range(3 * 3):
        chosen, generator = batches[number].tolist(), stream(0, "teacher", "epochs", number)
        draw = draw_stack("crop_flip", len(chosen), 8, generator)
        assert [name for name, _ in draw] == ["flip", "crop"]
        rows = by_image(draw, len(chosen))
        seen = [reference.augment(images[i], row) for i, row in zip(chosen, rows, strict=True)]
        loss = nn.functional.cross_entropy(network(torch.stack(seen)), dataset.train.labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if number % 3 == 2:
            scheduler.step()
    for ours, theirs in zip(method.teacher.state_dict().values(), network.state_dict().values(), strict=True):
        assert_near(ours, theirs)


def test_no_stream_of_the_teacher_serves_two_purposes(tmp_path, monkeypatch):
    """A key names one purpose: the order of the images and their augmentation are not drawn from the same numbers."""
    opened = []
    monkeypatch.setattr(randomness, "derive", lambda *key: opened.append(key) or derive(*key))
    until(sre2l(tmp_path), 2)
    assert {key for key, count in Counter(opened).items() if count > 1} == set()


# ================================================================ recover


@in_float64
@pytest.mark.parametrize("first_bn", [10.0, 1.0, 0.0])
@pytest.mark.parametrize("r_bn", [0.01, 1.0])
def test_recovery_loss_equals_the_reference(first_bn, r_bn, tmp_path):
    """Cross-entropy, and lengths (not squares) of what the statistics differ by, the first ones weighed."""
    method = until(sre2l(tmp_path, sre2l_recipe(depth=3, first_bn=first_bn, r_bn=r_bn)), 2)
    x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 1])
    (ours,), (theirs,) = leaves([x]), leaves([x])
    loss = method.recovery_loss(ours, labels)
    expected = reference_recovery.recover_loss(theirs, labels.tolist(), teacher_weights(method), r_bn, first_bn)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-10)
    (a,), (b,) = torch.autograd.grad(loss, ours), torch.autograd.grad(expected, theirs)
    assert_near(a, b)
    assert b.abs().max() > 1e-4
    assert not any(module._forward_pre_hooks for module in method.teacher.modules())


RECOVER_CASES = {
    "two classes, then one": {},
    "all classes together": {"batch_syn": 100},
    "each class alone": {"batch_syn": 1},
    "rolled in both directions": {"roll_back": True, "roll": 3, "batch_syn": 3},
    "not rolled": {"roll": 0, "iterations": 5},
    "other weights": {"r_bn": 0.01, "first_bn": 1.0, "lr_img": 0.1},
}


@in_float64
@pytest.mark.parametrize("case", RECOVER_CASES)
def test_recovery_step_for_step(case, tmp_path):
    """The images of every index, and every step's loss, as the reference finds them from the same noise."""
    recipe = sre2l_recipe(**RECOVER_CASES[case])
    method = until(sre2l(tmp_path, recipe), recipe.squeeze_epochs)
    start, weights = method.synthetic.images.clone(), teacher_weights(method)
    groups = [list(range(3))[n : n + recipe.batch_syn] for n in range(0, 3, recipe.batch_syn)]
    for index in range(recipe.ipc):
        losses = [method.step().loss for _ in range(recipe.iterations)]
        expected = []
        for labels in groups:
            which = [recipe.ipc * label + index for label in labels]
            shifts = []
            for iteration in range(recipe.iterations):
                generator = stream(recipe.seed, "recover", index, iteration, labels[0])
                least = -recipe.roll if recipe.roll_back else 0
                shifts.append(tuple(torch.randint(least, recipe.roll + 1, (2,), generator=generator).tolist()))
            x, trace = reference_recovery.recover(
                start[which], labels, weights, shifts, recipe.lr_img, recipe.iterations, recipe.r_bn, MEAN, STD,
                recipe.first_bn,
            )  # fmt: skip
            assert_near(method.synthetic.images[which], x, f"index {index} of classes {labels}")
            assert (x - start[which]).abs().max() > 1e-2
            expected.append(trace)
        means = [sum(parts) / len(parts) for parts in zip(*expected, strict=True)]
        assert losses == pytest.approx(means, rel=1e-8)


@in_float64
def test_recovered_images_are_in_the_valid_range_after_every_step(tmp_path):
    """Of the index at hand; the others still are the noise that they start from."""
    method = until(sre2l(tmp_path, sre2l_recipe(lr_img=2.0)), 2)
    low, high = (reference.normalize(torch.full((1, 3, 1, 1), edge), MEAN, STD) for edge in (0.0, 1.0))
    start = method.synthetic.images.clone()
    assert start.std() == pytest.approx(1, abs=0.1)
    assert (start > high).any()
    assert (start < low).any()
    for step in range(2 * 3):
        assert method.step().phase == "distilling"
        done = method.synthetic.images[step // 3 :: 2]
        assert (done >= low).all()
        assert (done <= high).all()
        assert ((done == low) | (done == high)).any()
        if step < 3:
            assert torch.equal(method.synthetic.images[1::2], start[1::2])
    pixels = method.synthetic.pixels()
    assert pixels.min() >= 0
    assert pixels.max() <= 1


def test_a_step_of_recovery_sees_one_crop_of_the_whole_batch_and_rolls_it(tmp_path):
    method = sre2l(tmp_path, sre2l_recipe(crop_and_flip=True, roll=4, roll_back=True))
    x = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    seen = method.views(x, stream(1, "views"))
    generator = stream(1, "views")
    seed = torch.randint(2**62, (1,), generator=generator)
    down, right = torch.randint(-4, 5, (2,), generator=generator).tolist()
    cropped = torch.cat([loader.varied(image[None], seed, "resized", True) for image in x])
    assert_near(seen, reference_recovery.roll(cropped, down, right), atol=1e-6)
    plain = sre2l(tmp_path, sre2l_recipe(roll=2)).views(x, stream(1, "views"))
    rolled = [reference_recovery.roll(x, down, right) for down in range(3) for right in range(3)]
    assert any(torch.equal(plain, other) for other in rolled)


def test_the_teacher_is_in_evaluation_mode_and_unchanged_once_it_is_trained(tmp_path):
    method = until(sre2l(tmp_path, sre2l_recipe(crop_and_flip=True)), 2)
    before, modes = save(saved(method.teacher.state_dict())), []
    method.teacher.register_forward_hook(lambda network, *_: modes.append(network.training))
    finish(method)
    assert len(modes) == 2 * 3 * 2 + 3
    assert not any(modes)
    assert save(saved(method.teacher.state_dict())) == before


def test_phases_and_their_lengths(tmp_path):
    method = sre2l(tmp_path)
    progress = [method.step() for _ in range(method.recipe.steps)]
    assert [p.phase for p in progress] == ["pretraining"] * 2 + ["distilling"] * 6 + ["relabelling"] * 3
    assert [p.step for p in progress] == list(range(1, 12))
    assert {p.steps for p in progress} == {11}


# ================================================================ the teacher in the cache


@pytest.fixture
def trained_epochs(monkeypatch):
    """Collects the epochs that teachers are trained for."""
    epochs, train = [], recovery.pretrain_epoch

    def count(*arguments):
        epochs.append(arguments[3])
        return train(*arguments)

    monkeypatch.setattr(recovery, "pretrain_epoch", count)
    return epochs


def test_a_teacher_is_trained_once(tmp_path, trained_epochs):
    first = sre2l(tmp_path)
    finish(first)
    assert trained_epochs == [0, 1]
    (path,) = tmp_path.glob("*/*.safetensors")
    content = path.read_bytes()

    trained_epochs.clear()
    second = sre2l(tmp_path)
    progress = [second.step() for _ in range(1 + 6 + 3)]
    assert trained_epochs == []
    assert [p.step for p in progress] == list(range(2, 12))  # all its epochs in one step
    assert save(second.state_dict()) == save(first.state_dict())

    finish(sre2l(tmp_path, sre2l_recipe(seed=8, iterations=1, label_epochs=1, batch_syn=3, view="resized")))
    assert trained_epochs == []

    path.write_bytes(content[: len(content) // 2])
    third = sre2l(tmp_path)
    finish(third)
    assert trained_epochs == [0, 1]
    assert path.read_bytes() == content
    assert save(third.state_dict()) == save(first.state_dict())


def test_another_setting_of_the_teacher_has_a_folder_of_its_own(tmp_path):
    def folder(dataset: Dataset | None = None, **changes):
        return sre2l(tmp_path, sre2l_recipe(**changes), dataset or tiny_dataset()).cache.directory

    hangs_on = {
        "network": "resnet10_narrow", "depth": 1, "width": 5, "activation": "swish", "pooling": "max", "flip": False,
        "squeeze_epochs": 3, "squeeze_batch": 13, "squeeze_lr": 0.2, "squeeze_momentum": 0.8,
        "squeeze_weight_decay": 1e-3, "squeeze_warmup": 1, "teacher_seed": 1,
    }  # fmt: skip
    others = [folder(**{name: value}) for name, value in hangs_on.items()] + [folder(tiny_dataset(seed=1))]
    assert len({folder(), *others}) == len(others) + 1
    indifferent = {
        "seed": 9, "iterations": 9, "lr_img": 1.0, "r_bn": 9.0, "roll": 1, "label_epochs": 5, "view": "resized",
        "mixing": "none", "batch_syn": 1,
    }  # fmt: skip
    assert {folder(**{name: value}) for name, value in indifferent.items()} == {folder()}


# ================================================================ resuming and diverging


@pytest.mark.parametrize("cached", [True, False])
def test_resumed_after_any_step_of_any_phase_it_ends_in_the_same_bytes(cached, tmp_path):
    def cache(name):
        return tmp_path / name if cached else None

    whole = sre2l(cache("whole"))
    states, losses = [save(whole.state_dict())], []
    while whole.step_number < whole.recipe.steps:
        losses.append(whole.step().loss)
        states.append(save(whole.state_dict()))
    assert len(states) == 2 + 2 * 3 + 3 + 1
    for step, state in enumerate(states):
        resumed = sre2l(cache(f"lost after {step}"), state=load(state))
        assert resumed.step_number == step
        assert finish(resumed) == losses[step:]
        assert save(resumed.state_dict()) == states[-1], f"resumed after step {step}, the teacher's file lost"
        if cached:
            resumed = sre2l(cache("whole"), state=load(state))
            finish(resumed)
            assert save(resumed.state_dict()) == states[-1], f"resumed after step {step}, the teacher's file found"


def test_a_saved_state_is_a_copy(tmp_path):
    method = sre2l(tmp_path)
    for step in (1, 4, 9):
        state = until(method, step).state_dict()
        before = save(state)
        method.step()
        until(sre2l(tmp_path, state=state), step + 1)
        assert save(state) == before


def diverges(method):
    """The state before the step that raised."""
    before = {}

    def run():
        while method.step_number < method.recipe.steps:
            before.clear()
            before.update(method.state_dict())
            method.step()

    with pytest.raises(Diverged):
        run()
    return before


def test_a_teacher_that_diverges_is_left_as_it_was(tmp_path):
    method = sre2l(tmp_path, sre2l_recipe(squeeze_lr=1e25, squeeze_epochs=9))
    before = diverges(method)
    assert save(method.state_dict()) == save(before)
    assert not list(tmp_path.glob("*/*.safetensors"))


@pytest.mark.parametrize("spoilt", ["loss", "gradient"])
def test_a_recovery_that_diverges_spoils_nothing(spoilt, tmp_path, monkeypatch):
    """The images are clamped, so that no rate is too high for them; the loss may overflow, or its gradient alone."""
    method = until(sre2l(tmp_path), 4)
    honest = Recovery.recovery_loss

    def overflow(self, x, labels):
        if spoilt == "loss":
            return honest(self, x, labels) * torch.inf
        return honest(self, x, labels) + (0 * x).sum().sqrt()

    monkeypatch.setattr(Recovery, "recovery_loss", overflow)
    before = diverges(method)
    assert method.step_number == 4
    assert save(method.state_dict()) == save(before)


# ================================================================ relabel

VIEWS = {
    "shifted, mixed": {},
    "cropped": {"view": "resized", "mixing": "none"},
    "shifted, boxed, not mirrored": {"mixing": "cutmix", "flip": False},
    "cropped, mixed": {"view": "resized", "mixup_alpha": 0.3},
}


@pytest.mark.parametrize("case", VIEWS)
def test_stored_logits_are_the_teachers_on_the_views_that_the_seeds_make_again(case, tmp_path):
    method = sre2l(tmp_path, sre2l_recipe(**VIEWS[case]))
    finish(method)
    training = method.training_set()
    soft, inputs = training.soft, training.transform(training.images)
    assert (soft.seeds.shape, soft.seeds.dtype) == ((3, 6), torch.int64)
    assert (soft.logits.shape, soft.logits.dtype) == ((3, 6, 3), torch.float16)
    assert soft.seeds.unique().numel() == 3 * 6
    assert soft.view == {
        "view": method.recipe.view, "flip": method.recipe.flip, "mixing": method.recipe.mixing,
        "alpha": method.recipe.mixup_alpha,
    }  # fmt: skip
    seen = [loader.views(inputs, seeds, **soft.view) for seeds in soft.seeds]
    for views, logits in zip(seen, soft.logits, strict=True):
        with torch.no_grad():
            assert torch.equal(logits, method.teacher.eval()(views).half())
    assert not torch.equal(seen[0], seen[1])


@in_float64
def test_stored_logits_equal_the_reference_teachers(tmp_path):
    method = sre2l(tmp_path)
    finish(method)
    training = method.training_set()
    views = loader.views(training.transform(training.images), training.soft.seeds[2], **training.soft.view)
    expected, _ = reference_recovery.bn_network(teacher_weights(method), views)
    assert_near(training.soft.logits[2], expected.half(), atol=1e-3 * float(expected.abs().max()))


def test_a_set_has_no_soft_labels_before_it_is_relabelled(tmp_path):
    assert until(sre2l(tmp_path), 8).training_set().soft is None


def test_other_images_get_labels_of_their_own(tmp_path):
    """As a baseline they are judged with what the method gives its own images."""
    method = sre2l(tmp_path)
    finish(method)
    images, labels = method.dataset.train.images[:5], method.dataset.train.labels[:5]
    training = method.training_set(images, labels)
    assert training.soft.logits.shape == (3, 5, 3)
    inputs = Normalize(MEAN, STD)(images / 255)
    with torch.no_grad():
        for seeds, logits in zip(training.soft.seeds, training.soft.logits, strict=True):
            seen = loader.views(inputs, seeds, **training.soft.view)
            assert torch.equal(logits, method.teacher.eval()(seen).half())


@in_float64
@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 20.0])
def test_soft_loss_equals_the_reference(squared, temperature):
    student, teacher = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0)) * 3
    (ours,), (theirs,) = leaves([student]), leaves([student])
    loss = soft_loss(ours, teacher, temperature, squared)
    expected = reference_recovery.kd_loss(theirs, teacher, temperature, squared)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-10)
    assert_near(torch.autograd.grad(loss, ours)[0], torch.autograd.grad(expected, theirs)[0], atol=1e-12)
    assert soft_loss(teacher, teacher, temperature, squared).item() == pytest.approx(0, abs=1e-12)


# ---------------------------------------------------------------- trained on soft labels


def soft_training(images=5, epochs=3):
    """Noise with labels that no teacher gave."""
    generator = torch.Generator().manual_seed(0)
    view = {"view": "shift", "flip": True, "mixing": "cutmix", "alpha": 1.0}
    seeds = torch.randint(2**62, (epochs, images), generator=generator)
    logits = (5 * torch.randn(epochs, images, 3, generator=generator)).half()
    pixels = torch.rand(images, 3, 8, 8, generator=generator)
    return TrainingSet(pixels, torch.arange(images) % 3, Normalize(MEAN, STD), soft=SoftLabels(seeds, logits, view))


def soft_protocol(**changes):
    values = {
        "mode": "soft", "network": "convnet", "depth": 2, "width": 4, "epochs": 5, "batch_size": 3, "lr": 0.1,
        "schedule": "cosine", "augmentation": "none", "mix_p": 0.0, "tests": 1,
    }  # fmt: skip
    return EvaluationRecipe.model_validate(values | changes)


@in_float64
@pytest.mark.parametrize("squared", [False, True])
def test_training_on_soft_labels_equals_a_plain_loop(squared, judged_networks):
    """Every epoch its own views and labels, from the first again where they end; SGD, the rate down a cosine."""
    training = soft_training()
    recipe = soft_protocol(temperature=4.0, temperature_squared=squared)
    list(train_and_test(training, tiny_dataset(), recipe, 5, ("a",), CPU))
    network = networks.evaluation_network(recipe, 3, 3, 8, stream(5, "network", "a"), CPU)
    weights = [w.detach().clone().requires_grad_() for w in network.parameters()]
    velocity = [torch.zeros_like(w) for w in weights]
    inputs = reference.normalize(training.images, MEAN, STD)
    batches = Shuffle(5, 3, 5, "batches", "a", drop_last=False)
    for number in range(5 * 2):
        epoch = number // 2
        seen = loader.views(inputs, training.soft.seeds[epoch % 3], **training.soft.view)
        taught = training.soft.logits[epoch % 3].double()[batches[number]]
        scores = reference.logits(weights, seen[batches[number]])
        loss = reference_recovery.kd_loss(scores, taught, 4.0, squared)
        lr = 0.1 * 0.5 * (1 + math.cos(math.pi * epoch / 5))
        weights, velocity = reference.network_sgd(weights, velocity, loss, lr=lr, momentum=0.9, decay=5e-4)
    for ours, theirs in zip(judged_networks[0].parameters(), weights, strict=True):
        assert_near(ours.detach(), theirs.detach())


def test_soft_labels_are_what_is_learned_and_hard_ones_are_not(judged_networks):
    training, recipe = soft_training(), soft_protocol(optimizer="adamw", lr=0.01)
    wrong = SoftLabels(training.soft.seeds, training.soft.logits.roll(1, 2), training.soft.view)
    other_views = SoftLabels(training.soft.seeds + 1, training.soft.logits, training.soft.view)
    sets = [
        training,
        TrainingSet(training.images, 2 - training.labels, training.transform, soft=training.soft),
        TrainingSet(training.images, training.labels, training.transform, soft=wrong),
        TrainingSet(training.images, training.labels, training.transform, soft=other_views),
    ]
    for one in sets:
        epochs = list(train_and_test(one, tiny_dataset(), recipe, 5, (0,), CPU))
        assert len(epochs) == 5
        assert epochs[-1].accuracy is not None
    own, hard, soft, views = (next(network.parameters()) for network in judged_networks)
    assert torch.equal(own, hard)
    assert not torch.equal(own, soft)
    assert not torch.equal(own, views)


def test_a_student_learns_what_the_teacher_says(judged_networks):
    training = soft_training(images=6, epochs=1)
    recipe = soft_protocol(epochs=60, batch_size=6, temperature=1.0)
    list(train_and_test(training, tiny_dataset(), recipe, 5, (0,), CPU))
    fresh = networks.evaluation_network(recipe, 3, 3, 8, stream(5, "network", 0), CPU)
    seen = loader.views(training.transform(training.images), training.soft.seeds[0], **training.soft.view)
    with torch.no_grad():
        after, before = (
            soft_loss(n(seen), training.soft.logits[0].float(), 1.0) for n in (judged_networks[0], fresh)
        )  # fmt: skip
    assert after < 0.3 * before


# ================================================================ schedules of evaluation


@pytest.fixture
def rates(monkeypatch):
    """Collects the optimiser and its rate in every epoch, and trains nothing."""
    seen = []

    def look(_, optimizer, *arguments):
        seen.append((optimizer, optimizer.param_groups[0]["lr"]))
        return 0.0

    monkeypatch.setattr(protocol, "train_epoch", look)
    return seen


def judge(training=None, **changes):
    values = {"depth": 1, "width": 2, "tests": 1, "batch_size": 16, "lr": 0.1} | changes
    dataset = tiny_dataset()
    train = dataset.train
    training = training or TrainingSet(train.images, train.labels, Normalize(MEAN, STD))
    return list(train_and_test(training, dataset, EvaluationRecipe.model_validate(values), 5, (0,), CPU))


@pytest.mark.parametrize("epochs", [1, 2, 3, 4, 5, 6, 21, 301, 1001])
def test_tenth_falls_once_past_the_half_with_a_fresh_optimiser(epochs, rates):
    """`epochs` counts E + 1."""
    judge(schedule="tenth", epochs=epochs)
    assert [lr for _, lr in rates] == pytest.approx(reference_recovery.dc_learning_rates(epochs, 0.1))
    drop = reference_recovery.dc_drop(epochs)
    assert len({id(optimizer) for optimizer, _ in rates[:drop]}) == 1
    assert len({id(optimizer) for optimizer, _ in rates[drop:]}) == (drop < epochs)
    assert not {id(optimizer) for optimizer, _ in rates[:drop]} & {id(optimizer) for optimizer, _ in rates[drop:]}


@pytest.mark.parametrize(("epochs", "falls"), [(6, (4, 5)), (10, (6, 8)), (1000, (666, 833)), (300, (200, 250))])
def test_fifths_falls_at_two_thirds_and_five_sixths(epochs, falls, rates):
    judge(schedule="fifths", epochs=epochs)
    expected = [0.1 * 0.2 ** sum(epoch >= fall for fall in falls) for epoch in range(epochs)]
    assert [lr for _, lr in rates] == pytest.approx(expected)
    assert len({id(optimizer) for optimizer, _ in rates}) == 1


def test_cosine_falls_to_nothing(rates):
    judge(schedule="cosine", epochs=8)
    assert [lr for _, lr in rates] == pytest.approx([0.05 * (1 + math.cos(math.pi * epoch / 8)) for epoch in range(8)])
    assert len({id(optimizer) for optimizer, _ in rates}) == 1


def test_a_learned_rate_is_the_evaluations(rates):
    train = tiny_dataset().train
    training = TrainingSet(train.images, train.labels, Normalize(MEAN, STD), lr=0.0371)
    judge(training, lr="learned", schedule="tenth", epochs=3)
    judge(training, lr=0.5, schedule="tenth", epochs=1)
    assert [lr for _, lr in rates] == pytest.approx([0.0371, 0.0371, 0.00371, 0.5])


@in_float64
@pytest.mark.parametrize("epochs", [5, 6])
def test_dcs_protocol_forgets_its_momentum_at_the_drop(epochs, judged_networks):
    """Weights after the last epoch equal the reference's, whose lower rate comes with a new optimiser."""
    dataset = tiny_dataset()
    changes = {"depth": 2, "width": 4, "lr": 0.05, "epochs": epochs, "schedule": "tenth", "composition": "one"}
    judge(augmentation="none", mix_p=0.0, **changes)
    recipe = EvaluationRecipe.model_validate({"depth": 2, "width": 4})
    network = networks.evaluation_network(recipe, 3, 3, 8, stream(5, "network", 0), CPU)
    batches = Shuffle(34, 16, 5, "batches", 0, drop_last=False)
    plan = [
        [(batches[number].tolist(), [[]] * len(batches[number])) for number in range(3 * epoch, 3 * epoch + 3)]
        for epoch in range(epochs)
    ]
    images = reference.normalize(dataset.train.images.double() / 255, MEAN, STD)
    start = [w.detach() for w in network.parameters()]
    weights = reference_recovery.dc_train(start, images, dataset.train.labels.tolist(), plan, lr=0.05)
    for ours, theirs in zip(judged_networks[0].parameters(), weights, strict=True):
        assert_near(ours.detach(), theirs)


# ================================================================ published values


def test_cifar100_published_values():
    recipe = make_recipe("sre2l", "cifar100", 50)
    assert is_published(recipe)
    assert (recipe.network, recipe.norm, recipe.teacher_seed) == ("resnet18", "batch", 0)
    assert (recipe.squeeze_epochs, recipe.squeeze_batch, recipe.squeeze_warmup) == (200, 128, 0)
    assert (recipe.squeeze_lr, recipe.squeeze_momentum, recipe.squeeze_weight_decay) == (0.1, 0.9, 5e-4)
    assert (recipe.lr_img, recipe.iterations, recipe.r_bn, recipe.first_bn) == (0.25, 1000, 0.01, 10)
    assert (recipe.batch_syn, recipe.roll, recipe.roll_back, recipe.crop_and_flip) == (100, 4, False, False)
    assert (recipe.label_epochs, recipe.view, recipe.flip) == (400, "shift", True)
    assert (recipe.mixing, recipe.mixup_alpha) == ("mixup", 0.8)
    judge = recipe.evaluation
    assert (judge.mode, judge.network, judge.norm, judge.epochs, judge.batch_size) == (
        "soft", "resnet18", "batch", 400, 128)  # fmt: skip
    assert (judge.optimizer, judge.lr, judge.weight_decay, judge.schedule) == ("adamw", 1e-3, 0.01, "cosine")
    assert (judge.temperature, judge.temperature_squared, judge.warmup) == (30, False, 0)
    assert (judge.augmentation, judge.mix_p) == ("none", 0)
    assert not is_published(make_recipe("sre2l", "cifar100", 10))
    assert not is_published(make_recipe("sre2l", "cifar10", 50))


@pytest.mark.parametrize("ipc", [50, 100])
def test_tinyimagenet_published_values(ipc):
    recipe = make_recipe("sre2l", "tinyimagenet", ipc)
    assert is_published(recipe)
    assert (recipe.network, recipe.norm, recipe.image_size) == ("resnet18", "batch", 64)
    assert (recipe.squeeze_epochs, recipe.squeeze_batch, recipe.squeeze_warmup) == (50, 256, 5)
    assert (recipe.squeeze_lr, recipe.squeeze_momentum, recipe.squeeze_weight_decay) == (0.2, 0.9, 1e-4)
    assert (recipe.lr_img, recipe.iterations, recipe.r_bn, recipe.first_bn) == (0.1, 4000, 1, 10)
    assert (recipe.batch_syn, recipe.roll, recipe.roll_back, recipe.crop_and_flip) == (100, 4, True, True)
    assert (recipe.label_epochs, recipe.view, recipe.flip) == (100, "resized", True)
    judge = recipe.evaluation
    assert (judge.mode, judge.network, judge.norm, judge.epochs, judge.batch_size) == (
        "soft", "resnet18", "batch", 100, 256)  # fmt: skip
    assert (judge.optimizer, judge.lr, judge.momentum, judge.weight_decay) == ("sgd", 0.2, 0.9, 1e-4)
    assert (judge.temperature, judge.temperature_squared) == (20, True)
    assert (judge.schedule, judge.warmup) == ("cosine", 5)


@pytest.mark.parametrize(("dataset", "warmup"), [("cifar100", 0), ("tinyimagenet", 5)])
def test_the_students_rate_goes_down_a_cosine_and_on_tinyimagenet_rises_before(dataset, warmup, monkeypatch):
    """Five epochs up a straight line from a hundredth, as its teacher's."""
    recipe = make_recipe("sre2l", dataset, 50).evaluation
    small = recipe.model_copy(update={"network": "convnet", "norm": "instance", "depth": 1, "width": 2})
    seen = []
    for optimizer in (torch.optim.SGD, torch.optim.AdamW):
        monkeypatch.setattr(optimizer, "step", lambda self: seen.append(self.param_groups[0]["lr"]))
    list(train_and_test(soft_training(images=2), tiny_dataset(), small, 5, (0,), CPU))
    lr, epochs = recipe.lr, recipe.epochs

    def expected(epoch):
        if epoch < warmup:
            return lr * (0.01 + 0.99 * epoch / warmup)
        return lr * 0.5 * (1 + math.cos(math.pi * (epoch - warmup) / (epochs - warmup)))

    assert seen == pytest.approx([expected(epoch) for epoch in range(epochs)])


def test_a_teacher_without_batch_statistics_is_refused():
    with pytest.raises(InvalidRecipe, match="batch statistics"):
        sre2l_recipe(norm="instance")


def test_digits_are_not_mirrored():
    assert not make_recipe("sre2l", "svhn", 10).flip
    assert not make_recipe("sre2l", "mnist", 10).flip
