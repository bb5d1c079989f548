"""Published hyperparameters per method x dataset x IPC, each value overridable and validated. Imports no torch."""

import math
from types import ModuleType
from typing import Any

from pydantic import ValidationError

from dream_core.catalog import METHODS, NETWORKS, find_dataset
from dream_core.errors import InvalidRecipe
from dream_core.recipes import coresets, matching, recovery, trajectory, unrolled
from dream_core.recipes.choice import Choice, whole
from dream_core.recipes.coresets import CoresetRecipe
from dream_core.recipes.matching import MatchingRecipe
from dream_core.recipes.recovery import RecoveryRecipe
from dream_core.recipes.schema import ClusteringRecipe, Computed, EvaluationRecipe, Recipe, work_to_compile
from dream_core.recipes.trajectory import TrajectoryRecipe
from dream_core.recipes.unrolled import UnrolledRecipe

__all__ = [
    "OF_THE_SPEC",
    "ClusteringRecipe",
    "Computed",
    "CoresetRecipe",
    "EvaluationRecipe",
    "MatchingRecipe",
    "Recipe",
    "RecoveryRecipe",
    "TrajectoryRecipe",
    "UnrolledRecipe",
    "check_divides",
    "check_fits",
    "convnet_depth",
    "is_published",
    "lengthened",
    "make_recipe",
    "own_recipe",
    "read_recipe",
    "recipe_class",
    "work_to_compile",
]

OF_THE_SPEC = ("method", "dataset", "ipc", "seed", "evaluation")
"""Fields of a recipe that stand at the top of a job's spec, beside `params`."""

_FAMILIES: dict[str, tuple[type[Recipe], ModuleType]] = {
    "matching": (MatchingRecipe, matching),
    "trajectory": (TrajectoryRecipe, trajectory),
    "unrolled": (UnrolledRecipe, unrolled),
    "recovery": (RecoveryRecipe, recovery),
    "coresets": (CoresetRecipe, coresets),
}


def recipe_class(method: str) -> type[Recipe]:
    """The kind of recipe that a method has. Raises InvalidRecipe for an unknown method."""
    return _family(method)[0]


def read_recipe(values: dict[str, Any]) -> Recipe:
    """A complete recipe from its `model_dump()`."""
    return recipe_class(values["method"]).model_validate(values)


def make_recipe(
    method: str,
    dataset: str,
    ipc: int,
    seed: int = 0,
    params: dict[str, Any] | None = None,
    evaluation: dict[str, Any] | None = None,
) -> Recipe:
    """The published recipe for a method, dataset and IPC, with the user's own values in place of some.

    `params` are fields of the method's recipe (such as `iterations`), `evaluation` fields of `EvaluationRecipe`.
    Settings that hang on others (the pixels' learning rate on IPC, MNIST's augmentation on the factor) follow
    the user's values unless given themselves.

    Raises InvalidRecipe, naming every field that is wrong: an unknown dataset or method, an unknown or
    ill-typed parameter, an IPC or factor that the dataset cannot serve.
    """
    params, evaluation = dict(params or {}), dict(evaluation or {})
    family, published = _family(method)
    facts = find_dataset(dataset)
    if reserved := params.keys() & set(OF_THE_SPEC):
        raise InvalidRecipe(
            [(f"params.{name}", "is not a parameter; set it at the top level") for name in sorted(reserved)]
        )
    if facts and params.get("image_size", facts.size) != facts.size:
        raise InvalidRecipe(
            [("params.image_size", f"{dataset} has {facts.size} pixels; only folder:PATH can be resized")]
        )

    image_size = facts.size if facts else whole(params.get("image_size"), 32)
    values: dict[str, Any] = {"image_size": image_size, "depth": convnet_depth(image_size)}
    values |= published.settings(Choice(method, dataset, whole(ipc, 1), image_size, facts, params))
    depth = {"depth": values["depth"]}
    values["evaluation"] = _with_norm(depth | values["evaluation"], evaluation)
    identity = {"method": method, "dataset": dataset, "ipc": ipc, "seed": seed}
    try:
        recipe = family.model_validate(_with_norm(values, params) | identity)
    except ValidationError as error:
        raise InvalidRecipe([_problem(details["loc"], details["msg"]) for details in error.errors()]) from None
    check_fits(recipe, facts.smallest_class if facts else None)
    return recipe


def lengthened(recipe: Recipe, more: int) -> Recipe:
    """The recipe of a run that goes on from the end of this one for `more` of the method's own iterations: of fresh
    networks (`outer_iterations`) in the matching family, else of `iterations`.

    Its result has the same bytes as that of so many iterations from the start. Raises InvalidRecipe for methods whose
    runs cannot go on, and for what is too many.
    """
    field = recipe.length_field
    if field is None:
        raise InvalidRecipe([("method", f"{recipe.method} cannot go on: {recipe.final_because} in a new job")])
    if more < 1:
        raise InvalidRecipe([(f"params.{field}", f"cannot grow by {more}; give 1 or more")])
    try:
        return type(recipe).model_validate(recipe.model_dump() | {field: getattr(recipe, field) + more})
    except ValidationError as error:
        raise InvalidRecipe([_problem(details["loc"], details["msg"]) for details in error.errors()]) from None


