import pytest

# The rows of test_faults.py lie in modules that pytest does not collect, but their assertions are to speak as well.
pytest.register_assert_rewrite(
    *[f"tests.end_to_end.faults{part}" for part in ("", "_of_disks", "_of_jobs", "_of_servers")]
)
