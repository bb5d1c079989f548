"""DC, DSA, DM, DREAM on each of them, and DREAM+: the published values, the loops step for step against the reference
in float64, and what is easily got wrong, one by one."""

import math

import pytest
import torch

from dream_core import networks, training
from dream_core.augmentation import draw_one, draw_stack
from dream_core.datasets import Dataset
from dream_core.images import Normalize
from dream_core.methods import matching
from dream_core.methods.pixel_sgd import PixelSGD
from dream_core.networks import ConvNet
from dream_core.objectives import DISTANCES, Matching
from dream_core.randomness import stream
from dream_core.recipes import MatchingRecipe, make_recipe
from dream_core.selection import RandomDraws, RandomWalks, Representatives
from dream_core.synthetic import SyntheticSet
from dream_core.timing import Stopwatch
from tests.dream_core import reference, reference_condensation
from tests.dream_core.reference_condensation import CondenseSettings, Inner, Outer, PlusOuter, SyntheticBatch
from tests.dream_core.test_matching_against_reference import Replay, by_image
from tests.dream_core.tiny import matching_loss, tiny_dataset

CPU = torch.device("cpu")
BASES = ("dc", "dsa", "dm", "idc")

pytestmark = pytest.mark.usefixtures("float64")


def recipe(method: str, ipc: int = 2, **changes) -> MatchingRecipe:
    """The published recipe for a tiny folder: small where time goes, all else as `make_recipe` has it."""
    base = changes.get("base", "idc" if method in ("dream", "dream+") else method)
    small = {"image_size": 8, "depth": 2, "width": 6, "batch_real": 5, "outer_iterations": 2, "clustering": "torch"}
    small |= {
        "dc": {"inner_iterations": 3, "epochs_net": 2, "batch_net": 4},
        "dsa": {"inner_iterations": 3, "epochs_net": 2, "batch_net": 4},
        "dm": {"outer_iterations": 6},
        "idc": {"inner_iterations": 3, "n_data": 12},
    }[base]
    made = make_recipe(method, "folder:tiny", ipc, seed=3, params=small | changes)
    assert isinstance(made, MatchingRecipe)
    return made


def start(made: MatchingRecipe, dataset: Dataset | None = None) -> matching.MatchingLoop:
    return matching.MatchingLoop(made, dataset or tiny_dataset(), CPU)


# ---- the published values


def values(made, names):
    return {name: getattr(made, name) for name in names}


DC = {
    "factor": 1, "space": "normalized", "init": "noise", "selection": "random", "real_order": "independent",
    "objective": "gradient", "metric": "cosine", "matched": "matrices", "batch_real": 256, "batch_net": 256,
    "lr_img": 0.1, "momentum_img": 0.5, "image_step": "joint", "augmentation": "none", "outer_iterations": 1000,
    "network_data": "synthetic", "lr_net": 0.01, "momentum_net": 0.0, "weight_decay_net": 0.0,
    "augmentation_net": "none", "mix_p_net": 0.0, "warmup_epochs": 0.0, "network": "convnet", "depth": 3, "width": 128,
    "norm": "instance",
}  # fmt: skip
DSA = {"dsa": "color_crop_cutout_flip_scale_rotate", "digits": "color_crop_cutout_scale_rotate"}


@pytest.mark.parametrize("dataset", ["mnist", "fashion_mnist", "svhn", "cifar10", "cifar100"])
@pytest.mark.parametrize("ipc", [1, 10, 50])
def test_values_of_dc(dataset, ipc):
    made = make_recipe("dc", dataset, ipc)
    loops = {1: (1, 1), 10: (10, 50), 50: (50, 10)}[ipc]
    assert values(made, DC) == DC
    assert (made.inner_iterations, made.epochs_net) == loops
    assert made.batch_syn_max >= ipc  # all images of the class


@pytest.mark.parametrize(
    ("ipc", "loops"),
    [
        (1, (1, 1)), (10, (10, 50)), (20, (20, 25)), (30, (30, 20)), (40, (40, 15)), (50, (50, 10)), (100, (100, 2)),
        (2, (2, 6)), (5, (5, 23)), (9, (9, 45)), (12, (12, 45)), (16, (16, 35)), (25, (25, 22)), (60, (60, 8)),
        (75, (75, 6)), (101, (100, 2)), (500, (100, 2)),
    ],
)  # fmt: skip
def test_loops_of_dc_by_images_per_class(ipc, loops):
    """As published at seven of them; on straight lines between these."""
    for method in ("dc", "dsa"):
        made = make_recipe(method, "cifar10", ipc)
        assert (made.inner_iterations, made.epochs_net) == loops


@pytest.mark.parametrize(
    ("dataset", "strategy"),
    [("mnist", "digits"), ("svhn", "digits"), ("fashion_mnist", "dsa"), ("cifar10", "dsa"), ("cifar100", "dsa")],
)
def test_values_of_dsa(dataset, strategy):
    """DC, from random real images, with one operator at a time: siamese, and for the network."""
    made = make_recipe("dsa", dataset, 10)
    operators = {"augmentation": DSA[strategy], "augmentation_net": DSA[strategy]}
    expected = DC | operators | {"init": "random", "composition": "one", "inner_iterations": 10, "epochs_net": 50}
    assert values(made, expected) == expected
    assert (made.evaluation.augmentation, made.evaluation.composition) == (DSA[strategy], "one")


