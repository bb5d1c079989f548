"""Checkpoints of a run: written whole or not at all, refused where they belong to another run."""

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import structlog
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from dream_core.recipes import Recipe

log = structlog.get_logger()

KEPT = 2


@dataclass(frozen=True)
class Checkpoint:
    """A state to continue from: the distillation's tensors, the losses so far, the seconds spent."""

    step: int
    identity: str
    """What recipe and data the state belongs to."""
    seconds: float
    tensors: dict[str, Tensor]


def identity(recipe: Recipe, fingerprint: str) -> str:
    """What a checkpoint belongs to: sixteen hexadecimal digits of the recipe and the data."""
    about = recipe.model_dump() | {"fingerprint": fingerprint}
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]


class CheckpointStore:
    """The checkpoints of one run: a directory each, the latest two kept. Those of other runs may lie beside them."""

    def __init__(self, directory: Path, identity: str):
        self.directory, self.identity = directory, identity

    def save(self, step: int, seconds: float, tensors: dict[str, Tensor]) -> int:
        """Write a checkpoint; return its bytes. Raises OSError, leaving the earlier ones as they were."""
        final = self.directory / f"ckpt-{self.identity}-{step:08d}"
        partial = self.directory / f".{final.name}.tmp"
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir(parents=True)
            content = save({name: tensor.contiguous() for name, tensor in tensors.items()})
            (partial / "state.safetensors").write_bytes(content)  # so that a full disk is an OSError
            about = {"step": step, "identity": self.identity, "seconds": seconds}
            (partial / "state.json").write_text(json.dumps(about), encoding="utf-8")
            for path in (*partial.iterdir(), partial):
                _flush(path)
            size = sum(path.stat().st_size for path in partial.iterdir())
        except OSError:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
        _flush(self.directory)
        for old in self._found()[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)
        return size

    def beside(self, name: str) -> Path:
        """A file of the same recipe and data, next to the checkpoints."""
        return self.directory / f"{self.identity}-{name}"

    def latest(self) -> Checkpoint | None:
        """The newest checkpoint of this recipe and data that can be read whole, or None."""
        for directory in reversed(self._found()):
            try:
                about = json.loads((directory / "state.json").read_text(encoding="utf-8"))
                if about["identity"] != self.identity:
                    log.warning("checkpoint.of_another_run", path=directory.name)
                    continue
                return Checkpoint(**about, tensors=load_file(directory / "state.safetensors"))
            except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
                log.warning("checkpoint.unreadable", path=directory.name, error=str(error))
        return None

    def _found(self) -> list[Path]:
        return sorted(self.directory.glob(f"ckpt-{self.identity}-*")) if self.directory.exists() else []


def _flush(path: Path) -> None:
    """Have the system write a file's or directory's content to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
