"""What holds of every service beside ours, and of every workflow."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PARTS = {"obs": ["prometheus", "grafana"], "proxy": ["proxy"], "s3": ["s3"]}
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.mark.parametrize(("profile", "service"), [(key, name) for key, names in PARTS.items() for name in names])
def test_services_have_no_more_rights_than_they_need(profile, service):
    services = yaml.safe_load((ROOT / "docker" / f"compose.{profile}.yml").read_text())["services"]
    assert sorted(services) == sorted(PARTS[profile])
    about = services[service]
    assert re.search(r":v?\d+\.\d+", about["image"]), "a version is pinned"
    assert about["profiles"] == [profile]
    assert about["read_only"] is True
    assert about["cap_drop"] == ["ALL"]
    assert about["security_opt"] == ["no-new-privileges:true"]
    assert about["deploy"]["resources"]["limits"].keys() == {"memory", "pids"}
    assert "healthcheck" in about
    assert set(about["networks"]) <= {"back", "front"}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_may_only_read(path):
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    assert "secrets." not in path.read_text()
    for job in workflow["jobs"].values():
        assert "timeout-minutes" in job
        assert "permissions" not in job
        for step in job["steps"]:
            assert re.fullmatch(r"[\w-]+/[\w-]+@v\d+", step.get("uses", "a/b@v1"))
            if step.get("uses", "").startswith("actions/checkout"):
                assert step["with"]["persist-credentials"] is False


def test_workflows_are_all_there():
    assert [path.stem for path in WORKFLOWS] == ["audit", "ci", "images", "nightly"]
