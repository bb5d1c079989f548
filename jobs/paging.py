"""Lists, page by page, that stay right while they grow: behind a place, not behind a number of rows."""

from datetime import datetime
from typing import TypeVar

from sqlalchemy import Select, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session

Row = TypeVar("Row")
Place = tuple[InstrumentedAttribute[datetime], InstrumentedAttribute[str]]


def page(session: Session, query: Select[Row], limit: int) -> tuple[list[Row], bool]:
    """The first `limit` rows of a query that is in order, and whether there are more."""
    found = list(session.scalars(query.limit(limit + 1)))
    return found[:limit], len(found) > limit


def page_by_age(
    session: Session,
    query: Select[Row],
    place: Place,
    limit: int,
    after: tuple[datetime, str] | None = None,
    ascending: bool = False,
) -> tuple[list[Row], bool]:
    """Rows from the newest on, or from the oldest, and whether there are more.

    `place` are the columns of a row's time and id, `after` their values in the last row seen.
    """
    query = query.order_by(*(column.asc() if ascending else column.desc() for column in place))
    if after:
        here, there = tuple_(*place), tuple_(*after, types=[column.type for column in place])
        query = query.where(here > there if ascending else here < there)
    return page(session, query, limit)
