import sys

import pytest

from jobs.settings import Settings
from worker.launcher import TAIL_BYTES, LauncherMissing, log_tail, make_launcher
from worker.process import ProcessLauncher


def test_the_settings_name_the_launcher(settings):
    assert isinstance(make_launcher(settings), ProcessLauncher)


def test_a_launcher_that_is_not_installed_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray.job_submission", None)  # as where it is not
    monkeypatch.delitem(sys.modules, "worker.ray_launcher", raising=False)
    settings = Settings(home=tmp_path, launcher="ray", ray_address="http://head:8265")

    with pytest.raises(LauncherMissing) as missing:
        make_launcher(settings)

    assert "pip install" in missing.value.advice


def test_the_end_of_what_a_runner_has_written(tmp_path):
    assert log_tail(tmp_path) == ""
    (tmp_path / "runner.log").write_bytes(b"x" * TAIL_BYTES + b"the end\xff")
    assert log_tail(tmp_path).endswith("the end\ufffd")
