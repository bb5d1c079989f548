"""Engines, sessions and migrations, for SQLite (one box) and PostgreSQL alike."""

import json
import math
import time
from pathlib import Path
from threading import Lock
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, Dialect, Engine, create_engine, event, make_url, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.orm import DeclarativeBase, Session, sessionmaker
from sqlalchemy.pool import ConnectionPoolEntry

MIGRATIONS = Path(__file__).with_name("migrations")
BUSY_TIMEOUT_MS = 10_000
CONNECT_TIMEOUT_S = 5
PING_AFTER_S = 1.0
MIGRATION_LOCK = 0x647265616D  # any number that nothing else on the server locks


def make_engine(url: str) -> Engine:
    """An engine for a SQLite or PostgreSQL URL; nothing is connected yet."""
    location = _with_driver(make_url(url))
    options: dict[str, Any] = {"json_serializer": _dump_json, "pool_size": 10, "max_overflow": 30}
    if location.get_backend_name() != "sqlite":
        engine = create_engine(location, connect_args={"connect_timeout": CONNECT_TIMEOUT_S}, **options)
        idleness = Idleness(engine.dialect)
        event.listen(engine, "checkin", idleness.begin)
        event.listen(engine, "checkout", idleness.end)
        return engine
    if not location.database or location.database == ":memory:":
        raise ValueError("the database must be a file: several processes share it")
    Path(location.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(location, **options)
    event.listen(engine, "connect", _prepare_sqlite)
    turn = Turn()
    event.listen(engine, "begin", turn.begin)
    event.listen(engine, "checkin", turn.give_back)
    return engine


def make_sessions(engine: Engine, *, read_only: bool = False) -> sessionmaker[Session]:
    """A factory of sessions; `with sessions.begin() as session` is one transaction.

    Objects stay readable after the commit. Sessions that are to read only open no transaction in the database: each
    statement sees what is committed when it begins, as it would in one of PostgreSQL's, and none queues for SQLite's
    single writer. That saves half of the time that a poll takes.
    """
    return sessionmaker(_reading(engine) if read_only else engine, expire_on_commit=False)


def _reading(engine: Engine) -> Engine:
    if engine.dialect.name == "sqlite":  # its driver would begin transactions by itself after an AUTOCOMMIT
        return engine.execution_options(read_only=True)
    return engine.execution_options(isolation_level="AUTOCOMMIT")


def insert_into(session: Session, table: type[DeclarativeBase]) -> sqlite.Insert | postgresql.Insert:
    """An INSERT that can say ON CONFLICT, which the two databases have in common, but SQLAlchemy has not."""
    on_sqlite = session.get_bind().dialect.name == "sqlite"
    return sqlite.insert(table) if on_sqlite else postgresql.insert(table)


def migrate(url: str, revision: str = "head") -> None:
    """Bring the schema to a revision (`base` empties it), up or down. Safe to call from several processes at once."""
    engine = make_engine(url)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK})
        config.attributes["connection"] = connection
        (command.downgrade if _is_older(connection, revision) else command.upgrade)(config, revision)
    engine.dispose()


def _is_older(connection: Connection, revision: str) -> bool:
    """Whether the way from the present schema to the revision leads down."""
    present = MigrationContext.configure(connection).get_current_revision()
    if revision == "base" or present is None:
        return revision == "base"
    steps = ScriptDirectory(str(MIGRATIONS)).iterate_revisions(present, "base")
    return revision in [step.revision for step in steps][1:]


def is_migrated(engine: Engine) -> bool:
    """Whether the schema is the one that this code was written for. Raises SQLAlchemyError if it cannot be asked."""
    with _reading(engine).connect() as connection:
        present = MigrationContext.configure(connection).get_current_heads()
    return set(present) == set(ScriptDirectory(str(MIGRATIONS)).get_heads())


def _with_driver(url: URL) -> URL:
    """`postgres://` and `postgresql://`, as hosting services hand them out, mean psycopg 3 here."""
    return url.set(drivername="postgresql+psycopg") if url.drivername in ("postgres", "postgresql") else url


def _prepare_sqlite(connection: Any, record: Any) -> None:
    connection.isolation_level = None  # the driver must not begin transactions by itself: `Turn.begin` does
    for pragma in (f"busy_timeout={BUSY_TIMEOUT_MS}", "journal_mode=WAL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


class Turn:
    """Lets the threads of this process write to SQLite one after the other.

    SQLite has one write at a time anyway. But it has the others try again at ever longer intervals, so that under load
    a transaction of milliseconds may come late by seconds. Other processes are met like that still.
    """

    def __init__(self) -> None:
        self._lock = Lock()

    def begin(self, connection: Connection) -> None:
        """A transaction that reads first and then writes would fail at once with "database is locked" if another has
        written in between, busy_timeout or not. Taking the writer's place at the start makes it wait instead.
        """
        if not connection.get_execution_options().get("read_only", False):
            connection.info["turn"] = self._lock.acquire(timeout=BUSY_TIMEOUT_MS / 1000)
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    def give_back(self, connection: Any, record: ConnectionPoolEntry) -> None:
        """The transaction is over, one way or the other: its connection goes back to the pool."""
        if record.info.pop("turn", False):
            self._lock.release()


class Idleness:
    """Looks whether the server is still there before a connection is used that has lain idle.

    A connection that was used a moment ago is taken as it is: to ask every time takes as long as a short query. If the
    server has gone in between, the one statement fails, and the pool is emptied.
    """

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect

    def begin(self, connection: Any, record: ConnectionPoolEntry) -> None:
        """The connection goes back to the pool."""
        record.info["idle_since"] = time.monotonic()

    def end(self, connection: Any, record: ConnectionPoolEntry, proxy: Any) -> None:
        """It is wanted again."""
        if time.monotonic() - record.info.get("idle_since", math.inf) > PING_AFTER_S:
            try:
                self._dialect.do_ping(connection)
            except self._dialect.loaded_dbapi.Error as error:
                raise InvalidatePoolError from error


def _dump_json(value: Any) -> str:
    return json.dumps(_finite(value), allow_nan=False)


def _finite(value: Any) -> Any:
    """NaN and infinities as null: a diverging loss is reported, but JSON has no word for it."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {key: _finite(item) for key, item in value.items()}
        case list() | tuple():
            return [_finite(item) for item in value]
        case _:
            return value
