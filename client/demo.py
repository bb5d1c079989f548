"""The whole path in one go: `make demo`, or `python -m client.demo --dataset digits`.

Starts the embedded service on a free port, submits a DREAM job over REST, shows it as it goes, downloads and
verifies the result, and loads it in a fresh Python with torch alone. Exits 0 only if all of that worked and the
distilled images beat as many random real ones.
"""

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from client import console, watching
from client.errors import ClientError
from client.resources import Job
from client.sdk import Client

OUTPUT = Path("demo-output")
# Far below the published budgets, so that it ends in minutes; the table says so.
BUDGETS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "digits": ({"outer_iterations": 5, "inner_iterations": 20}, {"epochs": 300, "ceiling_epochs": 30})
}
OTHER = ({"outer_iterations": 1, "inner_iterations": 10, "n_data": 500}, {"epochs": 200, "repeats": 2})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="digits")
    dataset: str = parser.parse_args().dataset
    for number in (signal.SIGTERM, signal.SIGHUP):  # by default these would leave the service running
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        with service() as url, Client(url) as client:
            return demonstrate(client, dataset)
    except ClientError as error:
        return console.report(error, as_json=False)


def demonstrate(client: Client, dataset: str) -> int:
    """Submit, watch, download, load, compare; return the exit code."""
    params, evaluation = BUDGETS.get(dataset, OTHER)
    console.say(f"The service is at {client.base_url}")
    job = client.jobs.create(dataset, "dream", 1, params=params, evaluation=evaluation, name=f"demo on {dataset}")
    console.say(f"Submitted {job.id}: DREAM on {dataset}, 1 image per class\n")
    if code := watching.watch(client, job, as_json=False, advise=False):
        return code
    directory = OUTPUT / dataset.replace("/", "_")
    shutil.rmtree(directory, ignore_errors=True)
    files = client.jobs.download(job.id, directory).files
    console.say(f"\n{len(files)} files downloaded and verified by their SHA-256; in a fresh Python, with torch alone:")
    console.say(loaded(directory), style="dim")
    console.say(f"Look at {directory / 'gallery.png'}")
    return verdict(client.jobs.get(job.id))


def loaded(directory: Path) -> str:
    """What a fresh interpreter says of the images, without this project on its path."""
    program = "from load import load; x, y = load(); print('x', tuple(x.shape), x.dtype, 'y', tuple(y.shape), y.dtype)"
    command = [sys.executable, "-P", "-c", f"import sys; sys.path[:0] = ['.']; {program}"]
    run = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    if run.returncode:
        raise ClientError(f"the downloaded set could not be loaded: {run.stderr.strip()}")
    return run.stdout.strip()


def verdict(job: Job) -> int:
    """0 where the distilled images are better than random real ones."""
    summary = job.result_summary or {}
    gain = summary["accuracy"]["mean"] - summary["baselines"]["random"]["mean"]
    if gain <= 0:
        console.say(f"The distilled images are {-gain:.1f} points worse than random real ones.")
        return console.EXIT_FAILED
    console.say(f"The distilled images beat as many random real ones by {gain:.1f} points.")
    return 0


@contextmanager
def service() -> Iterator[str]:
    """The embedded service on a free port, with a home of its own that goes with it; gives its address."""
    with tempfile.TemporaryDirectory(prefix="dream-demo-", ignore_cleanup_errors=True) as home:
        command = [sys.executable, "-m", "client", "serve", "--port", "0", "--home", home, "--json"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
            try:
                assert process.stdout is not None
                line = process.stdout.readline()
                if not line:
                    raise ClientError("the service did not start", advice="what it said is above")
                yield json.loads(line)["url"]
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait()


if __name__ == "__main__":
    sys.exit(main())
