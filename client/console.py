"""Where a command's words go: results to stdout, everything else to stderr."""

import json
import os
import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console

from client.errors import ApiError, ClientError, ServiceUnreachable
from client.resources import Job
from client.sdk import Client

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

EXIT_FAILED, EXIT_CANCELLED, EXIT_UNREACHABLE, EXIT_DETACHED = 1, 2, 3, 130
OUTCOMES = {"succeeded": 0, "failed": EXIT_FAILED, "cancelled": EXIT_CANCELLED}


def connect(url: str | None) -> Client:
    """The service at `url`, else at DREAM_URL. Says so when it makes one wait."""
    return Client(url, on_wait=_waiting)


def _waiting(seconds: float, error: ClientError) -> None:
    note(f"{error}; trying again in {max(1, round(seconds))} s")


def print_json(value: Any) -> None:
    """One JSON value on one line, at once: a reader may be following."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def say(message: str, style: str | None = None) -> None:
    """A line for people on stdout, wrapped by nobody so that it can be copied. `message` is plain text."""
    out.print(message, style=style, markup=False, soft_wrap=True)


def note(message: str) -> None:
    """A line for people on stderr."""
    err.print(message, markup=False, soft_wrap=True, style="dim")


def report(error: ClientError, as_json: bool) -> int:
    """Say what went wrong and what to do, on stderr. Returns the exit code."""
    if as_json:
        sys.stderr.write(json.dumps({"error": error.as_json()}, ensure_ascii=False) + "\n")
    else:
        err.print("error: ", style="bold red", end="")
        err.print(_sentence(error), markup=False, soft_wrap=True)
        for problem in getattr(error, "errors", ()):
            err.print(f"  {_field(problem.pointer)}: {problem.message}", markup=False, soft_wrap=True)
        if error.advice:
            err.print(f"  → {error.advice}", markup=False, soft_wrap=True)
        if isinstance(error, ApiError) and error.status >= 500 and error.request_id:
            err.print(f"  request {error.request_id}", markup=False, soft_wrap=True, style="dim")
    return EXIT_UNREACHABLE if isinstance(error, ServiceUnreachable) else EXIT_FAILED


def _sentence(error: ClientError) -> str:
    """The message, unless the fields' own messages below say it better."""
    if not isinstance(error, ApiError) or not error.errors or error.status != 422:
        return str(error)
    of_query = all(problem.pointer.startswith("?") for problem in error.errors)
    return "the request cannot be accepted" if of_query else "this cannot be accepted"


def _field(pointer: str) -> str:
    """`#/spec/params/factor` as the user wrote it: `params.factor`."""
    return pointer.removeprefix("#/").removeprefix("spec/").replace("/", ".")


def find_job(client: Client, text: str) -> Job:
    """The job with this id, or the one of the latest whose id ends so."""
    if text.startswith("job_"):
        return client.jobs.get(text)
    ids = [job.id for job in client.jobs.list(limit=100)]
    return client.jobs.get(find_id(ids, text, "of the latest 100 jobs", "`dream ls` shows them"))


def find_id(ids: Iterable[str], text: str, among: str, advice: str) -> str:
    """The only one of the ids that ends with `text`. `among` says which ones they are, `advice` who lists them."""
    matches = [each for each in ids if each.endswith(text)]
    if len(matches) > 1:
        raise ClientError(f"{len(matches)} {among} end with {text!r}", advice="give more characters, or the whole id")
    if not matches:
        raise ClientError(f"none {among} ends with {text!r}", advice=advice)
    return matches[0]


def fancy() -> bool:
    """Whether stdout is a terminal that can redraw."""
    return out.is_terminal and os.environ.get("TERM") != "dumb"