def own_recipe(recipe: Recipe) -> Recipe:
    """The recipe as it is before anything is overridden, for the same method, base, dataset and IPC."""
    params: dict[str, Any] = {"image_size": recipe.image_size}
    if recipe.method == "dream" and isinstance(recipe, MatchingRecipe):
        params["base"] = recipe.base
    return make_recipe(recipe.method, recipe.dataset, recipe.ipc, recipe.seed, params)


def is_published(recipe: Recipe) -> bool:
    """Whether the default settings for this method, dataset and IPC are ones that the papers ran."""
    if isinstance(recipe, MatchingRecipe) and recipe.method == "dream" and recipe.base != "idc":
        return False
    datasets = _family(recipe.method)[1].PUBLISHED.get(recipe.method, {})
    return recipe.ipc in datasets.get(recipe.dataset, ())


def source_of(method: str) -> str:
    """Where a method's default values come from."""
    module = _family(method)[1]
    return module.SOURCES[method] if module is matching else module.SOURCE


def convnet_depth(image_size: int) -> int:
    """Blocks that leave a ConvNet 4 x 4 pixels: 3 for 28 and 32, 4 for 64, 5 for 128 (at 8 pixels 1)."""
    return max(1, math.ceil(math.log2(image_size)) - 2)


def check_fits(recipe: Recipe, smallest_class: int | None) -> None:
    """Raise InvalidRecipe where the dataset is too small for the IPC, or the images for the network or the factor.

    `smallest_class` is the number of training images of the smallest class, None where it is not yet known.
    """
    problems = recipe.problems()
    problems += _network_problems("params", recipe.network, recipe.norm, recipe.image_size)
    if recipe.network == "convnet" and recipe.pooling != "none":
        problems += _pooling_problems("params", recipe.image_size, recipe.depth)
    judge = recipe.evaluation
    problems += _network_problems("evaluation", judge.network, judge.norm, recipe.image_size)
    if judge.network == "convnet" and judge.depth:
        problems += _pooling_problems("evaluation", recipe.image_size, judge.depth)
    if judge.mode == "replay" and not isinstance(recipe, UnrolledRecipe):
        problems.append(("evaluation.mode", "only dd learns steps that can be replayed; use train"))
    if judge.mode == "soft" and not isinstance(recipe, RecoveryRecipe):
        problems.append(("evaluation.mode", "only sre2l has soft labels; use train"))
    if judge.lr == "learned" and not isinstance(recipe, TrajectoryRecipe):
        problems.append(("evaluation.lr", "only mtt learns a rate; give a number"))

    needed = recipe.real_images_to_start
    holds = f"the smallest class of {recipe.dataset} has only {smallest_class} training images"
    if smallest_class is not None and recipe.ipc > smallest_class:
        problems.append(("ipc", f"{recipe.ipc} images per class, but {holds}; use at most that"))
    elif smallest_class is not None and needed > smallest_class:
        told = f"starting from real images takes ipc x factor² = {needed} of each class, but {holds}"
        problems.append(("params.factor", f"{told}; lower ipc or factor, or set init to noise"))
    if problems:
        raise InvalidRecipe(problems)


def check_divides(recipe: Recipe, devices: int, classes: int | None) -> None:
    """Raise InvalidRecipe where so many devices cannot share a run. `classes` of its dataset, None while not known."""
    if devices == 1:
        return
    if why := recipe.indivisible:
        told = f"{recipe.method} with these settings runs on one device: {why}; or leave it at 1"
    elif classes is not None and classes < devices:
        told = f"each device takes classes of its own, and {recipe.dataset} has only {classes}; use at most that"
    else:
        return
    raise InvalidRecipe([("resources.gpus", told)])


def _network_problems(where: str, network: str, norm: str | None, image_size: int) -> list[tuple[str, str]]:
    facts = NETWORKS.get(network)
    if facts is None:
        return [(f"{where}.network", f"there is no network {network!r}; known: {', '.join(NETWORKS)}")]
    problems = []
    if norm is not None and norm not in facts.norms:
        problems.append((f"{where}.norm", f"{network} has no norm {norm!r}; use {' or '.join(facts.norms)}"))
    if image_size < facts.smallest:
        told = f"{network} takes images of {facts.smallest} pixels or more, not {image_size}; use convnet"
        problems.append((f"{where}.network", told))
    return problems


def _pooling_problems(where: str, image_size: int, depth: int) -> list[tuple[str, str]]:
    if image_size >> depth >= 1:
        return []
    told = f"{depth} poolings leave nothing of {image_size} pixels; use at most {int(math.log2(image_size))}"
    return [(f"{where}.depth", told)]


def _family(method: str) -> tuple[type[Recipe], ModuleType]:
    if method not in METHODS:
        raise InvalidRecipe([("method", f"there is no method {method!r}; known: {', '.join(METHODS)}")])
    return _FAMILIES[METHODS[method].family]


def _with_norm(published: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """The user's values over the published ones. A norm that is not given is the published one where the network has
    it, else the network's usual one."""
    values = published | own
    facts = NETWORKS.get(str(values.get("network", "convnet")))
    if own.get("norm") is None and facts:
        values["norm"] = published["norm"] if published.get("norm") in facts.norms else facts.norms[0]
    return values


def _problem(location: tuple[int | str, ...], message: str) -> tuple[str, str]:
    top = ("method", "dataset", "ipc", "seed")
    head, *rest = [str(part) for part in location] or ["?"]  # a name that is no text has no place
    if head in top or head == "evaluation":
        return ".".join([head, *rest]), message
    return ".".join(["params", head, *rest]), message
