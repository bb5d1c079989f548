"""What each method is, what can be set for it, and what it takes by itself: for the API, forms and the command line.

Imports no torch.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import cache
from typing import Any

from dream_core.catalog import DATASETS, FOLDER_PREFIX, METHODS, NETWORKS, DatasetFacts
from dream_core.errors import InvalidRecipe
from dream_core.recipes import (
    OF_THE_SPEC,
    CoresetRecipe,
    EvaluationRecipe,
    MatchingRecipe,
    Recipe,
    RecoveryRecipe,
    TrajectoryRecipe,
    UnrolledRecipe,
    is_published,
    make_recipe,
    recipe_class,
    source_of,
)
from dream_core.recipes.schema import Values

IPCS = (1, 10, 50)
"""Images per class that methods are commonly compared at."""


def describe_all() -> list[dict[str, Any]]:
    """`describe` of every method."""
    return [describe(method) for method in METHODS]


@cache
def describe(method: str) -> dict[str, Any]:
    """All that is to be known of a method before it is run, as JSON; worked out once, not to be changed.

    The facts of the catalog; `source`, where the default values come from; `params_schema` and `evaluation_schema`,
    JSON Schemas of what may stand in a job's `params` and `evaluation`; and `presets`, which say for each built-in
    dataset and 1, 10 and 50 images per class what the method takes there. A value that is the same on all of them (and
    for a folder) is the schema's `default`, any other is in every preset: both together are the complete recipe.
    They are what is taken where nothing is set; a value that is set may change others, as `base` does.

    Raises InvalidRecipe for an unknown method.
    """
    family = recipe_class(method)
    recipes = list(_recipes(method, DATASETS))
    everywhere = [*recipes, *_recipes(method, [f"{FOLDER_PREFIX}PATH"])]
    params_schema = _schema(family, [_params(recipe) for recipe in everywhere])
    evaluation_schema = _schema(EvaluationRecipe, [recipe.evaluation.model_dump() for recipe in everywhere])
    _keep_what_works(method, "params", params_schema)
    _keep_what_works(method, "evaluation", evaluation_schema)
    return asdict(METHODS[method]) | {
        "source": source_of(method),
        "params_schema": params_schema,
        "evaluation_schema": evaluation_schema,
        "presets": [
            {
                "dataset": recipe.dataset,
                "ipc": recipe.ipc,
                "params": _without_default(params_schema, _params(recipe)),
                "evaluation": _without_default(evaluation_schema, recipe.evaluation.model_dump()),
                "steps": recipe.steps,
                "published": is_published(recipe),
                "image_passes": image_passes(recipe, DATASETS[recipe.dataset]),
            }
            for recipe in recipes
        ],
    }


def _recipes(method: str, datasets: Iterable[str]) -> Iterable[Recipe]:
    """What the method takes by itself, but for classes that are too small for it."""
    for dataset in datasets:
        for ipc in IPCS:
            try:
                yield make_recipe(method, dataset, ipc)
            except InvalidRecipe:
                continue


def _params(recipe: Recipe) -> dict[str, Any]:
    return recipe.model_dump(exclude=set(OF_THE_SPEC))


# ---------------------------------------------------------------- schemas


def _schema(kind: type[Values], taken: list[dict[str, Any]]) -> dict[str, Any]:
    """The schema of overrides: nothing is required, and a default is what all of `taken` have."""
    schema = kind.model_json_schema()
    properties = {}
    for name in taken[0]:
        field = schema["properties"][name]
        described = {key: value for key, value in field.items() if key not in ("title", "default", "description")}
        described["description"] = _meaning(field)
        if all(values[name] == taken[0][name] for values in taken):
            described["default"] = taken[0][name]
        properties[name] = described
    return {
        "type": "object",
        "description": _line(schema["description"]),
        "properties": properties,
        "additionalProperties": False,
    }


def _without_default(schema: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if "default" not in schema["properties"][name]}


_CHOICES = {"params": ("base", "network", "norm"), "evaluation": ("mode", "network", "lr")}
"""Fields with choices that not every method has."""
_ANY_NUMBER = 0.01


def _keep_what_works(method: str, section: str, schema: dict[str, Any]) -> None:
    """Take choices away that the method refuses on every dataset, as batch normalisation where steps are unrolled."""
    for name in _CHOICES[section]:
        field = schema["properties"].get(name, {})
        if "enum" in field:
            field["enum"] = [value for value in field["enum"] if _works(method, section, name, value)]
        if "anyOf" in field:
            options = field.pop("anyOf")
            kept = [option for option in options if _works(method, section, name, option.get("const", _ANY_NUMBER))]
            field |= {"anyOf": kept} if len(kept) > 1 else kept[0]


def _works(method: str, section: str, name: str, value: Any) -> bool:
    """Whether some dataset takes the value; of a norm, with some network."""
    networks = [{"network": network} for network in NETWORKS] if name == "norm" else [{}]
    return any(
        _accepted(method, dataset, section, {name: value} | network) for dataset in DATASETS for network in networks
    )


def _accepted(method: str, dataset: str, section: str, values: dict[str, Any]) -> bool:
    params, evaluation = (values, {}) if section == "params" else ({}, values)
    try:
        make_recipe(method, dataset, 10, params=params, evaluation=evaluation)
    except InvalidRecipe:
        return False
    return True


def _meaning(field: dict[str, Any]) -> str:
    """A field's docstring on one line."""
    meaning = field.get("description", "")
    if "pattern" in field:
        meaning += " Names joined by `_`, as in `color_crop_cutout`; or `none`."
    return _line(meaning)


