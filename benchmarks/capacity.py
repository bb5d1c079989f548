"""How many jobs an hour of one core does: `python benchmarks/capacity.py`, the table of docs/operations.md.

From the processor seconds of results/accuracy/accuracy.csv: seconds by the clock were taken beside other work.
"""

import csv
import sys
from pathlib import Path

MEASURED = Path(__file__).parent / "results" / "accuracy" / "accuracy.csv"
HOUR = 3600


def main() -> None:
    with MEASURED.open(encoding="utf-8") as file:
        sys.stdout.write(table(list(csv.DictReader(file))))


def table(cells: list[dict[str, str]]) -> str:
    """Markdown: a row per method, a column per dataset and images per class."""
    columns = list(dict.fromkeys((cell["dataset"], cell["ipc"]) for cell in cells))
    rows = [row for row in dict.fromkeys(cell["row"] for cell in cells) if " every " not in row]
    rates = {(cell["row"], cell["dataset"], cell["ipc"]): HOUR / float(cell["cpu_seconds"]) for cell in cells}
    head = ["jobs per core-hour", *(f"{dataset}, {ipc}" for dataset, ipc in columns)]
    body = [[row, *(_text(rates.get((row, *column))) for column in columns)] for row in rows]
    lines = [head, ["---", *["--:"] * len(columns)], *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _text(rate: float | None) -> str:
    if rate is None:
        return "–"
    return f"{rate:.0f}" if rate >= 10 else f"{rate:.1f}"


if __name__ == "__main__":
    main()
