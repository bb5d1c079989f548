"""One page for browsers, that takes a job and shows it. It asks the API for all it shows, with its user's key."""

import hashlib
from dataclasses import dataclass
from importlib.resources import files

from fastapi import APIRouter, Request
from fastapi.responses import Response

from api.conditional import matches
from api.problems import not_found

router = APIRouter(include_in_schema=False)

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True, slots=True)
class Part:
    """A file of the page, as it is sent."""

    content: bytes
    media_type: str
    etag: str

    @classmethod
    def read(cls, name: str, media_type: str) -> "Part":
        """From beside this package."""
        content = files("api").joinpath("web", name).read_bytes()
        return cls(content, media_type, f'"{hashlib.sha256(content).hexdigest()}"')


_PAGE = Part.read("index.html", "text/html")
_PARTS = {
    "api.js": Part.read("api.js", "text/javascript"),
    "page.js": Part.read("page.js", "text/javascript"),
    "page.css": Part.read("page.css", "text/css"),
    "icon.svg": Part.read("icon.svg", "image/svg+xml"),
}


@router.api_route("/", methods=["GET", "HEAD"])
async def get_page(request: Request) -> Response:
    """The page. Nobody needs a key for it; what it asks for may need one."""
    return _answer(_PAGE, request)


@router.api_route("/web/{name}", methods=["GET", "HEAD"])
async def get_part_of_page(name: str, request: Request) -> Response:
    """Its script, style and icon."""
    if name not in _PARTS:
        raise not_found("part of the page", name)
    return _answer(_PARTS[name], request)


def _answer(part: Part, request: Request) -> Response:
    headers = {"ETag": part.etag, "Cache-Control": "no-cache", "Content-Security-Policy": _POLICY}
    if matches(request, part.etag):
        return Response(status_code=304, headers=headers)
    return Response(part.content, headers=headers, media_type=part.media_type)