@pytest.mark.parametrize(
    ("dataset", "ipc", "rate"),
    [
        ("cifar10", 1, 1.0), ("cifar10", 10, 1.0), ("cifar10", 50, 1.0), ("cifar10", 100, 10.0),
        ("cifar10", 200, 10.0), ("cifar10", 500, 10.0), ("cifar10", 1000, 10.0), ("cifar10", 1250, 10.0),
        ("cifar100", 1, 1.0), ("cifar100", 50, 1.0), ("cifar100", 100, 1.0), ("cifar100", 125, 1.0),
        ("mnist", 10, 1.0), ("tinyimagenet", 10, 1.0),
    ],
)  # fmt: skip
def test_values_of_dm(dataset, ipc, rate):
    made = make_recipe("dm", dataset, ipc)
    expected = {
        "factor": 1, "space": "normalized", "init": "random", "selection": "random", "real_order": "independent",
        "objective": "feature", "metric": "mse", "batch_real": 256, "lr_img": rate, "momentum_img": 0.5,
        "image_step": "joint", "composition": "one", "outer_iterations": 20_000, "inner_iterations": 1,
        "network_data": "none", "warmup_epochs": 0.0, "depth": 4 if dataset == "tinyimagenet" else 3,
        "augmentation": DSA["digits" if dataset == "mnist" else "dsa"],
    }  # fmt: skip
    assert values(made, expected) == expected
    assert made.steps == 20_000
    assert made.batch_syn_max >= ipc


IDC = {
    "factor": 2, "formation": "single", "space": "pixels", "real_order": "cycle", "matched": "convolutions",
    "batch_syn_max": 128, "momentum_img": 0.5, "image_step": "class", "composition": "stack",
    "outer_iterations": 2000, "inner_iterations": 100, "network_data": "real", "lr_net": 0.01, "momentum_net": 0.9,
    "weight_decay_net": 5e-4,
}  # fmt: skip
OF_A_DATASET = {
    "cifar10": ("mse", 2000, (5e-4, 5e-3, 2.5e-2)),
    "cifar100": ("mse", 2000, (5e-4, 5e-3, 2.5e-2)),
    "svhn": ("mse", 500, (5e-4, 5e-3, 2.5e-2)),
    "mnist": ("l1", 500, (1e-5, 1e-4, 5e-4)),
    "fashion_mnist": ("l1", 500, (7.65625e-6, 7.65625e-5, 3.828125e-4)),
    "tinyimagenet": ("mse", 1000, (2e-3, 2e-2, 2e-5)),
}


@pytest.mark.parametrize("dataset", OF_A_DATASET)
@pytest.mark.parametrize("method", ["idc", "dream", "dream+"])
def test_values_of_idc_and_of_what_is_built_on_it(method, dataset):
    metric, n_data, rates = OF_A_DATASET[dataset]
    mnist, tiny = dataset == "mnist", dataset == "tinyimagenet"
    of_method = {
        "idc": {"init": "first", "selection": "random", "objective": "gradient", "warmup_epochs": 0.0},
        "dream": {"init": "representative", "selection": "representative", "objective": "gradient",
                  "warmup_epochs": 0.0, "ranking": "each"},
        "dream+": {"init": "representative", "selection": "representative", "objective": "both", "warmup_epochs": 1.0,
                   "ranking": "closest" if tiny else "each"},
    }[method]  # fmt: skip
    expected = IDC | of_method | {
        "metric": metric, "n_data": n_data, "interval": 10, "per_cluster": 1,
        "batch_real": 64 if tiny or method == "idc" else 128,
        "augmentation": "color_crop" if mnist else "color_crop_cutout", "augmentation_net": "color_crop",
        "mix_p_net": 0.0 if mnist else 0.5,
    }  # fmt: skip
    for ipc, rate in zip((1, 10, 50), rates, strict=True):
        made = make_recipe(method, dataset, ipc)
        assert values(made, expected) == expected
        assert made.lr_img == pytest.approx(rate, rel=1e-12)


@pytest.mark.parametrize("base", ["dc", "dsa", "dm"])
def test_dream_on_a_base_is_that_base_with_other_real_images(base):
    plain, dream = (make_recipe(m, "cifar10", 10, params=p) for m, p in ((base, {}), ("dream", {"base": base})))
    before, after = plain.model_dump(), dream.model_dump()
    assert {name for name in before if before[name] != after[name]} == {"method", "init", "selection"}
    assert (dream.init, dream.selection) == ("representative", "representative")
    assert (dream.batch_real, dream.interval, dream.per_cluster) == (256, 10, 1)


# ---- DC, DSA and DM, step for step


@pytest.fixture
def picked(monkeypatch):
    """The representatives that were chosen, by the key of the choice."""
    chosen, choose = {}, Representatives.__call__

    def spy(self, images, network, count, key, **options):
        chosen[key] = choose(self, images, network, count, key, **options).tolist()
        return torch.tensor(chosen[key])

    monkeypatch.setattr(Representatives, "__call__", spy)
    return chosen


def assert_representative(picks: list[int], weights, images, count: int, seed: int, key) -> None:
    """They are the rows nearest to the reference's centres, in the features of pixels as they are, none twice.

    Both rows of a pair are as near to their centre: which one is taken, rounding may decide.
    """
    assert len(picks) == len(set(picks)) == min(count, len(images))
    if len(images) <= count:
        return
    E = reference.features(weights, images)
    first = torch.randperm(len(images), generator=stream(seed, *key))[:count]
    centers = reference.kmeans_lloyd(E, first.tolist())
    for n, center in enumerate(centers):
        distances = {i: float(((row - center) ** 2).sum()) for i, row in enumerate(E) if i not in picks[:n]}
        assert distances[picks[n]] <= min(distances.values()) + 1e-4


