"""The pictures that a job's worker draws of its synthetic set, as they lie on the disk."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

KEPT = 200
"""Frames that a job keeps once it is over."""
_FRAME = re.compile(r"step-([0-9]{8,10})\.webp")


@dataclass(frozen=True, slots=True)
class PreviewFacts:
    """A picture of the set as it was after a step."""

    step: int
    bytes: int
    created_at: datetime


def list_previews(directory: Path) -> list[PreviewFacts]:
    """Those in a job's directory, by step. What is being removed is left out."""
    found = (_read(path, int(name[1])) for path in directory.glob("*.webp") if (name := _FRAME.fullmatch(path.name)))
    return sorted((facts for facts in found if facts), key=lambda facts: facts.step)


def preview_path(directory: Path, step: int) -> Path:
    """Where the picture of a step is, if there is one."""
    return directory / f"step-{step:08d}.webp"


def _read(path: Path, step: int) -> PreviewFacts | None:
    try:
        facts = path.stat()
    except FileNotFoundError:
        return None
    return PreviewFacts(step, facts.st_size, datetime.fromtimestamp(facts.st_mtime, UTC))
