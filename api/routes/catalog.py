"""What can be asked for: methods with their parameters."""

from fastapi import APIRouter

from api.problems import Problem
from api.schemas.methods import MethodDetail, MethodList
from api.security import CanRead
from dream_core.catalog import METHODS
from dream_core.recipes.description import describe, describe_all

router = APIRouter(prefix="/v1", tags=["catalog"])


@router.get("/methods")
def list_methods(_: CanRead) -> MethodList:
    """The distillation methods, each with what can be set for it and what it takes by itself."""
    return MethodList(data=[MethodDetail.model_validate(method) for method in describe_all()])


@router.get("/methods/{name}")
def get_method(name: str, _: CanRead) -> MethodDetail:
    """One method, as it stands in the list of all."""
    if name not in METHODS:
        raise Problem("NOT_FOUND", f"there is no method {name!r}; known: {', '.join(METHODS)}")
    return MethodDetail.model_validate(describe(name))
