"""For load balancers and for people: does it live, can it work, and what does an error code mean."""

from fastapi import APIRouter, Request, Response
from sqlalchemy.exc import SQLAlchemyError

from api.dependencies import BellDep
from api.problems import KINDS, not_found, slug
from api.schemas.health import Live, ProblemKind, Ready
from jobs.database import is_migrated

router = APIRouter(tags=["health"])


@router.get("/livez")
def livez() -> Live:
    """The process answers."""
    return Live(status="ok")


@router.get("/readyz", responses={503: {"model": Ready, "description": "Jobs cannot be taken"}})
def readyz(request: Request, response: Response, bell: BellDep) -> Ready:
    """Whether jobs can be taken. What else is away is reported: jobs wait for a broker in the database."""
    try:
        database = "ok" if is_migrated(request.app.state.engine) else "not migrated"
    except SQLAlchemyError:
        database = "unreachable"
    if database != "ok":
        response.status_code = 503
    return Ready(
        status="ready" if database == "ok" else "unavailable",
        database=database,
        broker="none" if bell.absent else "ok" if request.app.state.broker_answers() else "unreachable",
        artifacts=request.app.state.store_health.tell(),
    )


@router.get("/problems/{name}", tags=["problems"])
def get_problem_kind(name: str) -> ProblemKind:
    """What a problem's `type` stands for."""
    for code, kind in KINDS.items():
        if slug(code) == name:
            return ProblemKind(code=code, status=kind.status, title=kind.title, meaning=kind.meaning)
    raise not_found("problem", name)
