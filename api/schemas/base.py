"""What all schemas share. Independent of the tables: a column is not a promise, a field here is."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

MAX_PAGE = 100


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must not contain control characters")
    return text


Text = Annotated[str, AfterValidator(_printable)]
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
