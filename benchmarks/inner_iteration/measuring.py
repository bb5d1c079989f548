"""Measures one inner iteration by part: the loop of dream_core, then the plain one on the same images and draws."""

import logging
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.inner_iteration.clock import (
    Clock,
    Meter,
    Operations,
    TooLong,
    at_most,
    convolution_peak,
    matrix_peak,
    peak_bytes,
)
from benchmarks.inner_iteration.plain import Plain, kmeans, representatives
from dream_core.augmentation import augment
from dream_core.computing import PLAIN, has_bfloat16
from dream_core.datasets import Dataset
from dream_core.evaluation import train_and_test
from dream_core.images import to_unit
from dream_core.methods.matching import MatchingLoop
from dream_core.objectives import Matching
from dream_core.randomness import derive, stream
from dream_core.recipes import MatchingRecipe
from dream_core.selection import embed
from dream_core.training import DRAWS, fetcher

log = logging.getLogger(__name__)

WAYS = {
    "as written": {"compiled": "off", "precision": "float32"},
    "as written, in bfloat16": {"compiled": "off", "precision": "bfloat16"},
    "compiled": {"compiled": "on", "precision": "float32"},
    "compiled, in bfloat16": {"compiled": "on", "precision": "bfloat16"},
}
OUTER, INNER = 0, 1
"""The iteration that is measured: the network is fresh, and the representatives are those of iteration 0."""


@dataclass(frozen=True, slots=True)
class Amount:
    """How much is measured of what an iteration does; the rest is taken to be proportional.

    `classes` are matched, embedded and clustered; the network is trained on `minibatches`. All is done `repeats`
    times, and the fastest counts; but embedding and k-means are done once, and with `plain_once` all that is plain. The
    dataset holds a `share` of the images that would be embedded and clustered. `evaluation` says whether an
    evaluation's epochs are measured, `ways` whether the loop is measured in all ways of computing. Where compiling
    takes longer than `compile_s` seconds, the loop is measured without.
    """

    classes: int
    minibatches: int
    repeats: int
    share: float = 1.0
    plain_once: bool = False
    evaluation: bool = True
    ways: bool = False
    compile_s: float | None = None


@dataclass(slots=True)
class Side:
    """Of one implementation: seconds of a whole inner iteration by part (embedding and k-means: when they are due),
    the peak memory until it was done, and what it computed."""

    seconds: dict[str, float]
    peak_bytes: int
    chosen: list[Tensor]
    gradients: list[Tensor]
    weights: list[Tensor]


def measure(recipe: MatchingRecipe, dataset: Dataset, device: torch.device, amount: Amount) -> dict[str, Any]:
    """Measure both, and compare what they compute. `recipe` is one of DREAM on IDC, with a ConvNet."""
    recipe = recipe.model_copy(update={"init": "random"})  # which takes seconds less, and changes no other figure
    amount = replace(amount, classes=min(amount.classes, len(dataset.class_names)))
    clock = Clock(device)
    with clock("first"):
        loop = warmed_up(recipe, dataset, device, amount.compile_s)
    plain = Plain(recipe, dataset, list(loop.network.parameters()), loop.synthetic.images)
    computing = asdict(loop.computing)
    fast = measure_loop(loop, amount)
    reference = measure_plain(plain, fast.chosen, amount)
    operations = count_operations(loop, fast.chosen[0], amount)
    fast_s, reference_s = (inner_iteration(recipe, side.seconds) for side in (fast, reference))
    return {
        "fast_s": fast_s,
        "reference_s": reference_s,
        "ratio": reference_s / fast_s,
        "measured": measured(recipe, len(dataset.class_names), amount),
        "gflops": {part: count / fast.seconds[part] / 1e9 for part, count in operations.items()},
        "reference_gflops": {
            part: count / reference.seconds[part] / 1e9
            for part, count in operations.items()
            if part in reference.seconds
        },
        "computing": computing,
        "first_s": clock.seconds["first"],
        "seconds": fast.seconds,
        "reference_seconds": reference.seconds,
        "peak_bytes": fast.peak_bytes,
        "reference_peak_bytes": reference.peak_bytes,
        "agreement": agreement(fast, reference),
        "ways": measure_ways(recipe, dataset, device, amount) if amount.ways and computing["compiled"] else {},
    }


def measure_ways(
    recipe: MatchingRecipe, dataset: Dataset, device: torch.device, amount: Amount
) -> dict[str, dict[str, float]]:
    """Seconds by part of the loop as it is written, compiled, and in bfloat16 as well."""
    ways = {}
    for name, how in WAYS.items():
        loop = warmed_up(recipe.model_copy(update=how), dataset, device)
        seconds = measure_loop(loop, amount).seconds
        ways[name] = seconds | {"inner iteration": inner_iteration(recipe, seconds)}
    return ways


