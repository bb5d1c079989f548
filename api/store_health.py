"""How the store of artifacts is, for whoever asks as often as they like."""

import time
from threading import Lock

import structlog

from jobs.artifacts import ArtifactStore, StorageUnavailable

log = structlog.get_logger()

EVERY_S = 10.0


class StoreHealth:
    """Asks the store at most once in EVERY_S; from many threads."""

    def __init__(self, store: ArtifactStore) -> None:
        self._store, self._lock = store, Lock()
        self._told, self._due = "ok", 0.0

    def tell(self) -> str:
        """`ok`, or what is wrong. Takes seconds at most."""
        with self._lock:
            if time.monotonic() >= self._due:
                self._told = self._ask()
                self._due = time.monotonic() + EVERY_S
            return self._told

    def _ask(self) -> str:
        try:
            self._store.check()
        except StorageUnavailable as error:
            log.warning("storage.unavailable", error=str(error), advice=error.advice)
            return str(error)
        return "ok"
