"""How fast the API is, and how it holds under load: `make bench-load`.

    python benchmarks/load.py --quick                 # a look, in less than a minute
    python benchmarks/load.py --database sqlite --phases polls submits

Fills a SQLite and a PostgreSQL database with 100,000 jobs, starts one API process with keys required, and sends it
what `benchmarks/load/locustfile.py` says. API, database, broker and clients share two cores: the figures are
those of a client on the same machine, and include its own share.
"""

import argparse
import logging
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))  # as a script, only this file's folder is searched

from benchmarks.load import report
from benchmarks.load.cores import Busy, watching_cores
from benchmarks.load.downloading import Downloads, download, publish_large
from benchmarks.load.filling import OWNERS, SPREAD, Filled, fill, make_keys
from benchmarks.load.plan import Plan
from benchmarks.load.reporting import reporting_workers
from benchmarks.load.servers import running_api, running_database, running_redis
from benchmarks.machine import processor
from jobs.database import make_engine, make_sessions, migrate
from jobs.settings import Settings

log = logging.getLogger("load")
RESULTS = Path(__file__).parent / "results" / "load"
LOCUSTFILE = Path(__file__).parent / "load" / "locustfile.py"
CORES = 2
RUNNING = 50
SPAWNED_PER_S = 125
SETTLING_S = 2.0
QUICK = ("polls", "mix", "downloads")
DOWNLOADS = "downloads"


@dataclass(frozen=True, slots=True)
class Phase:
    """Who sends requests, one a second each, or (`greedy`) the next as soon as there is an answer."""

    name: str
    users: dict[str, int]
    greedy: bool = False


PHASES = (
    Phase("polls", {"Poller": 200}),
    Phase("polls in full", {"FullPoller": 200}),
    Phase("submits", {"Submitter": 50}),
    Phase("lists", {"Lister": 10, "DeepLister": 10, "FilteringLister": 10}),
    Phase("mix", {"Poller": 200, "Submitter": 50, "Watcher": 500}),
    Phase("most polls", {"Poller": 16}, greedy=True),
    Phase("most polls in full", {"FullPoller": 16}, greedy=True),
    Phase("most submits", {"Submitter": 16}, greedy=True),
    Phase("most lists", {"Lister": 16}, greedy=True),
)
NAMES = [*(phase.name for phase in PHASES), DOWNLOADS]


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    options = arguments()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])  # children inherit it
    table = ""
    for database in options.database:
        with tempfile.TemporaryDirectory(prefix="load-") as directory:
            for result in measure(Path(directory), database, options):
                table = report.keep(options.results, result)
    log.info("\n%s", table)


def measure(directory: Path, database: str, options: argparse.Namespace) -> Iterator[report.Result]:
    """One phase after the other on one kind of database."""
    with ExitStack() as stack:
        database_url = stack.enter_context(running_database(directory, database))
        env = {
            "DREAM_HOME": str(directory / "home"),
            "DATABASE_URL": database_url,
            "REDIS_URL": stack.enter_context(running_redis(directory)),
            "DREAM_REQUIRE_KEY": "1",
            "DREAM_RATE_LIMIT": "1000000/minute",
            "DREAM_MAX_STREAMS": "1000",
            "DREAM_MAX_QUEUED": "1000000",
        }
        settings = Settings.model_validate({"home": directory / "home", "database_url": database_url})
        migrate(database_url)
        engine = make_engine(database_url)
        stack.callback(engine.dispose)
        filled = fill(engine, options.jobs, RUNNING)
        log.info("%s: %d jobs", database, options.jobs)
        sessions = make_sessions(engine)
        bench = Bench(directory, database, options.jobs, filled, options.seconds, make_keys(sessions, settings))
        wanted = options.phases or NAMES
        with running_api(directory, env) as (url, api):
            watched = [job for jobs in filled.running.values() for job in jobs]
            for phase in PHASES:
                if phase.name in wanted:
                    workers = reporting_workers(sessions, watched) if "Watcher" in phase.users else nullcontext()
                    with workers:
                        yield bench.run(phase, url, api)
        if DOWNLOADS in wanted:
            sha256 = publish_large(settings, filled.finished, options.megabytes << 20)
            with running_api(directory, env) as (url, api):  # a new one, whose memory the phases have not grown
                yield bench.download(sha256, options.clients, url, api)


