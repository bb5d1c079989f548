"""`make fuzz`: thousands of requests that nobody has thought of, held against the description of the API.

Schemathesis goes through the examples, the borders of every schema, random requests and random sequences, with all of
its checks. Ends with its exit code, and with an error if there were fewer requests than asked for.
"""

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from benchmarks.load.servers import running_database
from jobs.database import migrate
from jobs.logs import configure_logging
from jobs.settings import Settings
from tests.contract.service import KEY, stocked
from tests.fixtures.broker import free_port, start_redis

HERE = Path(__file__).parent


def main(arguments: list[str] | None = None) -> int:
    """Run it; return the exit code."""
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("--examples", type=int, default=90, help="random requests per operation and phase")
    parser.add_argument("--at-least", type=int, default=5000, help="fewer requests than this are a failure")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--phases", default="examples,coverage,fuzzing,stateful")
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    options = parser.parse_args(arguments)
    configure_logging()
    logging.getLogger().setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="dream-fuzz-") as scratch:
        home = Path(scratch) / "home"
        port = free_port()
        broker = start_redis(port, Path(scratch))
        try:
            with running_database(Path(scratch), options.database) as database_url:
                settings = Settings(home=home, database_url=database_url, redis_url=f"redis://127.0.0.1:{port}/0")
                migrate(settings.database_url)
                with stocked(settings) as (service, known):
                    return _run(service.url, known, Path(scratch) / "report.ndjson", options)
        finally:
            broker.kill()
            broker.wait()


def _run(url: str, known: dict[str, list[str]], report: Path, options: argparse.Namespace) -> int:
    command = [
        str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(HERE / "schemathesis.toml"), "run",
        f"{url}/openapi.json", "--checks", "all", "--phases", options.phases, "--max-examples", str(options.examples),
        "--suppress-health-check", "all", "--generation-database", "none", "--continue-on-failure",
        "--header", f"Authorization: Bearer {KEY}", "--request-timeout", "20",
        "--report", "ndjson", "--report-ndjson-path", str(report), "--no-color",
    ]  # fmt: skip
    command += ["--seed", str(options.seed)] if options.seed is not None else []
    environment = os.environ | {"SCHEMATHESIS_HOOKS": "tests.contract.hooks", "DREAM_FUZZ_KNOWN": json.dumps(known)}
    done = subprocess.run(command, env=environment, check=False)
    statuses = _statuses(report)
    requests = sum(statuses.values())
    sys.stdout.write(f"\n{requests} requests; answers by status: {dict(sorted(statuses.items()))}\n")
    failures = [f"{status} answered {n} times" for status, n in statuses.items() if status >= 500 and status != 503]
    if requests < options.at_least:
        failures.append(f"only {requests} requests, {options.at_least} wanted")
    for failure in failures:
        sys.stdout.write(f"FAILED: {failure}\n")
    return done.returncode or bool(failures)


def _statuses(report: Path) -> Counter[int]:
    """How often each status was answered."""
    statuses: Counter[int] = Counter()

    def look(node: object) -> None:
        if isinstance(node, dict):
            if isinstance(node.get("status_code"), int) and "headers" in node:
                statuses[node["status_code"]] += 1
            for value in node.values():
                look(value)
        elif isinstance(node, list):
            for value in node:
                look(value)

    with report.open(encoding="utf-8") as lines:
        for line in lines:
            look(json.loads(line))
    return statuses


if __name__ == "__main__":
    sys.exit(main())
