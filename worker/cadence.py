"""How often a run does what is not its work: checkpoints, previews, reports."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

SHARE = 0.01
"""What may be spent on it of a run's time."""


class Cadence:
    """Says when something is due again: `every_s` after the last time, and later where it proves costly.

    Args:
        every_s: seconds between two times, at least. 0 means always, whatever it costs.
        growth: what share of the time that has passed these seconds grow to.
        at_once: whether the first time is due right away.
    """

    def __init__(self, every_s: float, growth: float = 0.0, at_once: bool = False):
        self._every_s, self._growth, self._cost_s = every_s, growth, 0.0
        self._started = time.monotonic()
        self._last = float("-inf") if at_once else self._started

    def due(self) -> bool:
        """Whether it is time."""
        now = time.monotonic()
        wait = max(self._every_s, self._growth * (now - self._started), self._cost_s / SHARE)
        return not self._every_s or now - self._last >= wait

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Around what was due: its seconds decide how long it is not due again."""
        start = time.monotonic()
        try:
            yield
        finally:
            self._last = time.monotonic()
            self._cost_s = self._last - start