def peaks(recipe: MatchingRecipe, device: torch.device) -> dict[str, Any]:
    """The most that the machine does of what an iteration consists of, in GFLOP/s."""
    convolution = convolution_peak(device, recipe.width, recipe.image_size // 2)
    return {"peak_gflops": {"matrix": matrix_peak(device), "convolution": convolution}}


def inner_iteration(recipe: MatchingRecipe, seconds: dict[str, float]) -> float:
    """Seconds of an inner iteration on average: clustering is due once in an `interval`."""
    return seconds["matching"] + seconds["network"] + (seconds["embedding"] + seconds["kmeans"]) / recipe.interval


def measured(recipe: MatchingRecipe, classes: int, amount: Amount) -> str:
    """What was measured and what is extrapolated, in words."""
    once = "all that is plain, embedding and k-means" if amount.plain_once else "embedding and k-means"
    return (
        f"{amount.classes} of {classes} classes, {amount.share:.0%} of their images embedded and clustered, and "
        f"{amount.minibatches} of {minibatches(recipe)} minibatches of the network, the rest proportional; the fastest "
        f"of {amount.repeats}, {once} once; fresh network"
    )


def agreement(fast: Side, reference: Side) -> dict[str, float]:
    """How far the two differ: pixel gradients and weights relative to their length, and the share of representatives
    that both choose."""
    same = [len(set(a.tolist()) & set(b.tolist())) / len(a) for a, b in zip(fast.chosen, reference.chosen, strict=True)]
    return {
        "pixel_gradient_difference": _difference(fast.gradients, reference.gradients),
        "weights_difference": _difference(fast.weights, reference.weights),
        "same_representatives": sum(same) / len(same),
    }


def _difference(ours: list[Tensor], theirs: list[Tensor]) -> float:
    a, b = (torch.cat([tensor.detach().double().flatten() for tensor in tensors]) for tensors in (ours, theirs))
    return float((a - b).norm() / b.norm())


def minibatches(recipe: MatchingRecipe) -> int:
    """That an inner iteration trains the network on."""
    return -(-recipe.n_data // recipe.batch_real)


# ---------------------------------------------------------------- the loop of dream_core


def warmed_up(
    recipe: MatchingRecipe, dataset: Dataset, device: torch.device, compile_s: float | None = None
) -> MatchingLoop:
    """A loop that has done all that will be timed once; not compiled where that would take longer than `compile_s`."""
    try:
        with at_most(compile_s):
            loop = MatchingLoop(recipe, dataset, device, synchronize=True)
            first_of_everything(loop)
            return loop
    except TooLong:
        log.info("compiling takes longer than %g s, once on a machine: not compiled this time", compile_s)
        without = {"compiled": "off", "precision": "bfloat16" if has_bfloat16(device) else "float32"}
        return warmed_up(recipe.model_copy(update=without), dataset, device)  # as where there is no compiler


def first_of_everything(loop: MatchingLoop) -> None:
    """Do all that will be timed once, as compiling takes seconds. Changes nothing that the loop remembers."""
    recipe = loop.recipe
    few = loop.dataset.train.images[:1]
    match_by_part(loop, 0, torch.arange(min(recipe.batch_real, *loop.dataset.train.counts)), Clock(loop.device))
    embed(loop.network, few, recipe.embedding_chunk, loop.device, None, loop.computing)
    inputs, _ = fetcher(loop.dataset.train, loop.normalize, loop.device)(loop.batches[0])
    loop.logits(inputs).sum().backward()
    loop.network.zero_grad()


def measure_loop(loop: MatchingLoop, amount: Amount) -> Side:
    """All parts of the loop, and those of matching and of the network's training once more one by one."""
    seconds: dict[str, float] = {}
    chosen, gradients, weights = [], [], []
    for label in range(amount.classes):
        loop.watch.take()
        chosen.append(loop.selection.batch(label, loop.network, OUTER, 0))
        clustering = {"embedding": 0.0, "kmeans": 0.0} | loop.watch.take()
        _add(seconds, clustering, loop.classes / amount.classes / amount.share)
        clock = Clock(loop.device)
        for _ in range(amount.repeats):
            with clock("matching"):
                gradients[label:] = [loop.match_class(label, OUTER, INNER)[1]]
            match_by_part(loop, label, chosen[label], clock)
        _add(seconds, clock.seconds, loop.classes / amount.classes)
    clock = Clock(loop.device)
    for _ in range(amount.repeats):
        with clock("network"):
            loop.train_on_real(amount.minibatches * loop.recipe.batch_real)
        if not weights:  # the plain loop is looked at after as many minibatches
            weights = [weight.detach().clone() for weight in loop.network.parameters()]
        with clock("network's inputs"):
            for number in range(amount.minibatches):
                network_inputs(loop, number)
    _add(seconds, clock.seconds, minibatches(loop.recipe) / amount.minibatches)
    clock = Clock(loop.device)
    if amount.evaluation:
        evaluation_epochs(loop, amount.repeats, clock)
    return Side(seconds | clock.seconds, peak_bytes(loop.device), chosen, gradients, weights)


def match_by_part(loop: MatchingLoop, label: int, chosen: Tensor, meter: Meter) -> None:
    """What `match_class` does, in pieces."""
    objective, stored, labels = loop.objective, loop.image_sgd.at_turn(label), torch.tensor(label, device=loop.device)
    with meter("inputs"):
        real, synthetic = loop.inputs(label, chosen, stored, OUTER, INNER)
    with meter("real gradient"):
        target = objective.computing.run(Matching.target, objective, real, labels)
    with meter("image step"):
        _, pull = objective.computing.run(Matching.pull, objective, synthetic, labels, target)
        torch.autograd.grad(synthetic, stored, pull)


def network_inputs(loop: MatchingLoop, number: int) -> None:
    """A minibatch of the network, fetched and augmented."""
    recipe = loop.recipe
    images, _ = fetcher(loop.dataset.train, loop.normalize, loop.device)(loop.batches[number])
    draws = DRAWS[recipe.composition]
    generator = stream(recipe.seed, "train", number)
    augment(images, draws(recipe.augmentation_net, len(images), recipe.image_size, generator))


def evaluation_epochs(loop: MatchingLoop, count: int, clock: Clock) -> None:
    """The first epochs of an evaluation, without its look at the test set."""
    # so few epochs would not be worth compiling
    how = {"compiled": "on" if loop.computing.compiled else "off", "precision": loop.recipe.precision}
    judged = loop.recipe.evaluation.model_copy(update={"tests": 1} | how)
    passes = train_and_test(loop.training_set(), loop.dataset, judged, 0, ("bench",), loop.device, count + 1)
    for _ in range(count):
        with clock("evaluation epoch"):
            next(passes)


def count_operations(loop: MatchingLoop, chosen: Tensor, amount: Amount) -> dict[str, int]:
    """Floating-point operations of the parts that have any, for a whole inner iteration."""
    recipe, operations = loop.recipe, Operations()
    loop.computing = loop.objective.computing = PLAIN  # the same operations, where they can be counted
    loop.logits = partial(PLAIN.logits, loop.network)
    match_by_part(loop, 0, chosen, operations)
    some = to_unit(loop.dataset.train.of_class(0)[:8], loop.device)
    with operations("embedding"), torch.no_grad():
        loop.network.embed(some)
    with operations("network"):
        loop.train_on_real(1)
    of_class = {part: operations.counted[part] for part in ("real gradient", "image step")}
    counted = {part: count * loop.classes for part, count in of_class.items()}
    counted["matching"] = sum(counted.values())
    counted["embedding"] = round(operations.counted["embedding"] / len(some) * len(loop.dataset.train) / amount.share)
    counted["network"] = operations.counted["network"] * minibatches(recipe)
    return counted


# ---------------------------------------------------------------- the plain one


def measure_plain(plain: Plain, chosen: list[Tensor], amount: Amount) -> Side:
    """The same of the plain implementation; it matches the representatives that the loop chose."""
    recipe, classes = plain.recipe, len(plain.dataset.class_names)
    repeats = 1 if amount.plain_once else amount.repeats
    seconds: dict[str, float] = {}
    own, gradients, weights = [], [], []
    for label in range(amount.classes):
        clock = Clock(plain.device)
        with clock("embedding"):
            features = plain.embed(label)
        with clock("kmeans"):
            seed = derive(recipe.seed, "cluster", OUTER, 0, label)
            centers = kmeans(features, min(len(chosen[label]), len(features)), seed, recipe.clustering_iterations)
            own.append(representatives(features, centers))
        del features
        _add(seconds, clock.seconds, classes / amount.classes / amount.share)
        clock = Clock(plain.device)
        for _ in range(repeats):
            with clock("matching"):
                gradients[label:] = [plain.match(label, chosen[label], OUTER, INNER)[1]]
        _add(seconds, clock.seconds, classes / amount.classes)
    clock = Clock(plain.device)
    for repeat in range(repeats):
        with clock("network"):
            for number in range(amount.minibatches):
                plain.train(repeat * amount.minibatches + number)
        weights = weights or list(plain.weights)
    _add(seconds, clock.seconds, minibatches(recipe) / amount.minibatches)
    clock = Clock(plain.device)
    if amount.evaluation:
        with clock("evaluation epoch"):
            plain.evaluation_epoch()
    return Side(seconds | clock.seconds, peak_bytes(plain.device), own, gradients, weights)


def _add(seconds: dict[str, float], more: dict[str, float], share: float) -> None:
    for part, value in more.items():
        seconds[part] = seconds.get(part, 0.0) + value * share
