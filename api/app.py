"""The HTTP service. `create_app` builds it; `python -m api` runs it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.middleware import Middleware

from api import openapi, problems
from api.middleware import Guard, RequestContext
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


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application on a database, broker and artifact store. Connects to none of them yet."""
    settings = settings or get_settings()
    app = FastAPI(
        title="DREAM dataset distillation",
        version=version("dream-distillation"),
        docs_url=None,  # its pages load scripts from elsewhere
        redoc_url=None,
        lifespan=_lifespan,
        generate_unique_id_function=_operation_id,
        middleware=[Middleware(RequestContext), Middleware(Guard, allowed_hosts=settings.allowed_hosts)],
        responses=openapi.PROBLEM_RESPONSES,
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
    openapi.install(app)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.settings.home.mkdir(parents=True, exist_ok=True)
    yield
    app.state.engine.dispose()


def _operation_id(route: APIRoute) -> str:
    """The route's own name: generated clients get methods that read well, and keep them."""
    return route.name
