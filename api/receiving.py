"""Bodies that go to the disk as they come, and what is said of them."""

import base64
import re

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from api.problems import Problem, invalid
from jobs.parts import Incoming, PartTooLarge

_DIGEST = re.compile(r"(?:^|,)\s*sha-256=:([A-Za-z0-9+/=]*):")
_BUFFER = 1 << 20


async def receive(request: Request, incoming: Incoming) -> None:
    """Write the body, a mebibyte at a time and not in the way of other requests. Raises a Problem if too large."""
    buffer = bytearray()
    try:
        async for chunk in request.stream():
            buffer += chunk
            if len(buffer) >= _BUFFER:
                await run_in_threadpool(incoming.write, bytes(buffer))
                buffer.clear()
        await run_in_threadpool(incoming.write, bytes(buffer))
    except PartTooLarge as error:
        raise Problem("PAYLOAD_TOO_LARGE", str(error)) from None
    except ClientDisconnect:
        raise Problem("BAD_REQUEST", "the connection ended before the whole part had arrived") from None
    if not incoming.size:
        raise invalid("#", "EMPTY_PART", "a part has one byte at least")


def require_digest(request: Request, incoming: Incoming) -> None:
    """Raise a Problem where Content-Digest or Repr-Digest (RFC 9530) say something else. Only SHA-256 counts."""
    for header in ("Content-Digest", "Repr-Digest"):
        given = _DIGEST.search(request.headers.get(header, ""))
        if given and base64.b64encode(bytes.fromhex(incoming.sha256)).decode() != given[1]:
            message = f"what has arrived has not the SHA-256 that {header} says; send the part again"
            raise invalid("#", "DIGEST_MISMATCH", message)
