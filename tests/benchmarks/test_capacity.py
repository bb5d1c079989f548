"""The table of docs/operations.md is what the measurements say."""

import csv
from pathlib import Path

from benchmarks.capacity import MEASURED, table

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"


def test_the_table_is_that_of_the_measurements():
    with MEASURED.open(encoding="utf-8") as file:
        assert table(list(csv.DictReader(file))) in OPERATIONS.read_text(encoding="utf-8")
