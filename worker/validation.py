"""Has an uploaded zip examined in a process of its own, with bounds on memory, time and disk: `validate`."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import structlog

from jobs.processes import signal_group, spawn
from worker.examination import Bounds
from worker.report import Report
from worker.unpacking import Limits, Refused

log = structlog.get_logger()

_TEMPORARY = ".preparing-"
_LOOK_S = 0.2


class Unfinished(Exception):
    """The examination ended for a reason that is not the upload's. It may be tried again."""


def validate(
    path: Path,
    target: Path,
    name: str,
    limits: Limits,
    bounds: Bounds,
    go_on: Callable[[], bool] = lambda: True,
) -> Report:
    """Examine a zip; if it is good, leave it as `target`/`name`/{train,test}/<class>/000001.png.

    Nothing else is left in `target`. `go_on` is asked several times a second. Call this from a thread that lives on:
    the process is killed when that ends.

    Raises Unfinished where `go_on` says no, or the process is killed from outside; OSError where the disk fails.
    """
    target.mkdir(parents=True, exist_ok=True)
    for left_behind in target.glob(f"{_TEMPORARY}*"):  # by a process that was killed
        shutil.rmtree(left_behind, ignore_errors=True)
    workdir = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=target))
    try:
        order = {"zip": str(path), "workdir": str(workdir), "limits": asdict(limits), "bounds": asdict(bounds)}
        (workdir / "order.json").write_text(json.dumps(order), encoding="utf-8")
        report = _examine(workdir, bounds, go_on)
        if report.ok:
            shutil.rmtree(target / name, ignore_errors=True)  # an earlier attempt got as far, but was not heard
            (workdir / "tree").rename(target / name)
        return report
    finally:
        shutil.rmtree(workdir, ignore_errors=True)


def _examine(workdir: Path, bounds: Bounds, go_on: Callable[[], bool]) -> Report:
    command = [sys.executable, "-m", "worker.examination", str(workdir / "order.json")]
    with (workdir / "log").open("wb") as output:
        process = spawn(command, signal.SIGKILL, stdout=output, stderr=subprocess.STDOUT)
    ends_at = time.monotonic() + bounds.wall_s
    try:
        while (code := _wait(process)) is None:
            if time.monotonic() > ends_at:
                return _too_costly()
            if not go_on():
                raise Unfinished("told to stop")
    finally:
        signal_group(process, signal.SIGKILL)
        process.wait()
    if code == os.EX_OK:
        return Report(**json.loads((workdir / "report.json").read_text(encoding="utf-8")))
    if code == os.EX_IOERR:
        raise OSError("the disk is full or failed while a dataset was being prepared")
    if code in (os.EX_SOFTWARE, -signal.SIGXCPU):
        return _too_costly()
    if code in (-signal.SIGKILL, -signal.SIGTERM):
        raise Unfinished("killed from outside")
    log.error("validation.failed", code=code, output=(workdir / "log").read_text(errors="replace")[-4000:])
    return Report.of(Refused("UNREADABLE", "a file in the zip makes the examination fail; save all images anew"))


def _wait(process: subprocess.Popen[bytes]) -> int | None:
    try:
        return process.wait(_LOOK_S)
    except subprocess.TimeoutExpired:
        return None


def _too_costly() -> Report:
    return Report.of(Refused("TOO_COSTLY", "the zip takes too much memory or time to look at; make it smaller"))
