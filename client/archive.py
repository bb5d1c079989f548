"""Fetches a job's result as one file, made while it is sent."""

import os
from collections.abc import Callable
from pathlib import Path

from client.errors import DownloadFailed
from client.transport import Transport

OnProgress = Callable[[int, int | None], None]
"""Called with the bytes that are here, and all of them where that is known."""


def fetch(transport: Transport, job_id: str, target: Path, form: str, on_bytes: OnProgress | None = None) -> Path:
    """Write it to `target`, or into that folder under a name of its own; in place whole or not at all.

    Returns where it is.
    """
    with transport.stream(
        f"/v1/jobs/{job_id}/archive", {"Accept": "application/zip"}, params={"format": form}
    ) as response:
        if target.is_dir():
            target /= f"{job_id}.npz" if form == "npz" else f"{job_id}-{form}.zip"
        part = target.with_name(target.name + ".part")
        length = response.headers.get("Content-Length")
        try:
            with part.open("wb") as file:
                for chunk in response.iter_bytes(1 << 18):
                    file.write(chunk)
                    if on_bytes:
                        on_bytes(file.tell(), int(length) if length else None)
            os.replace(part, target)
        except OSError as error:
            raise DownloadFailed(
                f"cannot write {target}: {error.strerror or error}", advice="free space, or choose another place"
            ) from None
        finally:
            part.unlink(missing_ok=True)
    return target
