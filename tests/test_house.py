"""What holds of the project as a whole."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SOURCES = [
    path for folder in ("api", "client", "dream_core", "jobs", "worker") for path in (ROOT / folder).rglob("*.py")
]


@pytest.mark.parametrize("module", ["client.cli", "client.sdk", "client.demo"])
def test_the_client_needs_only_its_own_requirements(module):
    heavy = ("torch", "sklearn", "numpy", "fastapi", "celery", "sqlalchemy", "pydantic", "redis")
    program = f"import sys, {module}; print([name for name in {heavy!r} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_nothing_is_pickled():
    """No pickle, torch.save or torch.load anywhere; the one reader of CIFAR's own files lets nothing but arrays in."""
    forbidden = re.compile(r"\bpickle\.(loads?|dumps?)\b|\btorch\.(save|load)\b|allow_pickle=True")
    assert [path.name for path in SOURCES if forbidden.search(path.read_text())] == []


def test_every_pinned_version_satisfies_the_ranges():
    from packaging.requirements import Requirement

    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    extras = PROJECT["project"]["optional-dependencies"]
    wanted = [Requirement(text) for group in [PROJECT["project"]["dependencies"], *extras.values()] for text in group]
    normal = {name.lower().replace("_", "-"): version for name, version in pins.items()}
    wrong = [str(want) for want in wanted if want.name in normal and not want.specifier.contains(normal[want.name])]
    assert wrong == []


def test_every_decision_is_listed():
    folder = ROOT / "docs" / "decisions"
    listed = set(re.findall(r"\((\d{4}-[\w-]+\.md)\)", (folder / "README.md").read_text()))
    assert listed == {path.name for path in folder.glob("0*.md")}