class Condensation:
    """Runs the loop of DC, DSA or DM, and writes down what chance decided, for the reference."""

    def __init__(self, made: MatchingRecipe, dataset: Dataset, picked: dict | None = None):
        self.recipe, self.dataset, self.picked = made, dataset, picked
        self.pixels = dataset.train.images.double() / 255
        self.loop = start(made, dataset)
        self.start = self.loop.synthetic.images.clone()
        self.plan: list[Outer] = []
        self.chosen: dict[int, list[int]] = {}
        self.images, self.weights, self.losses = [], [], []
        for _ in range(made.steps):
            self.step()

    def step(self) -> None:
        loop, made = self.loop, self.recipe
        outer, inner = divmod(loop.step_number, made.inner_iterations)
        if inner == 0:
            self.plan.append(Outer(self.fresh(outer), []))
        self.before = self.weights[-1] if inner else self.plan[-1].weights
        self.losses.append(loop.step().loss)
        matches = [self.match(label, outer, inner) for label in range(loop.classes)]
        self.plan[-1].inner.append(Inner(matches, self.epochs(outer, inner)))
        self.images.append(loop.synthetic.images.clone())
        self.weights.append([w.detach().clone() for w in loop.network.parameters()])

    def fresh(self, outer: int):
        made, loop = self.recipe, self.loop
        generator = stream(made.seed, "network", outer)
        network = networks.matched_network(made, loop.channels, loop.classes, generator, CPU)
        return [w.detach() for w in network.parameters()]

    def of_class(self, label: int):
        first, end = self.dataset.train.offsets[label : label + 2]
        return self.pixels[first:end]

    def match(self, label: int, outer: int, inner: int) -> reference.Match:
        made = self.recipe
        generator = stream(made.seed, "augment", outer, inner, label)
        (draw,) = by_image(draw_one(made.augmentation, 1, made.image_size, generator), 1)
        return reference.Match(self.real(label, outer, inner), draw)

    def real(self, label: int, outer: int, inner: int) -> list[int]:
        made, images = self.recipe, self.of_class(label)
        if made.selection == "random":
            order = torch.randperm(len(images), generator=stream(made.seed, "real", label, outer, inner))
            return order[: made.batch_real].tolist()
        number = outer * made.inner_iterations + inner
        key = ("cluster", outer, inner, label)
        due = (inner if made.inner_iterations >= made.interval else number) % made.interval == 0
        assert due == (key in self.picked)
        if due:
            self.chosen[label] = self.picked[key]
            assert_representative(self.picked[key], self.before, images, made.batch_real, made.seed, key)
        return self.chosen[label]

    def epochs(self, outer: int, inner: int) -> list[reference_condensation.Epoch]:
        made, n = self.recipe, len(self.start)
        if made.network_data == "none" or inner + 1 == made.inner_iterations:
            return []
        key, per_epoch = ("train synthetic", outer, inner), math.ceil(n / made.batch_net)
        epochs = []
        for epoch in range(made.epochs_net):
            order = torch.randperm(n, generator=stream(made.seed, *key, "order", epoch)).tolist()
            batches = [order[i : i + made.batch_net] for i in range(0, n, made.batch_net)]
            draws = [
                draw_one(made.augmentation_net, len(b), made.image_size, stream(made.seed, *key, epoch * per_epoch + i))
                for i, b in enumerate(batches)
            ]
            epochs.append([SyntheticBatch(b, by_image(d, len(b))) for b, d in zip(batches, draws, strict=True)])
        return epochs

    def expected_start(self):
        """Noise, or images of the class, random or representative; normalised."""
        made, dataset, classes = self.recipe, self.dataset, range(self.loop.classes)
        if made.init == "noise":
            return torch.randn(self.start.shape, generator=stream(made.seed, "init"))
        images = []
        for label in classes:
            of_class = self.of_class(label)
            if made.init == "random":
                order = torch.randperm(len(of_class), generator=stream(made.seed, "init", label))
                chosen = order[: made.ipc].tolist()
            else:
                chosen = self.picked["init", label]
                assert_representative(chosen, self.fresh(0), of_class, made.ipc, made.seed, ("init", label))
            images.append(of_class[chosen])
        return reference.normalize(torch.cat(images), dataset.mean, dataset.std)

    def settings(self) -> CondenseSettings:
        made, dataset = self.recipe, self.dataset
        return CondenseSettings(
            made.ipc, made.lr_img, dataset.mean, dataset.std,
            {"cosine": "ours", "cosine_all": "cos"}.get(made.metric, made.metric),
            made.momentum_img, made.lr_net, made.momentum_net, made.weight_decay_net, made.norm == "batch",
        )  # fmt: skip

    def reference(self) -> reference.Trace:
        run = reference_condensation.distribution_match
        if self.recipe.objective == "gradient":
            run = reference_condensation.condense
        return run(self.start, self.pixels, self.dataset.train.labels.tolist(), self.plan, self.settings())[1]


def compare(replay, trace: reference.Trace) -> None:
    """Images, networks and losses after every inner iteration; and that they did move."""
    for step, (ours, theirs) in enumerate(zip(replay.images, trace.images, strict=True)):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-8, msg=f"images after step {step}")
        for a, b in zip(replay.weights[step], trace.weights[step], strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-8, msg=f"network after step {step}")
        assert replay.losses[step] == pytest.approx(sum(trace.losses[step]) / len(trace.losses[step]), rel=1e-8)
    assert (replay.images[-1] - replay.start).abs().max() > 1e-4


CASES = {
    "dc": ("dc", {}),
    "dc mse": ("dc", {"metric": "mse", "matched": "all"}),
    "dc cos": ("dc", {"metric": "cosine_all", "matched": "all"}),
    "dc, other optimisers": ("dc", {"momentum_img": 0.9, "lr_net": 0.1, "momentum_net": 0.9, "weight_decay_net": 0.1}),
    "dc, one image, one iteration": ("dc", {"ipc": 1, "inner_iterations": 1, "outer_iterations": 3}),
    "dsa": ("dsa", {"inner_iterations": 4}),
    "dm": ("dm", {}),
    "dm, no momentum": ("dm", {"momentum_img": 0.0}),
    "dm, batch norm": ("dm", {"norm": "batch"}),
    "dream on dc": ("dream", {"base": "dc", "interval": 3, "inner_iterations": 2, "outer_iterations": 3}),
    "dream on dsa": ("dream", {"base": "dsa", "interval": 2}),
    "dream on dm": ("dream", {"base": "dm", "interval": 3, "outer_iterations": 5}),
}


