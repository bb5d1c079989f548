"""What can be asked for: methods with their parameters, and datasets."""

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter

from api.dependencies import SettingsDep
from api.problems import Problem
from api.schemas import Dataset, DatasetList, Method, MethodDetail, MethodList
from dream_core.catalog import DATASETS, METHODS
from dream_core.inventory import inventory
from dream_core.recipes import EvaluationRecipe, Recipe

router = APIRouter(prefix="/v1", tags=["catalog"])

_OF_THE_SPEC = ("method", "dataset", "ipc", "seed", "evaluation")


@router.get("/methods")
def list_methods() -> MethodList:
    """The distillation methods."""
    return MethodList(data=[Method.model_validate(asdict(facts)) for facts in METHODS.values()])


@router.get("/methods/{name}")
def get_method(name: str) -> MethodDetail:
    """One method, with JSON Schemas of what may stand in `spec.params` and `spec.evaluation`."""
    if name not in METHODS:
        raise Problem("NOT_FOUND", f"there is no method {name!r}; known: {', '.join(METHODS)}")
    return MethodDetail(
        **asdict(METHODS[name]),
        params_schema=_optional(Recipe.model_json_schema(), without=_OF_THE_SPEC),
        evaluation_schema=_optional(EvaluationRecipe.model_json_schema()),
    )


@router.get("/datasets")
def list_datasets(settings: SettingsDep) -> DatasetList:
    """The built-in datasets, and whether their files are here. `folder:NAME` means one's own in the data directory."""
    return DatasetList(
        data=[
            Dataset.model_validate(
                asdict(DATASETS[found.name]) | asdict(found) | {"path": str(found.path) if found.path else None}
            )
            for found in inventory(settings.data_dir)
        ]
    )


def _optional(schema: dict[str, Any], without: tuple[str, ...] = ()) -> dict[str, Any]:
    """The schema of overrides: whatever is left out takes the published value, so nothing is required."""
    properties = {name: value for name, value in schema["properties"].items() if name not in without}
    kept = {key: value for key, value in schema.items() if key not in ("required", "properties", "$defs")}
    return kept | {"properties": properties}
