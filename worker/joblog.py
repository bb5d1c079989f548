"""What a runner prints, kept for whoever runs the job: line by line, without the server's paths and secrets."""

from datetime import UTC, datetime
from pathlib import Path

import structlog

from jobs.redaction import scrub
from jobs.settings import Settings

log = structlog.get_logger()

LIMIT = 10 << 20
"""Bytes of a job's log, all attempts together."""
BATCH_BYTES = 1 << 18
DROPPED = b"--- the log is full: the rest is dropped\n"


class JobLog:
    """Appends one attempt's output to the job's log. What goes wrong with it is no concern of the job's."""

    def __init__(self, source: Path, job_id: str, settings: Settings):
        self._source, self._settings = source, settings
        self._target = settings.job_logs / f"{job_id}.log"
        self._offset, self._warned = 0, False

    def begin(self, attempt: int, worker: str) -> None:
        """Say which attempt the lines that follow are of."""
        self._append(f"--- attempt {attempt} on worker {worker} at {datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}\n".encode())

    def pump(self, whole: bool = False) -> None:
        """Append the lines that are new; with `whole` also one that has no end."""
        while piece := self._read(whole):
            lines = piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n").decode(errors="replace")
            if not self._append(scrub(lines, self._settings).encode()):
                return
            self._offset += len(piece)

    def _read(self, whole: bool) -> bytes:
        try:
            with self._source.open("rb") as file:
                file.seek(self._offset)
                piece = file.read(BATCH_BYTES)
        except OSError:
            return b""
        if whole or len(piece) == BATCH_BYTES:
            return piece[: piece.rfind(b"\n") + 1] or piece
        return piece[: piece.rfind(b"\n") + 1]

    def _append(self, content: bytes) -> bool:
        """Add to the log as far as there is room. False: it could not be written, and may be tried again."""
        try:
            self._target.parent.mkdir(parents=True, exist_ok=True)
            with self._target.open("ab") as file:
                room = LIMIT - file.tell()
                if room > 0:
                    file.write(content if len(content) < room else content[:room] + b"\n" + DROPPED)
        except OSError as error:
            if not self._warned:
                log.warning("job_log.not_written", error=str(error))
            self._warned = True
            return False
        return True