@pytest.mark.parametrize("case", CASES)
def test_step_for_step(case, picked):
    method, changes = CASES[case]
    replay = Condensation(recipe(method, **changes), tiny_dataset(), picked)
    torch.testing.assert_close(replay.start, replay.expected_start(), rtol=0, atol=1e-12)
    compare(replay, replay.reference())
    used = {batch.images[0] for o in replay.plan for i in o.inner for epoch in i.epochs for batch in epoch}
    assert bool(used) == (replay.recipe.network_data == "synthetic" and replay.recipe.inner_iterations > 1)
    if case == "dsa":  # every operator, in matching and in training, one at a time
        inner = [i for o in replay.plan for i in o.inner]
        in_matching = [match.draw for i in inner for match in i.matches]
        in_training = [draw for i in inner for epoch in i.epochs for batch in epoch for draw in batch.draws]
        for draws in (in_matching, in_training):
            assert {len(draw) for draw in draws} == {1}
            assert {draw[0][0] for draw in draws} == {"color", "crop", "cutout", "flip", "scale", "rotate"}
    assert {key[1:3] for key in picked if key[0] == "cluster"} == {
        "dream on dc": {(0, 0), (1, 1)},  # networks live shorter than the interval
        "dream on dsa": {(0, 0), (0, 2), (1, 0), (1, 2)},
        "dream on dm": {(0, 0), (3, 0)},
    }.get(case, set())


# ---- DC with other normalisations: the reference's loop once more, with a network that keeps something


