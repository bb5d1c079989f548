"""`Client.datasets`: those that the service has, and one's own, uploaded as a zip or a folder."""

import base64
import hashlib
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from client.errors import NameTaken, NotFound, UploadFailed, WaitTimeout
from client.packing import BUFFER, pack
from client.transport import Transport

PART_BYTES = 16 << 20
EXAMINED = {"ready", "rejected"}
POLL_S = 1.0

OnStep = Callable[[str, int, int], None]
"""Called with what is being done (`packing`, `reading`, `sending`), the bytes that are done, and all of them."""


class Datasets:
    """Datasets, as the service answers them. A job calls one's own `upload:NAME`."""

    def __init__(self, transport: Transport):
        self._transport = transport

    def builtin(self) -> list[dict[str, Any]]:
        """The datasets that the service knows by itself, and whether it has their files."""
        return self._transport.json("GET", "/v1/datasets", params={"limit": 1})["data"]

    def list(self, limit: int | None = None) -> Iterator[dict[str, Any]]:
        """One's own, newest first."""
        return self._transport.pages("/v1/datasets", limit, entries="uploads")

    def get(self, name: str) -> dict[str, Any]:
        """A dataset by the id or name of one's own, or by the name of a built-in one. Raises `NotFound`."""
        name = name.removeprefix("upload:")
        own = None if name.startswith("ds_") else self._find(name)
        return self._transport.json("GET", f"/v1/datasets/{own['id'] if own else name}")

    def delete(self, name: str) -> None:
        """Delete one's own, by its id or name. Raises `DatasetInUse` while jobs that are not over use it."""
        dataset = self.get(name)
        if "id" not in dataset:
            raise UploadFailed(f"{name} is built in", advice="only what was uploaded can be removed")
        self._transport.request("DELETE", f"/v1/datasets/{dataset['id']}")

    def upload(self, path: str | Path, name: str, on_step: OnStep | None = None) -> dict[str, Any]:
        """Send a zip, or a folder, with `train/CLASS/*.png` and `test/CLASS/*.png`; the service then examines it.

        An upload that was interrupted goes on when it is repeated, and one that is complete is not sent again. Raises
        `NameTaken` where there is another dataset of this name, and `UploadFailed` for what cannot be read.
        """
        path, on_step = Path(path), on_step or (lambda *_: None)
        with tempfile.TemporaryDirectory(prefix="dream-upload-") as scratch:
            try:
                if path.is_dir():
                    packed = Path(scratch, "dataset.zip")
                    pack(path, packed, lambda done, total: on_step("packing", done, total))
                    path = packed
                with path.open("rb") as file:
                    return self._send(file, path.stat().st_size, name, on_step)
            except OSError as error:
                message = f"cannot read {path}: {error.strerror or error}"
                raise UploadFailed(message, advice="name a zip, or a folder with train/ and test/ in it") from None

    def wait(self, dataset_id: str, timeout: float | None = None) -> dict[str, Any]:
        """The dataset once it has been examined: `ready`, or `rejected` with a `report` that says why."""
        started = time.monotonic()
        while (dataset := self.get(dataset_id))["status"] not in EXAMINED:
            if timeout is not None and time.monotonic() - started >= timeout:
                raise WaitTimeout(f"{dataset['name']} is still {dataset['status']}", advice="it goes on; look again")
            time.sleep(POLL_S * random.uniform(0.8, 1.2))
        return dataset

    def _send(self, file: IO[bytes], size: int, name: str, on_step: OnStep) -> dict[str, Any]:
        digest = _sha256(file, size, on_step)
        dataset = self._begin(name, size, digest)
        if dataset["status"] != "uploading":
            return dataset
        arrived = {part["number"]: part["sha256"] for part in dataset["parts"]}
        number, done = 0, 0
        while part := file.read(PART_BYTES):
            number += 1
            fingerprint = hashlib.sha256(part)
            if arrived.get(number) != fingerprint.hexdigest():
                self._send_part(f"{dataset['urls']['self']}/parts/{number}", part, fingerprint.digest())
            done += len(part)
            on_step("sending", done, size)
        return self._transport.json("POST", dataset["urls"]["complete"], json={"parts": number, "sha256": digest})

    def _send_part(self, path: str, part: bytes, digest: bytes) -> None:
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Digest": f"sha-256=:{base64.b64encode(digest).decode()}:",
        }
        self._transport.request("PUT", path, content=part, headers=headers)

    def _begin(self, name: str, size: int, digest: str) -> dict[str, Any]:
        """A new dataset; or the one that an earlier call has begun with the same bytes."""
        try:
            body = {"name": name, "bytes": size, "sha256": digest}
            return self._transport.json("POST", "/v1/datasets", json=body)
        except NameTaken as taken:
            begun = self._find(name)
            if begun is None or begun["sha256"] != digest or begun["status"] == "rejected":
                taken.advice = f"`dream datasets rm {name}` removes the old one"
                raise
            return begun

    def _find(self, name: str) -> dict[str, Any] | None:
        found = [dataset for dataset in self.list() if dataset["name"] == name]
        if len(found) > 1:  # an administrator sees those of all owners
            ids = ", ".join(dataset["id"] for dataset in found)
            raise NotFound("NOT_FOUND", 404, f"{len(found)} datasets are called {name}; name one by its id: {ids}")
        return found[0] if found else None


def _sha256(file: IO[bytes], size: int, on_step: OnStep) -> str:
    """Of the whole file, which is left at its beginning."""
    whole = hashlib.sha256()
    while chunk := file.read(BUFFER):
        whole.update(chunk)
        on_step("reading", file.tell(), size)
    file.seek(0)
    return whole.hexdigest()
