"""From one database to another of the same schema: how a service that began on SQLite moves to PostgreSQL."""

from typing import Any

from sqlalchemy import Connection, Engine, Select, Table, func, insert, select

from jobs.tables import Base

BATCH = 1000


def copy_rows(source: Engine, target: Engine) -> int:
    """Copy all rows of all tables, in one transaction; how many. The target's tables are there, and empty.

    Both engines are closed. Raises what the databases raise.
    """
    copied = 0
    try:
        with source.connect() as reading, target.begin() as writing:
            for table in Base.metadata.sorted_tables:
                rows = reading.execute(_in_order(table).execution_options(yield_per=BATCH)).mappings()
                for batch in rows.partitions():
                    writing.execute(insert(table), [dict(row) for row in batch])
                    copied += len(batch)
                counted = table.autoincrement_column
                if counted is not None and target.dialect.name == "postgresql":
                    _count_on(writing, table, counted.name)
    finally:
        source.dispose()
        target.dispose()
    return copied


def _in_order(table: Table) -> Select[Any]:
    """What rows refer to in their own table is older than they are."""
    return select(table).order_by(*(table.c[name] for name in ("created_at",) if name in table.c), *table.primary_key)


def _count_on(connection: Connection, table: Table, column: str) -> None:
    """Have PostgreSQL give the next row a number that is free."""
    sequence = func.pg_get_serial_sequence(table.name, column)
    connection.execute(select(func.setval(sequence, func.max(table.c[column]))))