class LayerNorm:
    """Channels and pixels of an image normalised together; scale and shift are [C, h, w]."""

    def calibrate(self, weights, images):
        pass

    def matched(self, weights, x):
        for block in range((len(weights) - 2) // 4):
            w, b, gamma, beta = weights[4 * block : 4 * block + 4]
            x = torch.nn.functional.conv2d(x, w, b, padding=1)
            mean = x.mean((1, 2, 3), keepdim=True)
            x = (x - mean) / torch.sqrt(((x - mean) ** 2).mean((1, 2, 3), keepdim=True) + 1e-5) * gamma + beta
            x = torch.where(x > 0, x, torch.zeros_like(x))
            x = (x[:, :, ::2, ::2] + x[:, :, 1::2, ::2] + x[:, :, ::2, 1::2] + x[:, :, 1::2, 1::2]) / 4
        return x.reshape(len(x), -1) @ weights[-2].T + weights[-1]

    trained = matched


class BatchNorm:
    """Statistics are those of real images while matching, and of the batch at hand while training."""

    def __init__(self):
        self.running = None

    def calibrate(self, weights, images):
        self.running = reference_condensation.bn_statistics(weights, images, running=self.running)

    def matched(self, weights, x):
        return reference_condensation.bn_logits(weights, x, self.running)

    def trained(self, weights, x):
        scores = reference_condensation.bn_logits(weights, x, None)
        self.calibrate(weights, x)
        return scores


def condense_with(kind, replay: Condensation) -> tuple[reference.Trace, list]:
    """As `reference_condensation.condense`, for a network of its own kind; and what that one ended with."""
    settings, labels = replay.settings(), replay.dataset.train.labels.tolist()
    S, trace, kept = replay.start, reference.Trace(), []
    velocity = torch.zeros_like(S)
    for number, outer in enumerate(replay.plan):
        network, weights = kind(), [w.clone().requires_grad_() for w in outer.weights]
        net_velocity = [torch.zeros_like(w) for w in weights]
        for step, inner in enumerate(outer.inner):
            some = []
            for label in range(replay.loop.classes):
                of_class = replay.of_class(label)
                generator = stream(replay.recipe.seed, "calibrate", number, step, label)
                some.append(of_class[torch.randperm(len(of_class), generator=generator)[:16]])
            network.calibrate(weights, reference.normalize(torch.cat(some), settings.mean, settings.std))
            variable = S.clone().requires_grad_()
            losses = reference_condensation.condense_losses(
                variable, replay.pixels, labels, weights, inner.matches, settings, network.matched
            )
            (gradient,) = torch.autograd.grad(torch.stack(losses).sum(), [variable])
            S, velocity = reference.image_sgd(S, velocity, gradient, settings.lr_img, settings.momentum_img)
            for batch in [batch for epoch in inner.epochs for batch in epoch]:
                scores = network.trained(weights, S[batch.images])
                loss = reference.cross_entropy(scores, [i // settings.ipc for i in batch.images])
                weights, net_velocity = reference.network_sgd(
                    weights, net_velocity, loss, lr=settings.lr_net, momentum=settings.momentum_net, decay=0.0
                )
            trace.images.append(S)
            trace.weights.append([w.detach() for w in weights])
            trace.losses.append([loss.item() for loss in losses])
        kept.append(network)
    return trace, kept


def test_layer_norm_counts_by_channels_in_dc():
    """Its scale has three dimensions, so that DC takes its gradient row by row."""
    replay = Condensation(recipe("dc", norm="layer"), tiny_dataset())
    assert [len(w.shape) for w in replay.plan[0].weights] == [4, 1, 3, 3, 4, 1, 3, 3, 2, 1]
    compare(replay, condense_with(LayerNorm, replay)[0])


def test_batch_norm_in_dc_is_set_by_real_images_and_held():
    replay = Condensation(recipe("dc", norm="batch"), tiny_dataset(counts=(20, 19, 18)))
    trace, networks_used = condense_with(BatchNorm, replay)
    compare(replay, trace)
    norms = [m for m in replay.loop.network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for norm, (mean, variance) in zip(norms, networks_used[-1].running, strict=True):
        torch.testing.assert_close(norm.running_mean, mean, rtol=0, atol=1e-8)
        torch.testing.assert_close(norm.running_var, variance, rtol=0, atol=1e-8)


# ---- IDC's third distance, and DREAM+


def mean_absolute_difference(metric, real, synthetic):
    """Over the convolutions, and in them over the first dimension: the mean of the absolute differences."""
    assert metric == "l1_mean"
    pairs = [(a, b) for a, b in zip(real, synthetic, strict=True) if a.dim() == 4]
    return sum((a[i] - b[i]).abs().sum() / a[i].numel() for a, b in pairs for i in range(len(a)))


def test_l1_mean_step_for_step(monkeypatch):
    monkeypatch.setattr(reference, "match_distance", mean_absolute_difference)
    replay = Replay(recipe("idc", metric="l1_mean", lr_img=5.0), tiny_dataset())
    compare(replay, replay.reference())


class PlusReplay(Replay):
    """The same for DREAM+, whose networks are warmed up."""

    def __init__(self, made: MatchingRecipe, dataset: Dataset, picked: dict):
        self.picked, self.chosen = picked, {}
        super().__init__(made, dataset)

    def step(self) -> None:
        loop, made = self.loop, self.recipe
        outer, inner = divmod(loop.step_number, made.inner_iterations)
        taken = loop.batches_taken if loop.step_number else 0
        losses = loop.step().loss
        minibatches = [self.minibatch(number) for number in range(taken, loop.batches_taken)]
        if inner == 0:
            seen, warmup = 0, []
            while seen < made.warmup_epochs * len(self.dataset.train):
                warmup.append(minibatches.pop(0))
                seen += len(warmup[-1].images)
            network = networks.matched_network(
                made, loop.channels, loop.classes, stream(made.seed, "network", outer), CPU
            )
            self.plan.append(PlusOuter([w.detach() for w in network.parameters()], [], warmup))
            self.before = self.warm(self.plan[-1])
        matches = [self.match(label, outer, inner) for label in range(loop.classes)]
        self.plan[-1].inner.append(reference.Inner(matches, minibatches))
        self.images.append(loop.synthetic.images.clone())
        self.weights.append([w.detach().clone() for w in loop.network.parameters()])
        self.losses.append(losses)
        self.before = self.weights[-1]

    def warm(self, outer: PlusOuter):
        """A fresh network after its warm-up."""
        weights, labels = [w.clone().requires_grad_() for w in outer.weights], self.dataset.train.labels.tolist()
        velocity, images = [torch.zeros_like(w) for w in weights], self.dataset.train.images.double() / 255
        for batch in outer.warmup:
            weights, velocity = reference.network_step(
                weights, velocity, images, labels, batch, settings=self.settings()
            )
        return [w.detach() for w in weights]

    def match(self, label: int, outer: int, inner: int) -> reference.Match:
        made, key = self.recipe, (outer, inner, label)
        if inner % made.interval == 0:
            images, choice = self.dataset.train.of_class(label).double() / 255, ("cluster", *key)
            self.chosen[label] = self.picked[choice]
            assert_representative(self.chosen[label], self.before, images, made.batch_real, made.seed, choice)
        draw = draw_stack(made.augmentation, 1, made.image_size, stream(made.seed, "augment", *key))
        return reference.Match(self.chosen[label], by_image(draw, 1)[0])

    def settings(self) -> reference.Settings:
        made, dataset = self.recipe, self.dataset
        return reference.Settings(made.ipc, made.factor, made.lr_img, made.metric, dataset.mean, dataset.std)

    def reference(self) -> reference.Trace:
        images, labels = self.dataset.train.images.double() / 255, self.dataset.train.labels.tolist()
        return reference_condensation.dream_plus(self.start, images, labels, self.plan, self.settings())[1]


@pytest.mark.parametrize(
    "changes",
    [
        {"metric": "mse", "lr_img": 5e-3},
        {"metric": "l1", "lr_img": 1e-4, "factor": 1},
        {"metric": "mse", "warmup_epochs": 0.5, "lr_img": 1.0},
    ],
    ids=["mse", "l1", "half an epoch, steps that leave [0, 1]"],
)
def test_dream_plus_step_for_step(changes, picked):
    """Features and gradients in one loss; the images of the start come from a network that was warmed up, too."""
    made = recipe("dream+", **({"interval": 2, "inner_iterations": 3} | changes))
    replay = PlusReplay(made, tiny_dataset(), picked)
    assert all(outer.warmup for outer in replay.plan)
    warm = replay.warm(replay.plan[0])
    for label in range(3):
        images, key = replay.dataset.train.of_class(label).double() / 255, ("init", label)
        assert_representative(picked[key], warm, images, made.ipc * made.factor**2, made.seed, key)
        expected = reference.init_mix(images[picked[key]], made.ipc, made.factor)
        torch.testing.assert_close(replay.start[label * made.ipc : (label + 1) * made.ipc], expected)
    compare(replay, replay.reference())


def test_the_closest_of_all_images_whatever_their_cluster():
    """DREAM+ on TinyImageNet: as many clusters as images, then those with the smallest distance to a centre."""
    made, dataset = recipe("dream+", ranking="closest"), tiny_dataset(counts=(40, 30, 20))
    network = networks.matched_network(made, 3, 3, stream(0, "network"), CPU)
    select = Representatives(made, "torch", Normalize(dataset.mean, dataset.std), CPU, Stopwatch(CPU))
    images = dataset.train.of_class(0)
    E = reference.features([w.detach() for w in network.parameters()], images.double() / 255)
    first = torch.randperm(40, generator=stream(made.seed, "x"))[:12].tolist()
    centers = reference.kmeans_lloyd(E, first)
    distance = [min(float(((row - center) ** 2).sum()) for center in centers) for row in E]
    expected = sorted(range(40), key=lambda i: distance[i])[:12]
    assert sorted(select(images, network, 12, ("x",)).tolist()) == sorted(expected)


# ---- what is easily got wrong


@pytest.fixture
def shown(monkeypatch):
    """What the objective was shown: (real, synthetic) of every class and step."""
    batches, match = [], Matching.match

    def spy(self, real, synthetic, label):
        batches.append((real, synthetic.detach()))
        return match(self, real, synthetic, label)

    monkeypatch.setattr(Matching, "match", spy)
    return batches


@pytest.fixture
def drawn(monkeypatch):
    """What augmentations were applied: in matching, and in training with the number of images."""
    in_matching, in_training = [], []

    def spy(record, apply):
        def augment(x, draw):
            record.append((draw, len(x)))
            return apply(x, draw)

        return augment

    monkeypatch.setattr(matching, "augment", spy(in_matching, matching.augment))
    monkeypatch.setattr(training, "augment", spy(in_training, training.augment))
    return in_matching, in_training


@pytest.fixture
def trained(monkeypatch):
    """The steps that networks were trained by: inputs, labels, optimiser, and whether that one had a past."""
    steps, step = [], training.training_step

    def spy(network, optimizer, images, labels, how, generator):
        past = any("momentum_buffer" in state for state in optimizer.state.values())
        steps.append((images.clone(), labels.clone(), optimizer, past))
        return step(network, optimizer, images, labels, how, generator)

    monkeypatch.setattr(matching, "training_step", spy)
    monkeypatch.setattr(training, "training_step", spy)
    return steps


@pytest.mark.parametrize("method", ["dsa", "dm", "idc", "dream+"])
def test_real_and_synthetic_images_get_one_augmentation_another_for_every_class_and_step(method, shown, drawn):
    """The synthetic images are the real ones here, and still are after it."""
    made = recipe(method, ipc=4, factor=1, batch_real=4, lr_img=1e-12)
    loop = start(made, tiny_dataset(counts=(4, 4, 4)))
    for _ in range(made.steps):
        loop.step()
    assert len(shown) == 3 * made.steps
    for real, synthetic in shown:
        torch.testing.assert_close(real.sum(0), synthetic.sum(0), rtol=0, atol=1e-6)
        torch.testing.assert_close(real.square().sum(0), synthetic.square().sum(0), rtol=0, atol=1e-6)
    draws = [str(draw) for draw, _ in drawn[0]]
    assert draws[::2] == draws[1::2]
    of_class = [draws[2 * label :: 6] for label in range(3)]
    assert all(len(set(d)) > 0.7 * len(d) for d in [*of_class, draws[::2]])  # (two flips can be alike)


def test_dsa_takes_one_operator_idc_one_of_each_kind(drawn):
    in_matching, in_training = drawn
    for made in (recipe("dsa"), recipe("dm"), recipe("dream", base="dsa")):
        loop = start(made)
        for _ in range(made.steps):
            loop.step()
    assert {len(draw) for draw, _ in in_matching + in_training} == {1}
    assert all(len(draw[0][1]) == 1 for draw, _ in in_matching)  # one row for all
    assert all(len(draw[0][1]) == n for draw, n in in_training)  # one for each image
    assert {draw[0][0] for draw, _ in in_matching} == set(DSA["dsa"].split("_"))
    in_matching.clear()
    in_training.clear()
    start(recipe("idc")).step()
    assert {tuple(name for name, _ in draw) for draw, _ in in_matching} == {("color", "crop", "cutout")}
    assert {tuple(name for name, _ in draw) for draw, _ in in_training} == {("color", "crop")}
    in_matching.clear()
    in_training.clear()
    start(recipe("dc")).step()
    assert {len(draw) for draw, _ in in_matching + in_training} == {0}


@pytest.mark.parametrize("method", ["dsa", "dm", "idc", "dream+"])
def test_what_augmentation_cuts_away_is_the_mean_colour(method, shown):
    """Zero of normalised images: they are normalised first."""
    start(recipe(method, augmentation="cutout")).step()
    for real, synthetic in shown:
        hole = (torch.cat([real, synthetic]) == 0).all(0).all(0)
        assert 4 <= hole.sum() <= 16  # a quarter of the square at the least, where it lies in a corner
        both = torch.cat([real, synthetic])[:, :, ~hole]
        assert (both == 0).double().mean() < 0.1


@pytest.mark.parametrize("objective", ["gradient", "feature", "both"])
@pytest.mark.parametrize("matched", ["convolutions", "matrices", "all"])
def test_repeating_a_batch_changes_nothing(objective, matched):
    """Both cross-entropies and both features are means: 256 real images match 10 synthetic ones."""
    torch.manual_seed(0)
    network = ConvNet(3, 4, 8, depth=2, width=5)
    real, synthetic = torch.randn(4, 3, 8, 8), torch.randn(2, 3, 8, 8)
    for metric in DISTANCES:
        find = Matching(network, objective, metric, matched)
        once = matching_loss(find, real, synthetic, 1)
        torch.testing.assert_close(matching_loss(find, real, torch.cat([synthetic] * 3), 1), once)
        torch.testing.assert_close(matching_loss(find, torch.cat([real] * 2), synthetic, 1), once)
        assert once > 0.01


def test_real_images_that_are_three_times_the_synthetic_ones_match_them():
    dataset = tiny_dataset(counts=(12, 12, 12))
    for label in range(3):
        images = dataset.train.of_class(label)
        images.copy_(images[:4].repeat(3, 1, 1, 1))
    changes = {"ipc": 4, "factor": 1, "batch_real": 12, "init": "first"}
    for method, more in (("dc", {"metric": "mse", "matched": "all"}), ("dm", {}), ("dream+", {}), ("idc", {})):
        assert start(recipe(method, **changes, **more), dataset).step().loss < 1e-20


def test_what_is_matched():
    """DC: weights with rows, the classifier's too; IDC: convolutions; `all`: biases and norms as well."""
    network = ConvNet(3, 4, 8, depth=2, width=5)
    shapes = {
        matched: [tuple(w.shape) for w in Matching(network, "gradient", "mse", matched).weights]
        for matched in ("convolutions", "matrices", "all")
    }
    assert shapes["convolutions"] == [(5, 3, 3, 3), (5, 5, 3, 3)]
    assert shapes["matrices"] == [(5, 3, 3, 3), (5, 5, 3, 3), (4, 20)]
    block = [(5,), (5,), (5,)]
    assert shapes["all"] == [(5, 3, 3, 3), *block, (5, 5, 3, 3), *block, (4, 20), (4,)]
    for method, expected in (
        ("dc", "matrices"),
        ("dsa", "matrices"),
        ("idc", "convolutions"),
        ("dream+", "convolutions"),
    ):
        loop = start(recipe(method))
        least = {"matrices": 2, "convolutions": 3}[expected]
        assert [w.dim() for w in loop.objective.weights] == [
            p.dim() for p in loop.network.parameters() if p.dim() >= least
        ]


def test_distances_are_sums_and_dcs_is_row_by_row():
    """Longer rows count no less, tensors of one dimension count nothing in the row-wise cosine."""
    a = [torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.tensor([[[[1.0]], [[1.0]]]]), torch.tensor([1.0, 5.0])]
    b = [torch.tensor([[4.0, 3.0], [-2.0, 0.0]]), torch.tensor([[[[0.0]], [[2.0]]]]), torch.tensor([2.0, -2.0])]
    found = {metric: float(distance(a, b)) for metric, distance in DISTANCES.items()}
    assert found["mse"] == (1 + 1 + 9) + (1 + 1) + (1 + 49)
    assert found["l1"] == (1 + 1 + 3) + (1 + 1) + (1 + 7)
    assert found["l1_mean"] == (1 + 3 / 2) + 1 + (1 + 7)
    assert found["cosine"] == pytest.approx((1 - 24 / 25) + 2 + (1 - 1 / math.sqrt(2)), abs=1e-5)
    everything = 12 + 12 - 2 + 2 + 2 - 10
    assert found["cosine_all"] == pytest.approx(1 - everything / math.sqrt((26 + 2 + 26) * (25 + 4 + 4 + 8)), abs=1e-5)


@pytest.mark.parametrize("method", ["dc", "dsa", "dm", "dream on dc"])
def test_normalised_images_are_never_clamped(method):
    """Not when they are made, not when a network is new, not when they are read out."""
    method, _, base = method.partition(" on ")
    changes = ({"base": base} if base else {}) | ({"inner_iterations": 1} if "dm" not in (method, base) else {})
    loop = start(recipe(method, lr_img=1e-12, outer_iterations=3, init="noise", **changes))
    before = loop.synthetic.images.clone()
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (loop.dataset.mean, loop.dataset.std))
    pixels = before * std + mean
    assert pixels.min() < -0.1
    assert pixels.max() > 1.1
    for _ in range(3):
        loop.step()
    torch.testing.assert_close(loop.synthetic.images, before, rtol=0, atol=1e-6)
    torch.testing.assert_close(loop.synthetic.decoded()[0], pixels, rtol=0, atol=1e-6)


@pytest.mark.parametrize("method", ["dc", "dsa"])
def test_dcs_network_learns_from_synthetic_images_as_they_have_become(method, trained):
    """After all classes' steps, by plain SGD, in whole epochs, and not after the last inner iteration."""
    made = recipe(method, lr_img=1.0)
    loop = start(made)
    for inner in range(3):
        before = loop.synthetic.images.clone()
        loop.step()
        if inner == 2:
            assert trained == []
            break
        assert [len(images) for images, _, _, _ in trained] == [4, 2, 4, 2]
        for images, labels in ((trained[i][0], trained[i][1]) for i in range(4)):
            found = (images[:, None] == loop.synthetic.images).flatten(2).all(2).nonzero()
            assert found[:, 0].tolist() == list(range(len(images)))
            assert (found[:, 1] // made.ipc).tolist() == labels.tolist()
            assert not (images[:, None] == before).flatten(2).all(2).any()
        seen = torch.cat([images for images, _, _, _ in trained[:2]])
        assert len(seen.flatten(1).unique(dim=0)) == 6
        (group,) = trained[0][2].param_groups
        assert (group["lr"], group["momentum"], group["weight_decay"], group["nesterov"]) == (0.01, 0, 0, False)
        trained.clear()


@pytest.mark.parametrize("method", ["idc", "dream", "dream+"])
def test_idcs_network_learns_from_real_images_once_the_synthetic_ones_have_moved(method, trained, monkeypatch):
    dataset = tiny_dataset()
    loop = start(recipe(method, lr_img=1.0), dataset)
    trained.clear()  # of the warm-up
    before, at_training = loop.synthetic.images.clone(), []
    train = loop.train_on_real
    monkeypatch.setattr(loop, "train_on_real", lambda n: [at_training.append(loop.synthetic.images.clone()), train(n)])
    loop.step()
    assert torch.equal(at_training[0], loop.synthetic.images)
    assert all((at_training[0] != before).view(3, -1).any(1))
    real = reference.normalize(dataset.train.images.double() / 255, dataset.mean, dataset.std)
    assert sum(len(images) for images, _, _, _ in trained) >= 12
    for images, labels, optimizer, _ in trained:
        distance = (images[:, None] - real).abs().flatten(2).amax(2)
        assert distance.min(1).values.max() < 1e-12
        assert dataset.train.labels[distance.argmin(1)].tolist() == labels.tolist()
        (group,) = optimizer.param_groups
        assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.01, 0.9, 5e-4)


@pytest.mark.parametrize("method", ["dc", "dsa", "idc", "dream+", "dream on dc"])
def test_every_network_is_fresh_and_so_is_its_optimiser_the_images_is_not(method, trained):
    method, _, base = method.partition(" on ")
    made = recipe(method, momentum_net=0.9, **({"base": base} if base else {}))
    loop = start(made)
    first, optimisers = [], []
    for number in range(made.steps):
        new = number % made.inner_iterations == 0
        if new and number:
            trained.clear()
        momentum = loop.image_sgd.momentum_buffer
        kept = momentum.abs().sum()
        assert bool(kept > 0) == (number > 0)
        loop.step()
        assert loop.image_sgd.momentum_buffer is momentum
        if new:
            assert [past for *_, past in trained] == [False] + [True] * (len(trained) - 1)
            optimisers.append(trained[0][2])
            first.append(loop.network)
    assert len(set(map(id, first))) == len(set(map(id, optimisers))) == 2


def test_dm_has_a_fresh_network_for_every_iteration_and_never_trains_it(trained):
    made = recipe("dm")
    loop = start(made)
    for outer in range(made.steps):
        loop.step()
        fresh = networks.matched_network(made, 3, 3, stream(made.seed, "network", outer), CPU)
        for a, b in zip(loop.network.parameters(), fresh.parameters(), strict=True):
            assert torch.equal(a, b)
    assert trained == []
    made = recipe("dm", inner_iterations=2)  # asked for: kept, and still not trained
    loop = start(made)
    used = loop.network
    loop.step()
    loop.step()
    assert loop.network is used
    assert trained == []


def test_dm_is_the_squared_distance_of_mean_features():
    """Before the classifier, means first, summed over dimensions."""
    torch.manual_seed(0)
    network = ConvNet(3, 4, 8, depth=2, width=5)
    find = Matching(network, "feature", "mse", "convolutions")
    real, synthetic = torch.randn(4, 3, 8, 8), torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        loss = matching_loss(find, real, synthetic, 1)
        a, b = (sum(network.embed(image[None])[0] for image in batch) / len(batch) for batch in (real, synthetic))
        assert loss.item() == pytest.approx(sum((x - y) ** 2 for x, y in zip(a.tolist(), b.tolist(), strict=True)))
        assert matching_loss(find, real, synthetic, 3) == loss  # whatever the class
        network.classifier.weight.zero_()
        assert matching_loss(find, real, synthetic, 1) == loss


@pytest.mark.parametrize(("method", "passes"), [("dc", 1), ("dsa", 1)])
def test_matching_leaves_the_statistics_of_batch_norm_alone(method, passes, monkeypatch):
    """One pass of real images of all classes sets them; the batches of single classes do not move them."""
    loop = start(recipe(method, norm="batch", inner_iterations=1), tiny_dataset(counts=(20, 19, 18)))
    norms = [m for m in loop.network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    before, sizes, calibrate, network = [], [], loop.calibrate, loop.network

    def spy(outer, inner):
        handle = network.register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
        calibrate(outer, inner)
        handle.remove()
        before.extend(norm.running_mean.clone() for norm in norms)

    monkeypatch.setattr(loop, "calibrate", spy)
    loop.step()
    assert sizes == [3 * 16]
    assert [int(norm.num_batches_tracked) for norm in norms] == [passes, passes]
    assert all(torch.equal(norm.running_mean, mean) for norm, mean in zip(norms, before, strict=True))
    assert all(mean.abs().max() > 0 for mean in before)


def test_dm_shows_batch_norm_all_classes_together():
    """In one pass of real images and one of synthetic ones."""
    loop = start(recipe("dm", norm="batch"))
    sizes = []
    loop.network.features.register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    loop.step()
    assert sizes == [3 * 5, 3 * 2]


def test_joint_steps_are_those_of_one_optimiser():
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(6, 2, 3, 3, generator=generator)
    whole = images.clone().requires_grad_()
    sgd = torch.optim.SGD([whole], lr=0.3, momentum=0.5)
    jointly = PixelSGD(SyntheticSet(images, classes=3, ipc=2), lr=0.3, momentum=0.5, joint=True)
    for _ in range(4):
        whole.grad = torch.randn(6, 2, 3, 3, generator=generator)
        for label in range(3):
            torch.testing.assert_close(jointly.at_turn(label).detach(), images[2 * label : 2 * label + 2])
            jointly.step(label, whole.grad[2 * label : 2 * label + 2])
        sgd.step()
    torch.testing.assert_close(images, whole.detach(), rtol=0, atol=1e-12)


def test_real_batches_are_drawn_anew_or_walked_through():
    """DC, DSA, DM: random images, none twice in a batch, of a small class all; IDC goes round."""
    dataset = tiny_dataset(counts=(14, 11, 4))
    for method in ("dc", "dsa", "dm"):
        loop = start(recipe(method, ipc=1), dataset)
        assert isinstance(loop.selection, RandomDraws)
        batches = [loop.selection.batch(0, loop.network, outer, inner) for outer in range(4) for inner in range(3)]
        assert all(len(set(batch.tolist())) == 5 for batch in batches)
        assert len({str(sorted(batch.tolist())) for batch in batches}) == 12
        assert set(torch.cat(batches).tolist()) == set(range(14))
        assert sorted(loop.selection.batch(2, loop.network, 0, 0).tolist()) == [0, 1, 2, 3]
    assert isinstance(start(recipe("idc", ipc=1), dataset).selection, RandomWalks)


# ---- DREAM's two parts, each for itself


@pytest.fixture
def taken(monkeypatch):
    """The real images of every class and step."""
    chosen, inputs = [], matching.MatchingLoop.inputs

    def spy(self, label, indices, *rest):
        chosen.append(indices.tolist())
        return inputs(self, label, indices, *rest)

    monkeypatch.setattr(matching.MatchingLoop, "inputs", spy)
    return chosen


def whole_run(made, taken):
    taken.clear()
    loop = start(made)
    begun = loop.synthetic.images.clone()
    losses = [loop.step().loss for _ in range(made.steps)]
    return begun, list(taken), losses, loop.synthetic.images


@pytest.mark.parametrize("base", BASES)
def test_dreams_parts_switch_alone(base, taken):
    """The start, the selection, both, none; and DREAM without either is its base, bit for bit."""
    plain = whole_run(recipe(base), taken)
    off = {"init": recipe(base).init, "selection": "random"}
    parts = {
        "none": off,
        "start": off | {"init": "representative"},
        "selection": off | {"selection": "representative"},
        "both": {},
    }
    runs = {part: whole_run(recipe("dream", base=base, **changes), taken) for part, changes in parts.items()}
    begun, chosen, losses, images = zip(*(runs[part] for part in parts), strict=True)
    assert torch.equal(plain[3], images[0])
    assert plain[1:3] == (chosen[0], losses[0])
    assert torch.equal(begun[0], begun[2])
    assert torch.equal(begun[1], begun[3])
    assert not torch.equal(begun[0], begun[1])
    assert chosen[0] == chosen[1]
    assert chosen[2][:3] == chosen[3][:3]  # the first network is the same, and so are its representatives
    assert chosen[0][:3] != chosen[2][:3]
    assert len({str(final.tolist()) for final in images}) == 4
