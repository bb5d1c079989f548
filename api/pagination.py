"""Places in a list that stay right while the list grows."""

import base64
import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Protocol

from api.problems import Problem, invalid


class Row(Protocol):
    """What lists are made of."""

    @property
    def id(self) -> Any: ...
    @property
    def created_at(self) -> Any: ...


def encode_cursor(created_at: datetime, row_id: str) -> str:
    """The place behind this row, as text that means nothing to its bearer."""
    place = json.dumps([created_at.isoformat(), row_id])
    return base64.urlsafe_b64encode(place.encode()).decode()


def next_cursor(found: Sequence[Row], more: bool) -> str | None:
    """The place behind the last of the rows; None where no more come."""
    return encode_cursor(found[-1].created_at, found[-1].id) if more else None


def decode_cursor(cursor: str | None) -> tuple[datetime, str] | None:
    """The (created_at, id) that a cursor points behind; None for none. Raises a Problem for what is no cursor."""
    if cursor is None:
        return None
    try:
        moment, row_id = json.loads(base64.urlsafe_b64decode(cursor.encode()))
        created_at = datetime.fromisoformat(moment)
    except (ValueError, TypeError):
        raise no_cursor() from None
    if created_at.tzinfo is None or not isinstance(row_id, str) or not row_id.isprintable():
        raise no_cursor()
    return created_at, row_id


def no_cursor() -> Problem:
    """422."""
    message = "is not a cursor of this list; take `next_cursor` of the page before"
    return invalid("?cursor", "INVALID_CURSOR", message, f"cursor: {message}")
