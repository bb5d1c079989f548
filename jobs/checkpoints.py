"""The checkpoints of a job, as they lie on the disk. Read without torch: only what stands beside the tensors."""

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path


@dataclass(frozen=True, slots=True)
class CheckpointFacts:
    """A state that a job can go on from. `loss` is the matching loss of its step, where there is one."""

    directory: Path
    step: int
    total: int | None
    phase: str | None
    loss: float | None
    bytes: int
    created_at: datetime


def list_checkpoints(directory: Path) -> list[CheckpointFacts]:
    """Those in a job's directory, the oldest first. What cannot be read, or is being removed, is left out."""
    found = (_read(path) for path in directory.glob("ckpt-*") if path.is_dir())
    return sorted((facts for facts in found if facts), key=lambda facts: facts.step)


def _read(path: Path) -> CheckpointFacts | None:
    try:
        about = json.loads((path / "state.json").read_text(encoding="utf-8"))
        return CheckpointFacts(
            directory=path,
            step=about["step"],
            total=about.get("total"),
            phase=about.get("phase"),
            loss=about.get("loss"),
            bytes=sum(file.stat().st_size for file in path.iterdir()),
            created_at=datetime.fromisoformat(about["created_at"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
