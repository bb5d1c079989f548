"""What a runner is told: `job.json` in its working directory."""

import json
from dataclasses import dataclass
from pathlib import Path

from dream_core.recipes import Recipe, read_recipe

_PLACES = ("data_dir", "checkpoints", "output", "cache", "previews", "start_from")


@dataclass(frozen=True)
class Job:
    """A job, and where its things are."""

    job_id: str
    recipe: Recipe
    directory: Path
    """The working directory."""
    data_dir: Path
    checkpoints: Path
    output: Path
    cache: Path | None = None
    """Where experts and teachers are kept for later jobs; none keeps them for this one alone."""
    previews: Path | None = None
    """Where pictures of the set are put as it grows; none draws none."""
    start_from: Path | None = None
    """A checkpoint of another job, for one that has none of its own."""
    download: bool = False
    device: str = "auto"
    gpus: int = 1
    """Devices that share the job, each a process."""
    checkpoint_interval_s: float = 60
    """0 means a checkpoint after every step, whatever it costs."""
    attempt: int = 1
    grace_s: float | None = None
    """Seconds from SIGTERM to a checkpoint; the process ends by itself after them."""

    @classmethod
    def read(cls, path: Path) -> "Job":
        """The job of a `job.json`."""
        fields = json.loads(path.read_text(encoding="utf-8"))
        places = {name: Path(place) for name in _PLACES if (place := fields.pop(name, None))}
        return cls(recipe=read_recipe(fields.pop("recipe")), directory=path.parent, **places, **fields)
