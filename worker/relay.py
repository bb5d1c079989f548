"""Carries what the runner reports, line by line in a file, into the job's events."""

import json
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy.orm import Session, sessionmaker

from jobs import repository

log = structlog.get_logger()

BATCH_BYTES = 1 << 18


class Relay:
    """Reads complete lines from where it last was, and stores each batch in a small transaction of its own.

    The place moves on only after the commit: while the database is away, events wait in the file.
    """

    def __init__(self, path: Path, sessions: sessionmaker[Session], job_id: str, attempt: int):
        self._path, self._sessions = path, sessions
        self._job_id, self._attempt = job_id, attempt
        self._offset = 0
        self.heard_at = time.monotonic()
        """When the runner last reported something."""

    def pump(self) -> bool:
        """Store all that is new. False: fenced out. Raises what the database raises."""
        while lines := self._read():
            events = [event for line in lines.splitlines() if (event := _parse(line))]
            if events:
                self.heard_at = time.monotonic()
                with self._sessions.begin() as session:
                    if not repository.append_events(session, self._job_id, self._attempt, events):
                        return False
            self._offset += len(lines)
        return True

    def _read(self) -> bytes:
        """Whole lines only: the last one may still be being written."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                piece = file.read(BATCH_BYTES)
        except FileNotFoundError:
            return b""
        return piece[: piece.rfind(b"\n") + 1]


def _parse(line: bytes) -> dict[str, Any] | None:
    """An event, or None for a line that is none: one bad line must not cost the job."""
    try:
        event = json.loads(line)
        datetime.fromisoformat(event["created_at"])
        return {"type": event["type"], "created_at": event["created_at"], "data": event["data"]}
    except (ValueError, KeyError, TypeError):
        log.warning("relay.unreadable", line=line[:200].decode(errors="replace"))
        return None
