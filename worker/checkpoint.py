"""Checkpoints of a run: written whole or not at all, refused where they are damaged or belong to another run.

A checkpoint is a directory: `state.safetensors`, and `state.json` with its checksum, what it belongs to, and what a
list of checkpoints shows of it.
"""

import hashlib
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from dream_core.errors import DreamError, InvalidRecipe
from dream_core.recipes import Recipe, read_recipe
from jobs.files import sync

KEPT = 2
_TENSORS, _ABOUT = "state.safetensors", "state.json"


class Damaged(Exception):
    """A checkpoint that is not, or no longer, what was written."""


@dataclass(frozen=True)
class Checkpoint:
    """A state to continue from: the distillation's tensors, the losses so far, the seconds spent."""

    step: int
    seconds: float
    tensors: dict[str, Tensor]


def identity(recipe: Recipe, fingerprint: str) -> str:
    """What a checkpoint belongs to: sixteen hexadecimal digits of the recipe and the data.

    Fields at their defaults do not count, so that a later version with more fields still knows it.
    """
    about = recipe.model_dump(exclude_defaults=True) | {"fingerprint": fingerprint}
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]


class CheckpointStore:
    """The checkpoints of one run: a directory each, the latest two kept. Those of other runs may lie beside them.

    `warn` is told a code and a message of checkpoints that cannot be read.
    """

    def __init__(self, directory: Path, recipe: Recipe, fingerprint: str, warn: Callable[[str, str], None]):
        self.directory, self.recipe, self.fingerprint, self._warn = directory, recipe, fingerprint, warn
        self.identity = identity(recipe, fingerprint)

    def save(self, checkpoint: Checkpoint, phase: str | None, loss: float | None) -> int:
        """Write a checkpoint; return its bytes. Raises OSError, leaving the earlier ones as they were."""
        final = self.directory / f"ckpt-{self.identity}-{checkpoint.step:08d}"
        partial = self.directory / f".{final.name}.tmp"
        shutil.rmtree(partial, ignore_errors=True)
        content = save({name: tensor.contiguous() for name, tensor in checkpoint.tensors.items()})
        about = {
            "step": checkpoint.step,
            "total": self.recipe.steps,
            "phase": phase,
            "loss": loss if loss is None or math.isfinite(loss) else None,  # JSON has no other numbers
            "created_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "seconds": checkpoint.seconds,
            "identity": self.identity,
            "recipe": self.recipe.model_dump(),
            "fingerprint": self.fingerprint,
            "sha256": hashlib.sha256(content).hexdigest(),
        }
        try:
            partial.mkdir(parents=True)
            (partial / _TENSORS).write_bytes(content)  # so that a full disk is an OSError
            (partial / _ABOUT).write_text(json.dumps(about), encoding="utf-8")
            for path in (*partial.iterdir(), partial):
                sync(path)
            size = sum(path.stat().st_size for path in partial.iterdir())
        except OSError:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
        sync(self.directory)
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
                about = _about(directory)
                if about["identity"] != self.identity:
                    raise Damaged("it belongs to another run")
                return _read(directory, about)
            except Damaged as error:
                told = f"the checkpoint {directory.name} cannot be used: {error}. An earlier one is, if there is one"
                self._warn("CHECKPOINT_DAMAGED", told)
        return None

    def taken_over(self, directory: Path) -> Checkpoint:
        """A checkpoint of another run, to go on from as if it were this one's.

        Raises DreamError unless it can be read, and the run had the same data and recipe: but for the evaluation, and
        for how long it goes on.
        """
        try:
            about = _about(directory)
            self._require_same(about)
            return _read(directory, about)
        except Damaged as error:
            raise DreamError(f"the checkpoint that this job is to go on from cannot be used: {error}") from error

    def _require_same(self, about: dict[str, Any]) -> None:
        free = {"evaluation", self.recipe.length_field}
        try:
            theirs = read_recipe(about["recipe"]).model_dump()
        except (KeyError, InvalidRecipe, ValidationError) as error:
            raise Damaged("its recipe is not one of this version") from error
        ours = self.recipe.model_dump()
        different = [name for name in {**theirs, **ours} if theirs.get(name) != ours.get(name) and name not in free]
        told = [f"{name} was {theirs.get(name)!r} and is {ours.get(name)!r}" for name in different]
        if about["fingerprint"] != self.fingerprint:
            told.append("the images of the dataset are no longer the same")
        if about["step"] > self.recipe.steps:
            told.append(f"it had done {about['step']} steps, and this job has only {self.recipe.steps}")
        if told:
            raise DreamError(f"the job cannot go on from the checkpoint of another: {'; '.join(told)}")

    def _found(self) -> list[Path]:
        return sorted(self.directory.glob(f"ckpt-{self.identity}-*")) if self.directory.exists() else []


_FIELDS: dict[str, Any] = {
    "step": int, "seconds": int | float, "identity": str, "sha256": str, "recipe": dict, "fingerprint": str
}  # fmt: skip


def _about(directory: Path) -> dict[str, Any]:
    """What stands beside the tensors. Raises Damaged."""
    try:
        about = json.loads((directory / _ABOUT).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Damaged(f"{_ABOUT} cannot be read: {_short(error)}") from error
    if not isinstance(about, dict) or not all(isinstance(about.get(name), kind) for name, kind in _FIELDS.items()):
        raise Damaged(f"{_ABOUT} lacks what it should hold")
    return about


def _read(directory: Path, about: dict[str, Any]) -> Checkpoint:
    """The state itself. Raises Damaged."""
    try:
        content = (directory / _TENSORS).read_bytes()
        if hashlib.sha256(content).hexdigest() != about["sha256"]:
            raise Damaged(f"{_TENSORS} differs from its checksum")
        return Checkpoint(about["step"], about["seconds"], load(content))
    except (OSError, SafetensorError) as error:
        raise Damaged(f"{_TENSORS} cannot be read: {_short(error)}") from error


def _short(error: Exception) -> str:
    """An error without the path that Python puts into it."""
    return (isinstance(error, OSError) and error.strerror) or str(error)
