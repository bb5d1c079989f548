"""Published hyperparameters per method x dataset x IPC, each value overridable and validated. Imports no torch."""

import math
from typing import Any

from pydantic import ValidationError

from dream_core.catalog import METHODS, find_dataset
from dream_core.errors import InvalidRecipe
from dream_core.recipes.published import is_published, settings
from dream_core.recipes.schema import EvaluationRecipe, Recipe

__all__ = [
    "PUBLISHED_EPOCHS",
    "EvaluationRecipe",
    "Recipe",
    "check_fits",
    "convnet_depth",
    "is_published",
    "make_recipe",
]

PUBLISHED_EPOCHS = EvaluationRecipe.model_fields["epochs"].default


def make_recipe(
    method: str,
    dataset: str,
    ipc: int,
    seed: int = 0,
    params: dict[str, Any] | None = None,
    evaluation: dict[str, Any] | None = None,
) -> Recipe:
    """The published recipe for a method, dataset and IPC, with the user's own values in place of some.

    `params` are fields of `Recipe` (such as `outer_iterations`), `evaluation` fields of `EvaluationRecipe`.
    Settings that hang on others (the pixels' learning rate on IPC, MNIST's augmentation on the factor) follow
    the user's values unless given themselves.

    Raises InvalidRecipe, naming every field that is wrong: an unknown dataset or method, an unknown or
    ill-typed parameter, an IPC or factor that the dataset cannot serve.
    """
    params, evaluation = dict(params or {}), dict(evaluation or {})
    if method not in METHODS:
        raise InvalidRecipe([("method", f"there is no method {method!r}; known: {', '.join(METHODS)}")])
    facts = find_dataset(dataset)
    if reserved := params.keys() & {"method", "dataset", "ipc", "seed", "evaluation"}:
        raise InvalidRecipe(
            [(f"params.{name}", "is not a parameter; set it at the top level") for name in sorted(reserved)]
        )
    if facts and params.get("image_size", facts.size) != facts.size:
        raise InvalidRecipe(
            [("params.image_size", f"{dataset} has {facts.size} pixels; only folder:PATH can be resized")]
        )

    image_size = facts.size if facts else _integer(params.get("image_size"), 32)
    factor = _integer(params.get("factor"), None)
    values = settings(method, dataset, _integer(ipc, 1), image_size, factor, facts.flips if facts else True)
    values["evaluation"] = values["evaluation"] | evaluation
    identity = {"method": method, "dataset": dataset, "ipc": ipc, "seed": seed}
    try:
        recipe = Recipe.model_validate(
            {"image_size": image_size, "depth": convnet_depth(image_size)} | values | params | identity
        )
    except ValidationError as error:
        raise InvalidRecipe([_problem(details["loc"], details["msg"]) for details in error.errors()]) from None
    check_fits(recipe, facts.smallest_class if facts else None)
    return recipe


def convnet_depth(image_size: int) -> int:
    """Blocks that leave a ConvNet 4 x 4 pixels: 3 for 28 and 32, 4 for 64, 5 for 128 (at 8 pixels 1)."""
    return max(1, math.ceil(math.log2(image_size)) - 2)


def check_fits(recipe: Recipe, smallest_class: int | None) -> None:
    """Raise InvalidRecipe where the dataset is too small for the IPC, or the images for the factor.

    `smallest_class` is the number of training images of the smallest class, None where it is not yet known.
    """
    problems: list[tuple[str, str]] = []
    size, needed = recipe.image_size, recipe.ipc * recipe.factor**2
    holds = f"the smallest class of {recipe.dataset} has only {smallest_class} training images"
    if size // recipe.factor < 2:
        told = f"a grid of {recipe.factor} x {recipe.factor} does not fit {size} pixels; use at most {size // 2}"
        problems.append(("params.factor", told))
    if recipe.pooling != "none" and size >> recipe.depth < 1:
        told = f"{recipe.depth} poolings leave nothing of {size} pixels; use at most {int(math.log2(size))}"
        problems.append(("params.depth", told))
    if recipe.per_cluster > recipe.batch_real:
        problems.append(("params.per_cluster", f"must not exceed batch_real, which is {recipe.batch_real}"))
    if smallest_class is not None and recipe.ipc > smallest_class:
        problems.append(("ipc", f"{recipe.ipc} images per class, but {holds}; use at most that"))
    elif smallest_class is not None and recipe.init != "noise" and needed > smallest_class:
        told = f"starting from real images takes ipc x factor² = {needed} of each class, but {holds}"
        problems.append(("params.factor", f"{told}; lower ipc or factor, or set init to noise"))
    if problems:
        raise InvalidRecipe(problems)


def _integer(value: Any, default: Any) -> Any:
    """The value where it is a whole number, so that rules can be worked out before validation has its say."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31 else default


def _problem(location: tuple[int | str, ...], message: str) -> tuple[str, str]:
    top = ("method", "dataset", "ipc", "seed")
    head, *rest = [str(part) for part in location] or ["?"]  # a name that is no text has no place
    if head in top or head == "evaluation":
        return ".".join([head, *rest]), message
    return ".".join(["params", head, *rest]), message
