"""Pictures of the synthetic set as it grows: frames of a film, ever more rarely."""

import io
from pathlib import Path

from dream_core.formats import preview
from dream_core.synthetic import SyntheticSet
from jobs.files import atomic_write
from jobs.previews import KEPT, preview_path
from jobs.thinning import evenly
from worker.cadence import Cadence
from worker.reporting import Reporter

INTERVAL_S = 2.0
GROWTH = 0.01
QUALITY = 80


class Previews:
    """Draws `step-<number>.webp` into a directory; without one, nothing. A full disk costs pictures, not the run."""

    def __init__(self, directory: Path | None, report: Reporter):
        self._directory, self._report = directory, report
        self._cadence = Cadence(INTERVAL_S, GROWTH, at_once=True)
        self._drawn: int | None = None
        self._warned = False

    def offer(self, step: int, synthetic: SyntheticSet) -> None:
        """Draw the set as it is after a step, if it is time."""
        if self._directory and self._cadence.due():
            with self._cadence.turn():
                self._try(self._directory, step, synthetic)

    def finish(self, step: int, synthetic: SyntheticSet) -> None:
        """Draw the set as it will stay, and thin out what was drawn before."""
        if self._directory:
            self._try(self._directory, step, synthetic)
            thin(self._directory, KEPT)

    def _try(self, directory: Path, step: int, synthetic: SyntheticSet) -> None:
        if step == self._drawn:
            return
        try:
            self._draw(directory, step, synthetic)
        except OSError as error:
            if not self._warned:
                told = f"no preview could be kept of step {step}: {error.strerror}. The run goes on"
                self._report.warning("PREVIEW_FAILED", told)
            self._warned = True

    def _draw(self, directory: Path, step: int, synthetic: SyntheticSet) -> None:
        picture, encoded = preview(synthetic), io.BytesIO()
        picture.save(encoded, "WEBP", quality=QUALITY, method=0)
        content, path = encoded.getvalue(), preview_path(directory, step)
        directory.mkdir(parents=True, exist_ok=True)
        atomic_write(path, content)
        self._drawn = step
        size = {"width": picture.width, "height": picture.height}
        self._report.event("preview", step=step, name=path.name, bytes=len(content), **size)


def thin(directory: Path, keep: int) -> None:
    """Remove frames evenly until at most `keep` are left, the first and the last among them."""
    frames = sorted(directory.glob("step-*.webp"))
    kept = evenly(len(frames), keep)
    for number, frame in enumerate(frames):
        if number not in kept:
            frame.unlink(missing_ok=True)
