"""What was measured, as JSON for programs and as Markdown for people."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.load.downloading import Downloads
from benchmarks.load.plan import Sample

TARGETS_MS = {
    ("polls", "poll"): 50,
    ("polls in full", "poll in full"): 50,
    ("submits", "submit"): 100,
    ("mix", "poll"): 50,
    ("mix", "submit"): 100,
    ("mix", "event"): 2000,
}
"""What 95 of 100 are to stay below, by phase and kind."""


@dataclass(frozen=True, slots=True)
class Row:
    """Requests of one kind. Milliseconds count from when each was due; those of an event from when it happened."""

    phase: str
    what: str
    per_second: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    worst_ms: float
    count: int
    failures: int


@dataclass(frozen=True, slots=True)
class Result:
    """All that was measured on one database."""

    database: str
    jobs: int
    machine: str
    rows: list[Row]
    api_cores: dict[str, float]
    """Cores that the API kept busy, by phase."""
    api_ms: dict[str, float]
    """Milliseconds of a core that the API spent, by phase, for each request."""
    downloads: Downloads


def rows_of(phase: str, samples: Sequence[Sample], warm_up_s: float) -> list[Row]:
    """A row for each kind, without the first seconds, in which users come and streams are opened."""
    start = min((sample.at for sample in samples), default=0.0) + warm_up_s
    rows = []
    for name in sorted({sample.name for sample in samples} - {"prepare"}):
        opens = name == "stream"  # which happens in the first seconds
        found = [sample for sample in samples if sample.name == name and (opens or sample.at >= start)]
        took = sorted(sample.took_ms for sample in found)
        if not took:
            continue
        seconds = max(sample.at for sample in found) - min(sample.at for sample in found)
        rate = (len(found) - 1) / seconds if seconds else 0.0
        failures = sum(not sample.succeeded for sample in found)
        quantiles = (round(took[min(len(took) - 1, int(len(took) * share))], 1) for share in (0.5, 0.95, 0.99, 1))
        rows.append(Row(phase, name, round(rate, 1), *quantiles, count=len(found), failures=failures))
    return rows


def keep(results: Path, result: Result) -> None:
    """Write it beside those of other databases, and the table of all anew."""
    results.mkdir(parents=True, exist_ok=True)
    (results / f"{result.database}.json").write_text(json.dumps(asdict(result), indent=2) + "\n", encoding="utf-8")
    kept = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(results.glob("*.json"))]
    (results / "load.md").write_text("\n".join(markdown(one) for one in kept), encoding="utf-8")


def verdicts(rows: Sequence[dict]) -> list[str]:
    """Each target, and whether it is met."""
    found = {(row["phase"], row["what"]): row["p95_ms"] for row in rows}
    return [
        f"{phase}: p95 of {what} below {target} ms {'met' if found[phase, what] < target else 'missed'}"
        for (phase, what), target in TARGETS_MS.items()
        if (phase, what) in found
    ]


def markdown(result: dict) -> str:
    """One database's tables."""
    lines = [
        f"## {result['database']}, {result['jobs']:,} jobs",
        "",
        f"{result['machine']}. Milliseconds, from when a request was due to its last byte.",
        "",
        "| phase | what | per second | p50 | p95 | p99 | worst | count | failed | API: cores | API: ms/request |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in result["rows"]:
        phase = row["phase"]
        values = (*row.values(), result["api_cores"][phase], result["api_ms"][phase])
        lines.append(f"| {' | '.join(map(str, values))} |")
    downloads = result["downloads"]
    lines += [
        "",
        *(f"- {verdict}" for verdict in verdicts(result["rows"])),
        "",
        f"{downloads['clients']} clients downloaded {downloads['bytes'] / 2**30:.2f} GiB in "
        f"{downloads['seconds']:.1f} s ({downloads['bytes'] / downloads['seconds'] / 1e6:.0f} MB/s), "
        f"{downloads['failures']} failed; the API's memory was {downloads['rss_before'] / 2**20:.0f} MiB before and "
        f"{downloads['rss_peak'] / 2**20:.0f} MiB at its peak.",
        "",
    ]
    return "\n".join(lines)
