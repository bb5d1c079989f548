"""Conditional and negotiated requests (RFC 9110): which version has the client got, which part and which kind of it
does it want?
"""

import re

from fastapi import Request

from api.problems import Problem

MAX_RANGES = 100
_BOUNDS = re.compile(r"(?=.*[0-9])([0-9]{0,18})-([0-9]{0,18})")
_WEIGHT = re.compile(r"q=([01](?:\.[0-9]{0,3})?)")

Span = tuple[int, int]
"""The first byte, and the one behind the last."""


def matches(request: Request, etag: str) -> bool:
    """Whether If-None-Match names this entity tag, compared weakly."""
    wanted = request.headers.get("if-none-match")
    return wanted is not None and not {"*", etag.removeprefix("W/")}.isdisjoint(
        tag.removeprefix("W/") for tag in _listed(wanted)
    )


def require_match(request: Request, etag: str) -> None:
    """Raise a Problem where If-Match names other entity tags than this one, compared strongly."""
    wanted = request.headers.get("if-match")
    if wanted is not None and {"*", etag}.isdisjoint(_listed(wanted)):
        raise Problem("PRECONDITION_FAILED", "If-Match names another version than there is")


def wanted_ranges(request: Request, size: int, etag: str) -> list[Span] | None:
    """The parts of `size` bytes that Range asks for, in order; None for the whole.

    What is no range of bytes, too many of them, or ranges of another version than `etag` (a strong one), means the
    whole; and so does any range of nothing. Raises a Problem for ranges of which none has a byte in it: `at_end` says
    that one begins right where the bytes end, so that whoever waits for more has all that there is yet.
    """
    unit, _, text = request.headers.get("range", "").partition("=")
    if request.method != "GET" or unit.lower() != "bytes" or request.headers.get("if-range", etag) != etag:
        return None
    named = _listed(text)
    if size == 0 or not 0 < len(named) <= MAX_RANGES:
        return None
    spans = []
    for words in named:
        found = _BOUNDS.fullmatch(words)
        if found is None or (all(found.groups()) and int(found[1]) > int(found[2])):
            return None
        spans.append(_span(found[1], found[2], size))
    if parts := sorted((start, end) for start, end in spans if start < end):
        return parts
    raise Problem(
        "RANGE_NOT_SATISFIABLE",
        f"there are {size} bytes, and the range begins behind them",
        headers={"Content-Range": f"bytes */{size}"},
        size=size,
        at_end=any(start == size for start, _ in spans),
    )


def preferred(request: Request, *offered: str) -> str:
    """The media type that Accept prefers of those offered; the first where it does not mind, or wants none of them."""
    weights: dict[str, float] = {}
    for entry in _listed(request.headers.get("accept", "*/*")):
        name, *parameters = (part.strip().lower() for part in entry.split(";"))
        weights[name] = next((float(found[1]) for text in parameters if (found := _WEIGHT.fullmatch(text))), 1.0)

    def weight(media_type: str) -> float:
        names = (media_type, f"{media_type.partition('/')[0]}/*", "*/*")
        return next((weights[name] for name in names if name in weights), 0.0)

    return max(offered, key=weight)


def _listed(header: str) -> list[str]:
    return [entry for part in header.split(",") if (entry := part.strip(" \t"))]


def _span(first: str, last: str, size: int) -> Span:
    if not first:
        return max(size - int(last), 0), size
    return int(first), min(int(last) + 1, size) if last else size
