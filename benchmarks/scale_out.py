"""Several workers on one database and one broker: each job done once, and how many in a second.

    python benchmarks/scale_out.py                            # 100 jobs with 1, with 2 and with 4 workers
    python benchmarks/scale_out.py --workers 2 --jobs 10      # a look

PostgreSQL, Redis, the API and N Celery workers are started on this machine, and all jobs are submitted at once. They
are as short as jobs get: random images of digits, and one epoch of one small network. What is left is the path of a
job: the claim, a process that imports torch, the publication. Workers of one machine share its cores, so that more of
them than cores gain nothing; workers on machines of their own share the database and the broker alone.

The latest row per number of workers and jobs is kept in results/scale_out. The exit code is 1 if a job was not done
exactly once: succeeded in its first attempt, begun once, published once, with the bytes of all others.
"""

import argparse
import json
import logging
import os
import platform
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # as a script, only this file's folder is searched
os.environ.setdefault("OMP_NUM_THREADS", "1")

from benchmarks.load.cores import busy_seconds
from benchmarks.machine import processor
from tests.fixtures.cluster import Cluster, deployed

log = logging.getLogger("scale_out")

RESULTS = Path(__file__).parent / "results" / "scale_out"
SPEC: dict[str, Any] = {
    "dataset": "digits",
    "method": "random",
    "ipc": 1,
    "params": {"width": 8},
    "evaluation": {"epochs": 1, "repeats": 1, "tests": 1, "baselines": False, "ceiling": "none", "width": 8},
}
BOUND_S = 3600
HEAD = ("workers", "jobs", "done exactly once", "seconds", "jobs/s", "speed-up", "cores busy", "load before")


@dataclass(frozen=True, slots=True)
class Row:
    """What came of some jobs on so many workers."""

    workers: int
    jobs: int
    once: int
    """Jobs that were done exactly once."""
    seconds: float
    """From the first job's submission to the end of the last."""
    cores_busy: float
    """On average while it was measured, by anything on the machine."""
    load_before: float
    """Of the minute before it began: what else the machine had to do."""
    at: str

    @property
    def rate(self) -> float:
        """Jobs per second."""
        return self.jobs / self.seconds


def measure(workers: int, jobs: int) -> Row:
    """Run the jobs on a deployment of their own."""
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="scale-") as home, deployed(Path(home) / "home", workers) as cluster:
        start, busy = time.monotonic(), busy_seconds()
        ids = [cluster.submit(f"job-{number}", SPEC) for number in range(jobs)]
        for job_id in ids:
            cluster.wait(job_id, seconds=BOUND_S)
        seconds, cores = time.monotonic() - start, busy_seconds() - busy
        once = _done_once(cluster, ids)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Row(workers, jobs, once, round(seconds, 1), round(cores / seconds, 2), round(load, 1), now)


def _done_once(cluster: Cluster, ids: list[str]) -> int:
    """How many of the jobs were: of several results, those that have the bytes of the first."""
    sums = [cluster.digests(job_id) if _begun_and_published_once(cluster, job_id) else {} for job_id in ids]
    expected = next(filter(None, sums), {})
    return sum(bool(found) and found == expected for found in sums)


def _begun_and_published_once(cluster: Cluster, job_id: str) -> bool:
    job = cluster.job(job_id)
    begun = [event for event in cluster.events(job_id) if event["type"] == "state" and event["data"]["to"] == "running"]
    published = cluster.published(job_id)
    once = (job["status"], job["attempt"], len(begun), len(published)) == ("succeeded", 1, 1, 1)
    if not once:
        log.error("%s: %s, attempt %d, begun %d, published %d times", job_id, job["status"], job["attempt"], len(begun),
                  len(published))  # fmt: skip
    return once


def keep(row: Row) -> list[Row]:
    """Put it among the kept ones, in place of an earlier one with as many workers and jobs; all of them."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / "scale_out.json"
    kept = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
    rows = {(found["jobs"], found["workers"]): Row(**found) for found in kept} | {(row.jobs, row.workers): row}
    ordered = [rows[key] for key in sorted(rows)]
    about = {"machine": machine(), "spec": SPEC, "rows": [asdict(each) for each in ordered]}
    path.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    (RESULTS / "scale_out.md").write_text(table(ordered), encoding="utf-8")
    return ordered


def table(rows: list[Row]) -> str:
    """Markdown."""
    alone = {row.jobs: row.rate for row in rows if row.workers == 1}
    lines: list[tuple[str, ...]] = [HEAD, ("---",) * len(HEAD)]
    for row in rows:
        speed = f"{row.rate / alone[row.jobs]:.2f}" if row.jobs in alone else "–"
        figures = (f"{row.seconds:.0f}", f"{row.rate:.2f}", speed, f"{row.cores_busy:.2f}", f"{row.load_before:.1f}")
        lines.append((str(row.workers), str(row.jobs), f"{row.once} of {row.jobs}", *figures))
    shown = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return f"{machine()}; PostgreSQL, Redis, the API and the workers on it together.\n\n{shown}"


def machine() -> str:
    return f"{os.cpu_count()} cores of {processor()}; Python {platform.python_version()}"


def main(arguments: list[str] | None = None) -> int:
    """Measure, print and keep; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--jobs", type=int, default=100)
    parser.add_argument("--no-keep", action="store_true", help="leave the kept results as they are")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    rows = []
    for workers in options.workers:
        row = measure(workers, options.jobs)
        rows.append(row)
        shown = [*rows] if options.no_keep else keep(row)
        sys.stdout.write(table(shown) + "\n")
    return 0 if all(row.once == row.jobs for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
