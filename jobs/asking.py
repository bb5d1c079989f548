"""Questions whose answer may not come: nobody resolves a name, or a host is silent."""

from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NoAnswerYet
from threading import Lock, Thread
from typing import Generic, TypeVar

T = TypeVar("T")

PATIENCE_S = 3.0
"""Whoever looks at a service's health gives up after some ten seconds, and then knows nothing at all."""


class Asking(Generic[T]):
    """Asks in a thread of its own, and takes silence for `silence` after `patience_s` seconds.

    Those who ask while an answer is out wait for that one. What the question raises, is raised.
    """

    def __init__(self, question: Callable[[], T], silence: T, patience_s: float = PATIENCE_S) -> None:
        self._question, self._silence, self._patience_s = question, silence, patience_s
        self._lock = Lock()
        self._answer: Future[T] | None = None

    def __call__(self) -> T:
        """The answer."""
        with self._lock:
            if self._answer is None or self._answer.done():
                self._answer = Future()
                Thread(target=self._ask, args=(self._answer,), name="asking", daemon=True).start()
            answer = self._answer
        try:
            return answer.result(self._patience_s)
        except NoAnswerYet:
            return self._silence

    def _ask(self, answer: Future[T]) -> None:
        try:
            answer.set_result(self._question())
        except Exception as error:  # noqa: BLE001  # it is raised where the question was asked
            answer.set_exception(error)
