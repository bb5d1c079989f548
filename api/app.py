"""The HTTP service. `create_app` builds it; `python -m api` runs it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.middleware import Middleware

from api import problems
from api.middleware import Guard, RequestContext
from api.problems import MEDIA_TYPE, ProblemDocument
from api.routes import (
    artifacts,
    catalog,
    comparison,
    datasets,
    estimates,
    events,
    health,
    jobs,
    keys,
    operations,
    steering,
    webhooks,
)
from jobs.artifacts import ArtifactStore
from jobs.database import make_engine, make_sessions
from jobs.queue import Bell
from jobs.settings import Settings, get_settings

_PROBLEM: dict[int | str, dict[str, Any]] = {
    status: {
        "description": description,
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}},
    }
    for status, description in {422: "The request's content cannot be accepted", "default": "Any other problem"}.items()
}


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application on a database, broker and artifact store. Connects to none of them yet."""
    settings = settings or get_settings()
    app = FastAPI(
        title="DREAM dataset distillation",
        version=version("dream-distillation"),
        docs_url=None,  # its pages load scripts from elsewhere
        redoc_url=None,
        lifespan=_dispose_engine,
        generate_unique_id_function=_operation_id,
        middleware=[Middleware(RequestContext), Middleware(Guard, allowed_hosts=settings.allowed_hosts)],
        responses=_PROBLEM,
        redirect_slashes=False,
    )
    engine = make_engine(settings.database_url)
    app.state.settings = settings
    app.state.engine = engine
    app.state.sessions = make_sessions(engine)
    app.state.readings = make_sessions(engine, read_only=True)
    app.state.bell = Bell(settings.redis_url)
    app.state.store = ArtifactStore(settings.artifacts, settings.staging)
    for routes in (
        jobs, steering, events, artifacts, comparison, estimates, catalog, datasets, webhooks, keys, operations, health,
    ):  # fmt: skip
        app.include_router(routes.router)
    problems.install(app)
    _describe_problems(app)
    return app


@asynccontextmanager
async def _dispose_engine(app: FastAPI) -> AsyncIterator[None]:
    yield
    app.state.engine.dispose()


def _operation_id(route: APIRoute) -> str:
    """The route's own name: generated clients get methods that read well, and keep them."""
    return route.name


def _describe_problems(app: FastAPI) -> None:
    """Put the problem document into the OpenAPI description, which knows only what routes return."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        description = generate()
        template = "#/components/schemas/{model}"
        schema = ProblemDocument.model_json_schema(ref_template=template)
        schemas = description.setdefault("components", {}).setdefault("schemas", {})
        schemas.update(schema.pop("$defs", {}), ProblemDocument=schema)
        return description

    app.openapi = openapi
