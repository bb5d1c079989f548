"""The kept results of `first_steps.py` as a table: `python benchmarks/table.py > benchmarks/results/first_steps.md`."""

import json
import sys
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "first_steps"
PARTS = ("matching", "network", "embedding", "kmeans", "total")
HEAD = (
    "dataset",
    "method",
    "ipc",
    "factor",
    "steps",
    *(f"{part} s" for part in PARTS),
    "peak GB",
    "epochs",
    "accuracy %",
)


def main() -> None:
    results = [json.loads(path.read_text(encoding="utf-8")) for path in RESULTS.glob("*.json")]
    results.sort(key=lambda result: (result["dataset"], result["ipc"], result["steps"], result["method"]))
    lines = [HEAD, ["---"] * len(HEAD), *map(row, results)]
    sys.stdout.write("".join(f"| {' | '.join(map(str, line))} |\n" for line in lines))


def row(result: dict) -> list[str]:
    """One run: seconds are means per inner iteration, accuracies of `n` networks after the last epoch."""
    seconds = result.get("seconds_per_step", {})
    accuracy = f"{result['accuracy']:.1f} (n={result['n']})" if "accuracy" in result else "–"
    about = [str(result[name]) for name in ("dataset", "method", "ipc", "factor", "steps")]
    spent = [f"{seconds[part]:.2f}" if part in seconds else "–" for part in PARTS]
    epochs = str(result["epochs"]) if "accuracy" in result else "–"
    return [*about, *spent, f"{result['peak_bytes'] / 1e9:.1f}", epochs, accuracy]


if __name__ == "__main__":
    main()
