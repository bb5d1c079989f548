"""Conditional requests (RFC 9110): has the client got this version already?"""

from fastapi import Request


def matches(request: Request, etag: str) -> bool:
    """Whether If-None-Match names this entity tag, compared weakly."""
    wanted = request.headers.get("if-none-match")
    if wanted is None:
        return False
    tags = {tag.strip().removeprefix("W/") for tag in wanted.split(",")}
    return "*" in tags or etag.removeprefix("W/") in tags
