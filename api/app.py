"""The HTTP service. `create_app` builds it; `python -m api` runs it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI
from fastapi.routing import APIRoute
from prometheus_client import CollectorRegistry, Gauge
from starlette.middleware import Middleware

from api import openapi, problems
from api.keyring import KeyRing
from api.limiting import CountRequests, RateLimits
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
    metrics,
    operations,
    page,
    records,
    steering,
    webhooks,
)
from api.security import NEEDS_KEY
from api.store_health import StoreHealth
from api.streams import Streams
from jobs.asking import Asking
from jobs.database import make_engine, make_sessions
from jobs.metrics import DatabaseFigures
from jobs.queue import Bell
from jobs.ringer import Ringer
from jobs.settings import Settings, get_settings
from jobs.stores import open_store


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application on a database, broker and artifact store. Connects to none of them yet.

    Raises StorageUnavailable where the store needs a library that is not installed.
    """
    settings = settings or get_settings()
    limits = RateLimits(settings)
    app = FastAPI(
        title="DREAM dataset distillation",
        version=version("dream-distillation"),
        docs_url=None,  # its pages load scripts from elsewhere
        redoc_url=None,
        lifespan=_lifespan,
        generate_unique_id_function=_operation_id,
        middleware=[
            Middleware(RequestContext),
            Middleware(CountRequests, limits=limits),
            Middleware(Guard, allowed_hosts=settings.allowed_hosts),
        ],
        responses=openapi.PROBLEM_RESPONSES,
        redirect_slashes=False,
    )
    engine = make_engine(settings.database_url)
    app.state.settings = settings
    app.state.engine = engine
    app.state.sessions = make_sessions(engine)
    app.state.readings = make_sessions(engine, read_only=True)
    app.state.keyring = KeyRing(settings, app.state.sessions, app.state.readings)
    app.state.limits = limits
    app.state.bell = Bell(settings.redis_url)
    app.state.broker_answers = Asking(lambda: app.state.bell.waiting() is not None, False)
    app.state.ringer = Ringer(app.state.sessions, app.state.bell)
    app.state.streams = Streams(app.state.readings, settings.max_streams)
    app.state.figures = _figures(app)
    app.state.store = open_store(settings)
    app.state.store_health = StoreHealth(app.state.store)
    for routes in (
        jobs, steering, events, records, artifacts, comparison, estimates, catalog, datasets, webhooks, keys,
        operations, metrics,
    ):  # fmt: skip
        app.include_router(routes.router, dependencies=[NEEDS_KEY])
    app.include_router(health.router)
    app.include_router(page.router)
    problems.install(app)
    openapi.install(app)
    return app


def _figures(app: FastAPI) -> CollectorRegistry:
    """What this application knows beside the figures of its process."""
    figures = CollectorRegistry()
    figures.register(DatabaseFigures(app.state.readings, app.state.settings))
    streams = Gauge("dream_sse_streams", "Event streams that are open", registry=figures)
    streams.set_function(app.state.streams.open_streams)
    broker = Gauge("dream_broker_up", "Whether the broker answers", registry=figures)
    broker.set_function(app.state.broker_answers)
    return figures


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.settings.home.mkdir(parents=True, exist_ok=True)
    yield
    await app.state.keyring.close()
    app.state.ringer.close()
    app.state.engine.dispose()


def _operation_id(route: APIRoute) -> str:
    """The route's own name: generated clients get methods that read well, and keep them."""
    return route.name
