"""Commands of other packages, as `pip` leaves them behind: a dist-info folder with entry points."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

DREAM = str(Path(sys.executable).with_name("dream"))


@pytest.fixture
def run(tmp_path):
    """The `dream` command with one more package installed, whose module has this text."""

    def run(module, *arguments):
        (tmp_path / "other-1.dist-info").mkdir()
        (tmp_path / "other-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1\n")
        (tmp_path / "other-1.dist-info" / "entry_points.txt").write_text("[dream.commands]\nother = other_code:other\n")
        (tmp_path / "other_code.py").write_text(module)
        env = os.environ | {"PYTHONPATH": str(tmp_path), "COLUMNS": "80"}
        return subprocess.run([DREAM, *arguments], env=env, capture_output=True, text=True, timeout=60, check=False)

    return run


GREETING = 'def other(name: str = "you") -> None:\n    """Say hello."""\n    print("hello", name)\n'


def test_a_command_of_another_package_is_one_of_ours(run):
    assert run(GREETING, "other", "--name", "them").stdout == "hello them\n"


def test_it_is_listed_in_the_help(run):
    assert "Say hello." in run(GREETING, "--help").stdout


@pytest.mark.parametrize("where", ["when it is loaded", "when it is called"])
def test_without_its_requirements_it_says_what_to_install(run, where):
    needy = (
        "import not_installed\n" + GREETING if where == "when it is loaded" else GREETING + "    import not_installed\n"
    )

    result = run(needy, "other", "--name", "them")

    assert result.returncode == 1
    assert "not_installed is missing" in result.stderr
    assert "pip install 'dream-distillation[worker]'" in result.stderr


def test_one_that_is_broken_leaves_the_others_alone(run):
    result = run("", "--help")

    assert result.returncode == 0
    assert "submit" in result.stdout


def test_one_that_is_broken_says_so(run):
    result = run("", "other", "--any", "thing")

    assert result.returncode == 1
    assert "`dream other` cannot be loaded" in result.stderr
