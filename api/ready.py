"""Answers that are ready to be sent."""

from collections.abc import Mapping

from fastapi import Response

from api.schemas.base import Output


def answer(content: Output, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """The content as JSON. For what is asked for often: a schema that a route returns is validated, and serialised in
    a thread of its own, which takes longer than to look it up.
    """
    return Response(content.model_dump_json(by_alias=True), status, headers, "application/json")
