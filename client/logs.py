"""A job's log as it grows."""

import codecs
import random
import time
from collections.abc import Callable, Iterator

from client.errors import ApiError
from client.transport import Transport

NOTHING_NEW = 416
POLL_S = 1.0


def follow(transport: Transport, job_id: str, over: Callable[[], bool]) -> Iterator[str]:
    """What is in the log, and then what is added to it, until the job is `over`."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    at = 0
    while True:
        last = over()  # asked before looking, so that nothing is missed
        while chunk := read(transport, job_id, at):
            at += len(chunk)
            yield decoder.decode(chunk)
        if last:
            return
        time.sleep(POLL_S * random.uniform(0.8, 1.2))


def read(transport: Transport, job_id: str, start: int) -> bytes:
    """The log from this byte on; empty where there is nothing yet."""
    try:
        return transport.request("GET", f"/v1/jobs/{job_id}/logs", headers={"Range": f"bytes={start}-"}).content
    except ApiError as error:
        if error.status != NOTHING_NEW:
            raise
        return b""
