"""What was seen, as it is seen, and how long it took."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


def say(text: str = "") -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


class Step:
    def __init__(self) -> None:
        self.facts: list[str] = []

    def saw(self, fact: str) -> None:
        self.facts.append(fact)


class Report:
    """One line for each step, and under it what was seen."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self.done = 0

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        began, step, mark = time.monotonic(), Step(), "FAIL"
        try:
            yield step
            mark = "ok"
            self.done += 1
        finally:
            say(f"{mark:4} {time.monotonic() - began:6.1f} s  {name}")
            for fact in step.facts:
                say(f"{'':16}{fact}")

    def end(self) -> None:
        say(f"\n{self.done} steps, all seen to work, in {time.monotonic() - self._began:.0f} s")
