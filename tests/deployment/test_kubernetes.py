"""What the manifests for Kubernetes say. Their schemas are Kubernetes' own to check; no cluster is asked."""

from pathlib import Path

import pytest
import yaml

from jobs import operations, repository
from jobs.settings import Settings
from jobs.spec import JobSpec

FOLDER = Path(__file__).parents[2] / "docker" / "kubernetes"
MANIFESTS = {
    (found["kind"], found["metadata"]["name"]): found
    for path in FOLDER.glob("*.yaml")
    for found in yaml.safe_load_all(path.read_text())
    if "metadata" in found
}
SCALED = MANIFESTS["ScaledJob", "dream-worker"]["spec"]


def pods():
    specs = [(name, about["spec"]) for (_, name), about in MANIFESTS.items() if "spec" in about]
    runs = {name: spec.get("jobTargetRef", spec).get("template") for name, spec in specs if "ports" not in spec}
    return {name: template["spec"] for name, template in runs.items() if template}


def test_every_manifest_but_the_secret_is_applied():
    resources = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"]
    apart = {"kustomization.yaml", "secret.example.yaml"}
    assert {path.name for path in FOLDER.glob("*.yaml")} - apart == set(resources)


@pytest.mark.parametrize("name", ["dream-api", "dream-chores", "dream-migrate", "dream-worker"])
def test_pods_have_no_more_rights_than_they_need(name):
    pod = pods()[name]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    volumes = {volume["name"] for volume in pod["volumes"]}
    for container in pod["containers"]:
        about = container["securityContext"]
        assert (about["allowPrivilegeEscalation"], about["readOnlyRootFilesystem"]) == (False, True)
        assert about["capabilities"] == {"drop": ["ALL"]}
        assert "memory" in container["resources"]["limits"]
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes


def test_settings_are_settings_and_leave_time_for_a_checkpoint(monkeypatch):
    told = MANIFESTS["ConfigMap", "dream"]["data"]
    known = {"REDIS_URL", *(f"DREAM_{name.upper()}" for name in Settings.model_fields)}
    assert told.keys() <= known
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    assert Settings().grace_s + 30 <= pods()["dream-worker"]["terminationGracePeriodSeconds"]


def test_what_is_scaled_by_is_the_jobs_that_can_be_taken(postgres_url, sessions):
    from sqlalchemy import text

    (trigger,) = SCALED["triggers"]
    spec = JobSpec(dataset="digits", method="dream", ipc=1)

    def counted():
        with sessions() as session:
            return session.scalar(text(trigger["metadata"]["query"]))

    assert counted() == 0
    with sessions.begin() as session:
        for _ in range(3):
            repository.create_job(session, spec, spec.resolve())
        repository.claim_next(session, "a worker", 60)
    assert counted() == 2
    with sessions.begin() as session:
        operations.pause_queue(session, "default")
    assert counted() == 0


@pytest.fixture
def database_url(postgres_url):
    return postgres_url
