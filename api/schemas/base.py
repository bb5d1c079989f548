"""What all schemas share. Independent of the tables: a column is not a promise, a field here is."""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

MAX_PAGE = 100


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must not contain control characters")
    return text


Text = Annotated[str, AfterValidator(_printable)]


def _rfc3339(moment: Any) -> Any:
    """Numbers, and text that reads like one, are datetimes to pydantic, but not to the schema."""
    if not isinstance(moment, str) or not re.match(r"\d{4}-\d\d-\d\d[Tt ]\d\d:", moment):
        raise ValueError("must be a moment with its time zone, as in 2026-01-31T12:00:00Z")
    return moment


Moment = Annotated[AwareDatetime, BeforeValidator(_rfc3339)]
Limit = Annotated[int, Field(ge=1), AfterValidator(lambda limit: min(limit, MAX_PAGE))]
Cursor = Annotated[str, Field(max_length=200)]


class Input(BaseModel):
    """What comes in. Unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Output(BaseModel):
    """What goes out."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class PageQuery(Input):
    """Which page of a list."""

    limit: Limit = 20
    """Entries on a page; more than 100 means 100."""
    cursor: Cursor | None = None
    """`next_cursor` of the page before."""
