"""Carries what the runner reports, line by line in a file, into the job's events."""

import json
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy.orm import Session, sessionmaker

from jobs import metrics, repository
from jobs.redaction import scrub_all
from jobs.settings import Settings

log = structlog.get_logger()

BATCH_BYTES = 1 << 18


class Relay:
    """Reads complete lines from where it last was, and stores each batch in a small transaction of its own, without
    the server's paths and secrets.

    The place moves on only after the commit: while the database is away, events wait in the file.
    """

    def __init__(
        self,
        path: Path,
        sessions: sessionmaker[Session],
        job_id: str,
        attempt: int,
        settings: Settings,
        method: str = "unknown",
    ):
        self._path, self._sessions, self._settings = path, sessions, settings
        self._job_id, self._attempt = job_id, attempt
        self._method, self._phase = method, "loading"
        self._offset = 0
        self.heard_at = time.monotonic()
        """When the runner last reported something."""

    def pump(self) -> bool:
        """Store all that is new. False: fenced out. Raises what the database raises."""
        while lines := self._read():
            events = [event for line in lines.splitlines() if (event := self._parse(line))]
            if events:
                self.heard_at = time.monotonic()
                with self._sessions.begin() as session:
                    if not repository.append_events(session, self._job_id, self._attempt, events):
                        return False
                self._count(events)
            self._offset += len(lines)
        return True

    def _count(self, events: list[dict[str, Any]]) -> None:
        """Put what the runner reported into the figures."""
        for event in events:
            match event["type"], event["data"]:
                case "phase", {"phase": str(phase)}:
                    self._phase = phase
                case "metric", {"step_seconds": float(seconds)}:
                    metrics.STEP_SECONDS.labels(self._method, self._phase).observe(seconds)
                case "checkpoint", {"seconds": float(seconds), "bytes": int(size)}:
                    metrics.CHECKPOINT_SECONDS.observe(seconds)
                    metrics.CHECKPOINT_BYTES.observe(size)

    def _read(self) -> bytes:
        """Whole lines only: the last one may still be being written."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                piece = file.read(BATCH_BYTES)
        except FileNotFoundError:
            return b""
        return piece[: piece.rfind(b"\n") + 1]

    def _parse(self, line: bytes) -> dict[str, Any] | None:
        """An event, or None for a line that is none: one bad line must not cost the job."""
        try:
            event = json.loads(line)
            datetime.fromisoformat(event["created_at"])
            data = scrub_all(event["data"], self._settings)
            return {"type": event["type"], "created_at": event["created_at"], "data": data}
        except (ValueError, KeyError, TypeError):
            log.warning("relay.unreadable", line=line[:200].decode(errors="replace"))
            return None
