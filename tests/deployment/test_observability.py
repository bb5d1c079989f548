"""The alerts and the dashboard ask for figures that there are, and docs/observability.md explains them all."""

import re
import shutil
import subprocess

import pytest

from tests.deployment.figures import DOCKER, PROMETHEUS, families, load, names, panels, rules, series

DOCS = (DOCKER.parent / "docs" / "observability.md").read_text()


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return families(tmp_path_factory.mktemp("home"))


def test_every_figure_that_is_asked_for_is_exported(exported):
    known = set().union(*map(series, exported))
    queries = [rule["expr"] for rule in rules()] + [query for asked in panels().values() for query in asked]
    asked = set().union(*map(names, queries))
    assert len(asked) > 20
    assert asked - known == set()


def test_every_figure_is_explained(exported):
    explained = set(re.findall(r"^\| `(dream_\w+)` \|", DOCS, re.MULTILINE))
    assert explained == {name for family in exported for name in [family.name + _suffix(family.type)]}


def _suffix(kind: str) -> str:
    return {"counter": "_total", "info": "_info"}.get(kind, "")


def test_every_alert_is_tried_and_explained():
    alerts = {rule["alert"] for rule in rules()}
    tried = {
        case["alertname"]
        for test in load(PROMETHEUS / "alerts_test.yml")["tests"]
        for case in test["alert_rule_test"]
        if case.get("exp_alerts")
    }
    assert tried == alerts
    assert set(re.findall(r"^### (Dream\w+)", DOCS, re.MULTILINE)) == alerts


def test_the_dashboard_asks_the_datasource_that_is_provisioned():
    source = load(DOCKER / "grafana" / "provisioning" / "datasources" / "prometheus.yml")["datasources"][0]
    dashboard = load(DOCKER / "grafana" / "dashboards" / "dream.json")
    asked = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    assert {panel["datasource"]["uid"] for panel in asked} == {source["uid"]}
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


@pytest.mark.parametrize(
    "command", ["check config prometheus.yml", "check rules alerts.yml", "test rules alerts_test.yml"]
)
def test_prometheus_takes_them(command):
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("needs promtool (apt-get install prometheus)")
    run = subprocess.run([promtool, *command.split()], cwd=PROMETHEUS, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