@dataclass(frozen=True, slots=True)
class Bench:
    """Runs phases on a filled database."""

    directory: Path
    database: str
    jobs: int
    filled: Filled
    seconds: float
    keys: dict[str, str]

    def run(self, phase: Phase, url: str, api: psutil.Process) -> report.Result:
        """One phase, in a locust of its own."""
        plan = Plan(
            users=phase.users,
            period_s=0.0 if phase.greedy else 1.0,
            jobs=self.filled.jobs,
            keys=self.keys,
            running=self.filled.running,
            deep=(datetime.now(UTC) - SPREAD * 0.75).strftime("%Y-%m-%dT%H:%M:%SZ"),
            samples=str(self.directory / "samples.json"),
        )
        path = self.directory / "plan.json"
        plan.write(path)
        Path(plan.samples).unlink(missing_ok=True)
        users = sum(phase.users.values())
        warm_up_s = users / SPAWNED_PER_S + SETTLING_S
        command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--host", url]
        command += ["-u", str(users), "-r", str(SPAWNED_PER_S), "-t", f"{math.ceil(warm_up_s + self.seconds)}s"]
        command += ["--loglevel", "WARNING", "--only-summary", "--stop-timeout", "0", *phase.users]
        env = os.environ | {"LOAD_PLAN": str(path), "PYTHONPATH": str(Path(__file__).parents[1])}
        with watching_cores(api) as busy:
            start = time.perf_counter()
            done = subprocess.run(command, check=False, env=env, capture_output=True, text=True)
            seconds = time.perf_counter() - start
        if not Path(plan.samples).exists():
            raise SystemExit(f"locust failed:\n{done.stdout}{done.stderr}")
        samples = plan.read_samples()
        rows = report.rows_of(samples, warm_up_s)
        return self._result(phase.name, rows, busy, 1000 * busy.api * seconds / len(samples))

    def download(self, sha256: str, clients: int, url: str, api: psutil.Process) -> report.Result:
        """The last phase."""
        with watching_cores(api) as busy:
            found = download(url, self.filled.finished, self.keys[OWNERS[0]], sha256, clients, api)
        return self._result(DOWNLOADS, [], busy, 1000 * busy.api * found.seconds / clients, found)

    def _result(
        self, phase: str, rows: list[report.Row], busy: Busy, api_ms: float, downloads: Downloads | None = None
    ) -> report.Result:
        for row in rows:
            log.info("%s: %s", phase, row)
        facts = (self.database, self.jobs, machine(), NAMES.index(phase), phase, rows)
        return report.Result(*facts, busy.api, round(api_ms, 2), busy.others, downloads)


def machine() -> str:
    """The machine in words, without its name."""
    return f"{CORES} cores of {processor()}, clients included; Python {platform.python_version()}"


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"a look: 2,000 jobs, {', '.join(QUICK)}, 64 MiB")
    parser.add_argument("--database", nargs="+", choices=("sqlite", "postgresql"), default=["sqlite", "postgresql"])
    parser.add_argument("--phases", nargs="+", choices=NAMES, help="only these; what else is kept stays")
    parser.add_argument("--jobs", type=int, default=100_000, help="in the table (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=20, help="for each phase (default %(default)s)")
    parser.add_argument("--megabytes", type=int, default=1024, help="that every client downloads (default %(default)s)")
    parser.add_argument("--clients", type=int, default=20, help="who download (default %(default)s)")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args(given)
    if options.quick:
        options.jobs, options.seconds, options.megabytes, options.phases = 2000, 3.0, 64, QUICK
    return options


if __name__ == "__main__":
    main()
