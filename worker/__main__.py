"""A worker without a broker: `python -m worker` looks into the database for jobs, every two seconds.

With `--until-empty` it ends once none waits: a pod that Kubernetes starts when there is something to do, and which is
gone when there is not. With `--chores-only` it takes no jobs, but does all that workers do besides: one of these beside
such pods frees what lost workers held, sends webhooks, examines uploads and removes what has expired.

SIGTERM ends the running job at a checkpoint, gives it back and ends the worker, within DREAM_GRACE_S.
"""

import argparse
import signal
import sys
from typing import Any

import structlog
from pydantic import ValidationError
from sqlalchemy.exc import DBAPIError

from jobs.logs import configure_logging
from jobs.settings import complaint, get_settings
from worker.chores import Chore
from worker.house import House, prepared

log = structlog.get_logger()

LOOK_S = 2.0
BEAT_S = 2.0


def main(arguments: list[str] | None = None) -> None:
    """Work until told to stop, or until there is nothing to do."""
    parser = argparse.ArgumentParser(prog="python -m worker", description="Take jobs without a broker.")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--until-empty", action="store_true", help="end once no job waits")
    how.add_argument("--chores-only", action="store_true", help="take no jobs, but do all that workers do besides")
    options = parser.parse_args(arguments)
    configure_logging()
    try:
        house = prepared(get_settings())
    except ValidationError as error:
        sys.exit(f"error: {complaint(error)}")
    _end_on_signals(house)
    house.tick()  # first: what a lost worker held may be all that there is to do
    house.open(*_signs_of_life(house))
    if options.chores_only:
        house.closing.wait()
    else:
        work(house, until_empty=options.until_empty)
    house.close()
    house.wait_for_chores()


def work(house: House, *, until_empty: bool) -> None:
    """One job after the other. While the database is away it is waited for."""
    while not house.closing.is_set():
        try:
            if house.supervisor.run():
                continue
            if until_empty:
                return
        except DBAPIError as error:
            log.warning("database.unreachable", error=str(error.orig))
        house.closing.wait(LOOK_S)


def _signs_of_life(house: House) -> list[Chore]:
    def present() -> None:
        house.report()  # one that is being drained finds no job to claim

    chores = [Chore("presence", house.settings.heartbeat_s, present)]
    if file := house.settings.beat_file:
        chores.append(Chore("beat", BEAT_S, file.touch))
    return chores


def _end_on_signals(house: House) -> None:
    def end(*_: Any) -> None:
        house.close()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, end)


if __name__ == "__main__":
    main()
