"""Methods as they go out."""

from typing import Any

from api.schemas.base import Output


class Preset(Output):
    """What a method takes by itself for a dataset and a number of images per class."""

    dataset: str
    ipc: int
    params: dict[str, Any]
    """Values of `params_schema` that have no default there, since they hang on dataset and ipc."""
    evaluation: dict[str, Any]
    """The same of `evaluation_schema`."""
    steps: int
    """Steps in all, those before and after the distillation included."""
    published: bool
    """Whether the papers ran this."""
    image_passes: int
    """About how many images go through a network in the distillation: a rough hint of what it costs."""


class MethodDetail(Output):
    """A distillation method: what it is, what can be set for it, and what it takes by itself.

    Nothing has to be set. What is left out takes the schema's default, or where it has none the preset's value; what is
    set may change others, as `base` does.
    """

    name: str
    family: str
    """Methods of a family share their parameters: matching, unrolled, trajectory, recovery, coresets. May grow."""
    title: str
    summary: str
    paper: str
    cost: str
    """What the time is spent on."""
    source: str
    """Where the default values come from."""
    params_schema: dict[str, Any]
    """JSON Schema of `spec.params`."""
    evaluation_schema: dict[str, Any]
    """JSON Schema of `spec.evaluation`."""
    presets: list[Preset]
    """For every built-in dataset and 1, 10 and 50 images per class that the method can serve."""


class MethodList(Output):
    """The methods."""

    data: list[MethodDetail]
