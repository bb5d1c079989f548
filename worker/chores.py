"""What a worker does beside its job, each in a thread of its own: small things that any worker may do at any time."""

from collections.abc import Callable
from dataclasses import dataclass
from threading import Event, Thread

import structlog
from kombu.exceptions import OperationalError
from sqlalchemy.exc import SQLAlchemyError

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Chore:
    """Something to be done every so many seconds; at once again where it returns True: there may be more of it."""

    name: str
    seconds: float
    do: Callable[[], object]

    def start(self, closing: Event) -> Thread:
        """Do it until the worker shuts down. A database, a broker or a disk that is away for a while is waited for."""
        thread = Thread(target=self._repeat, args=(closing,), name=self.name, daemon=True)
        thread.start()
        return thread

    def _repeat(self, closing: Event) -> None:
        while not closing.is_set():
            try:
                more = self.do()
            except (SQLAlchemyError, OperationalError, OSError) as error:
                log.warning("chore.failed", chore=self.name, error=str(error))
                more = False
            if more is not True:
                closing.wait(self.seconds)
