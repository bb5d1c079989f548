"""Fixtures of this folder."""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest


@pytest.fixture(scope="session")
def racers() -> Iterator[ProcessPoolExecutor]:
    """Three processes of their own, to do the same thing at the same time."""
    with ProcessPoolExecutor(3, mp_context=get_context("spawn")) as pool:
        yield pool
