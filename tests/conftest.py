"""Fixtures that every folder may use."""

import signal

import pytest
import structlog

from tests.fixtures import surroundings  # noqa: F401  # before anything reads the environment

# A shell that starts the tests in the background has them ignore Ctrl-C, and every process they start as well.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--postgresql", action="store_true", help="test the API on PostgreSQL, not on SQLite")


pytest_plugins = ["tests.fixtures.broker", "tests.fixtures.browser", "tests.fixtures.database", "tests.fixtures.s3"]

# Into the standard library's log, where pytest shows it with the test that failed.
structlog.configure(
    processors=[structlog.contextvars.merge_contextvars, structlog.stdlib.render_to_log_kwargs],
    logger_factory=structlog.stdlib.LoggerFactory(),
)
