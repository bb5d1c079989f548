"""What was measured, as JSON for programs and as Markdown for people."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
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

_HEAD = (
    "phase", "what", "per second", "p50", "p95", "p99", "worst", "count", "failed", "API: cores", "API: ms/request",
    "others: cores",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """Requests of one kind. Milliseconds count from when each was due; those of an event from when it happened."""

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
    """What was measured in one phase on one database."""

    database: str
    jobs: int
    machine: str
    number: int
    """Of the phase, by which they are sorted."""
    phase: str
    rows: list[Row]
    api_cores: float
    """Cores that the API kept busy."""
    api_ms: float
    """Milliseconds of a core that the API spent for each request or event."""
    others_cores: float
    """Cores that were busy with what has nothing to do with it: where there are any, the figures are too high."""
    downloads: Downloads | None = None


def rows_of(samples: Sequence[Sample], warm_up_s: float) -> list[Row]:
    """A row for each kind, without the first seconds, in which users come and streams are opened."""
    start = min((sample.at for sample in samples), default=0.0) + warm_up_s
    rows = []
    for name in sorted({sample.name for sample in samples} - {"prepare"}):
        opens = name == "stream"  # which happens in the first seconds
        found = [sample for sample in samples if sample.name == name and (opens or sample.at >= start)]
        if found:
            rows.append(_row(name, found))
    return rows


def _row(name: str, found: Sequence[Sample]) -> Row:
    took = sorted(sample.took_ms for sample in found)
    seconds = max(sample.at for sample in found) - min(sample.at for sample in found)
    rate = (len(found) - 1) / seconds if seconds else 0.0
    quantiles = (round(took[min(len(took) - 1, int(len(took) * share))], 1) for share in (0.5, 0.95, 0.99, 1))
    failures = sum(not sample.succeeded for sample in found)
    return Row(name, round(rate, 1), *quantiles, count=len(found), failures=failures)


def keep(results: Path, result: Result) -> str:
    """Write it beside the others, in place of an older one, and the table of all anew; the table."""
    results.mkdir(parents=True, exist_ok=True)
    name = f"{result.database}-{result.phase.replace(' ', '-')}.json"
    (results / name).write_text(json.dumps(asdict(result), indent=2) + "\n", encoding="utf-8")
    kept = [json.loads(path.read_text(encoding="utf-8")) for path in results.glob("*.json")]
    kept.sort(key=lambda one: (one["database"], one["jobs"], one["number"]))
    table = "\n".join(
        line
        for (database, jobs, machine), some in groupby(
            kept, key=lambda one: (one["database"], one["jobs"], one["machine"])
        )
        for line in _section(database, jobs, machine, list(some))
    )
    (results / "load.md").write_text(table, encoding="utf-8")
    return table


def _section(database: str, jobs: int, machine: str, results: Sequence[dict]) -> Iterator[str]:
    yield f"## {database}, {jobs:,} jobs\n"
    yield f"{machine}. Milliseconds, from when a request was due to its last byte.\n"
    for line in (_HEAD, ["---"] * len(_HEAD), *(line for result in results for line in _lines(result))):
        yield f"| {' | '.join(map(str, line))} |"
    yield ""
    yield from (f"- {verdict}" for result in results for verdict in _verdicts(result))
    yield ""


def _lines(result: dict) -> Iterator[tuple]:
    for row in result["rows"]:
        yield result["phase"], *row.values(), result["api_cores"], result["api_ms"], result["others_cores"]


def _verdicts(result: dict) -> Iterator[str]:
    """The targets, and whether they are met; of downloads, what they came to."""
    for row in result["rows"]:
        if target := TARGETS_MS.get((result["phase"], row["what"])):
            verdict = "met" if row["p95_ms"] < target else "missed"
            yield f"{result['phase']}: p95 of {row['what']} below {target} ms {verdict}"
    if found := result["downloads"]:
        yield (
            f"{found['clients']} clients downloaded {found['bytes'] / 2**30:.2f} GiB in {found['seconds']:.1f} s "
            f"({found['bytes'] / found['seconds'] / 1e6:.0f} MB/s), {found['failures']} failed; the API's memory was "
            f"{found['rss_before'] / 2**20:.0f} MiB before and {found['rss_peak'] / 2**20:.0f} MiB at its peak"
        )