def _line(text: str) -> str:
    return " ".join(text.split())


# ---------------------------------------------------------------- costs


def image_passes(recipe: Recipe, facts: DatasetFacts) -> int:
    """About how many images go through a network in a distillation: a rough hint of what it costs.

    Forward and backward count once together, as does forward alone. What happens to an image besides, the size of
    network and image, k-means and the evaluation do not count; networks that are kept from other runs do.
    """
    return round(_PASSES[type(recipe)](recipe, facts))


def _matching(recipe: MatchingRecipe, facts: DatasetFacts) -> float:
    """Both sides of every step, the network's training, its warm-up, and the embeddings that are clustered."""
    decoded = recipe.ipc * recipe.factor**2
    real = min(recipe.batch_real, facts.smallest_class)
    matched = recipe.steps * facts.classes * (real + min(decoded, recipe.batch_syn_max))
    trainings = recipe.outer_iterations * (recipe.inner_iterations - 1)  # the last has nothing to come
    network = {
        "real": recipe.steps * recipe.n_data,
        "synthetic": trainings * recipe.epochs_net * decoded * facts.classes,
        "none": 0,
    }[recipe.network_data]
    warmup = recipe.outer_iterations * recipe.warmup_epochs * facts.train
    if recipe.interval_runs_on:
        clusterings = math.ceil(recipe.steps / recipe.interval)
    else:
        clusterings = recipe.outer_iterations * math.ceil(recipe.inner_iterations / recipe.interval)
    pools = min(recipe.pool * facts.classes, facts.train) if recipe.pool else facts.train
    embedded = clusterings * pools if recipe.selection == "representative" else 0
    return matched + network + warmup + embedded


def _trajectory(recipe: TrajectoryRecipe, facts: DatasetFacts) -> float:
    """The experts' epochs, and the students' steps."""
    images = recipe.ipc * facts.classes
    students = recipe.iterations * recipe.student_steps * min(recipe.batch_syn or images, images)
    return recipe.experts * recipe.epochs_per_expert * facts.train + students


def _unrolled(recipe: UnrolledRecipe, facts: DatasetFacts) -> float:
    """Of every network, its steps on the synthetic images and its test on real ones."""
    steps = recipe.distill_epochs * recipe.distill_steps * recipe.images_per_step * facts.classes
    return recipe.iterations * recipe.networks * (recipe.batch_real + steps)


def _recovery(recipe: RecoveryRecipe, facts: DatasetFacts) -> float:
    """The teacher's epochs, Adam's steps of every image, and the views that are labelled."""
    images = recipe.ipc * facts.classes
    return recipe.squeeze_epochs * facts.train + (recipe.iterations + recipe.label_epochs) * images


def _coresets(recipe: CoresetRecipe, facts: DatasetFacts) -> float:
    """The network's epochs, and one pass for features where they are looked at."""
    return (recipe.pretrain_epochs + (recipe.method != "random")) * facts.train


_PASSES: dict[type[Recipe], Callable[..., float]] = {
    MatchingRecipe: _matching,
    TrajectoryRecipe: _trajectory,
    UnrolledRecipe: _unrolled,
    RecoveryRecipe: _recovery,
    CoresetRecipe: _coresets,
}
