"""`make demo`, as a newcomer runs it."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.nightly
def test_the_demo_works_and_distilled_images_beat_random_ones(tmp_path):
    run = subprocess.run(
        [sys.executable, "-m", "client.demo", "--dataset", "digits"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    assert "beat as many random real ones" in run.stdout
    assert (tmp_path / "demo-output" / "digits" / "gallery.png").is_file()
