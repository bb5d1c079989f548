"""What Prometheus is asked by the alerts and the dashboard, and which figures there are."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric

from api.app import create_app
from jobs.database import migrate
from jobs.metrics import REGISTRY
from jobs.settings import Settings
from worker.gpu import GpuFigures

DOCKER = Path(__file__).parents[2] / "docker"
PROMETHEUS = DOCKER / "prometheus"
DASHBOARD = DOCKER / "grafana" / "dashboards" / "dream.json"
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "info": ("_info",)}


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def rules() -> list[dict[str, Any]]:
    """The alerts."""
    return [rule for group in load(PROMETHEUS / "alerts.yml")["groups"] for rule in group["rules"]]


def panels() -> dict[str, list[str]]:
    """What each panel of the dashboard asks, by its place and title."""
    shown = [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]
    return {f"{panel['id']} {panel['title']}": [ask["expr"] for ask in panel["targets"]] for panel in shown}


def names(query: str) -> set[str]:
    """The figures of ours that a query has."""
    return set(re.findall(r"\bdream_\w+", query))


def families(home: Path) -> list[Metric]:
    """All that API and worker export, as they export it; of GPUs, what they would."""
    settings = Settings(home=home, database_url=f"sqlite:///{home}/db.sqlite3")
    migrate(settings.database_url)
    app = create_app(settings)
    registries: Iterable[CollectorRegistry] = (REGISTRY, app.state.figures)
    found = [family for registry in registries for family in registry.collect()]
    app.state.engine.dispose()
    return [*found, *GpuFigures().describe()]


def series(family: Metric) -> set[str]:
    """The names under which Prometheus has it."""
    return {family.name + suffix for suffix in SUFFIXES.get(family.type, ("",))}
