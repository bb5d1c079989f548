"""What a user asks for: a dataset, a method, images per class, and own values for some hyperparameters."""

import json
from pathlib import PurePosixPath, PureWindowsPath
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictInt

from dream_core.catalog import FOLDER_PREFIX, find_dataset, is_folder
from dream_core.errors import InvalidRecipe
from dream_core.recipes import Recipe, check_divides, make_recipe

MONTH_S = 30 * 24 * 3600
GpuClass = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,38}[a-z0-9])?$")]


def _plain_json(values: dict[str, Any]) -> dict[str, Any]:
    """Refuses what PostgreSQL and other clients could not read back: NaN and Infinity, half of a surrogate pair."""
    try:
        json.dumps(values, allow_nan=False, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    return values


Overrides = Annotated[dict[str, Any], AfterValidator(_plain_json)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


MOST_GPUS = 16


class Resources(_Strict):
    """What a job may use up."""

    gpus: Annotated[StrictInt, Field(ge=1, le=MOST_GPUS)] = 1
    """Devices that share the job, each with classes of its own: GPUs of one worker, or where it has none its cores.
    Only workers with as many may take the job. The result has the same bytes."""
    max_runtime_s: Annotated[StrictInt, Field(ge=1, le=MONTH_S)] | None = None
    """Seconds that one attempt may run; none means no limit."""
    gpu_class: GpuClass | None = None
    """Only workers of this class may take the job, as `a100`: the queue `gpu.a100`. None: any worker."""


class JobSpec(_Strict):
    """A distillation to run. Everything left out takes the published value."""

    dataset: Annotated[str, Field(min_length=1, max_length=255)]
    """A built-in name, or `folder:NAME` for a directory or zip inside the service's data directory."""
    method: Annotated[str, Field(min_length=1, max_length=64)]
    ipc: StrictInt
    """Stored synthetic images per class."""
    seed: StrictInt = 0
    params: Overrides = Field(default_factory=dict)
    """Own values for hyperparameters of the method."""
    evaluation: Overrides = Field(default_factory=dict)
    """Own values for hyperparameters of the evaluation."""
    resources: Resources = Field(default_factory=Resources)

    def resolve(self) -> Recipe:
        """The complete recipe. Raises InvalidRecipe, naming every field that is wrong."""
        check_folder(self.dataset)
        recipe = make_recipe(self.method, self.dataset, self.ipc, self.seed, self.params, self.evaluation)
        facts = find_dataset(self.dataset)
        check_divides(recipe, self.resources.gpus, facts.classes if facts else None)
        return recipe


def check_folder(dataset: str) -> None:
    """Raise InvalidRecipe unless `folder:NAME` stays inside the data directory, whatever the platform makes of it.

    A symbolic link inside the data directory is followed: the operator has put it there.
    """
    if not is_folder(dataset):
        return
    name = dataset.removeprefix(FOLDER_PREFIX)
    path = PurePosixPath(name)
    leaves = path.is_absolute() or ".." in path.parts or bool(PureWindowsPath(name).anchor) or name.startswith("~")
    if leaves or not path.parts or "\\" in name or not name.isprintable():
        raise InvalidRecipe(
            [("dataset", f"{name!r} must be a relative path inside the service's data directory, without '..'")]
        )
