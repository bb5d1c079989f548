"""The Python SDK: `Client().jobs.create(...)`, `.wait(...)`, `.download(...)`."""

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from client.download import Download, OnBytes, download
from client.errors import ApiError, ServiceUnreachable, WaitTimeout
from client.resources import Event, Job
from client.transport import Transport

POLL_S = 1.0
PATIENCE_S = 60.0
"""How long `wait` puts up with a service that does not answer, as while it is restarted."""


class Client:
    """A dream service at `base_url` (default: the environment's DREAM_URL, else http://127.0.0.1:8000).

    `timeout` is in seconds, per request. Close it after use, or use it in a `with`.
    """

    def __init__(self, base_url: str | None = None, timeout: float = 30.0):
        self._transport = Transport(base_url, timeout)
        self.base_url = self._transport.base_url
        self.jobs = Jobs(self._transport)

    def methods(self) -> list[dict[str, Any]]:
        """The methods that the service knows: name, summary, params_schema, presets, ..."""
        return self._transport.json("GET", "/v1/methods")["data"]

    def method(self, name: str) -> dict[str, Any]:
        """One of the methods. Raises `NotFound`, which lists the names, where there is none of that name."""
        return self._transport.json("GET", f"/v1/methods/{quote(name, safe='')}")

    def datasets(self) -> list[dict[str, Any]]:
        """The datasets that the service knows, and whether it has their files."""
        return self._transport.json("GET", "/v1/datasets")["data"]

    def health(self) -> dict[str, Any]:
        """The answer of /readyz. Raises `ApiError` where the service runs but is not ready."""
        return self._transport.json("GET", "/readyz")

    def close(self) -> None:
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Jobs:
    def __init__(self, transport: Transport):
        self._transport = transport

    def create(
        self,
        dataset: str,
        method: str = "dream",
        ipc: int = 1,
        seed: int = 0,
        params: dict[str, Any] | None = None,
        evaluation: dict[str, Any] | None = None,
        name: str | None = None,
        metadata: dict[str, str] | None = None,
        max_runtime_s: int | None = None,
    ) -> Job:
        """Submit a distillation. `params` and `evaluation` override the published recipe.

        Raises `ValidationFailed`, whose `errors` names every field that is wrong, or `DatasetMissing`.
        """
        spec = {
            "dataset": dataset,
            "method": method,
            "ipc": ipc,
            "seed": seed,
            "params": params or {},
            "evaluation": evaluation or {},
            "resources": {"max_runtime_s": max_runtime_s},
        }
        body = {"spec": spec, "name": name, "metadata": metadata or {}}
        return Job.from_json(self._transport.json("POST", "/v1/jobs", json=body))

    def get(self, job_id: str) -> Job:
        return Job.from_json(self._transport.json("GET", f"/v1/jobs/{job_id}"))

    def list(self, limit: int | None = None, **filters: str) -> Iterator[Job]:
        """Jobs, newest first, page by page. Filters: `status`, `method`, `dataset`."""
        remaining, cursor = limit, None
        while remaining is None or remaining > 0:
            query = {"limit": min(remaining or 100, 100), "cursor": cursor, **filters}
            page = self._transport.json("GET", "/v1/jobs", params={k: v for k, v in query.items() if v is not None})
            yield from map(Job.from_json, page["data"])
            remaining = None if remaining is None else remaining - len(page["data"])
            cursor = page.get("next_cursor")
            if not cursor:
                return

    def cancel(self, job_id: str) -> Job:
        """Ask for a stop. The job is `cancelling` until its worker has stopped.

        Raises `IllegalTransition` if it has succeeded or failed.
        """
        return Job.from_json(self._transport.json("POST", f"/v1/jobs/{job_id}/cancel"))

    def events(self, job_id: str, after: int = 0) -> Iterator[Event]:
        """What has happened so far, oldest first; only what came after the event numbered `after`."""
        while True:
            page = self._transport.json("GET", f"/v1/jobs/{job_id}/events", params={"after": after, "limit": 100})
            for raw in page["data"]:
                event = Event.from_json(raw)
                after = event.seq
                yield event
            if not page.get("has_more"):
                return

    def wait(self, job_id: str, timeout: float | None = None, on_event: Callable[[Event], None] | None = None) -> Job:
        """The job once it is over, however it ended. `on_event` sees every event, from the first.

        Raises `WaitTimeout` after `timeout` seconds; the job goes on. A service that is away for less than a
        minute is waited for.
        """
        started = last_answer = time.monotonic()
        after = 0
        while True:
            try:
                job = self.get(job_id)
                if on_event:
                    for event in self.events(job_id, after):
                        on_event(event)
                        after = event.seq
                if job.finished:
                    return job
                last_answer = time.monotonic()
            except (ServiceUnreachable, ApiError) as error:
                if not _passes(error) or time.monotonic() - last_answer > PATIENCE_S:
                    raise
            if timeout is not None and time.monotonic() - started >= timeout:
                raise WaitTimeout(f"{job_id} is not finished after {timeout:g} s", advice="it goes on; wait again")
            # jitter, so that many waiting clients do not ask in step
            pause = POLL_S * random.uniform(0.8, 1.2)
            time.sleep(pause if timeout is None else max(0, min(pause, started + timeout - time.monotonic())))

    def manifest(self, job_id: str) -> dict[str, Any]:
        """What the job made: its files with sizes and hashes, and how the pixels are to be used."""
        return self._transport.json("GET", f"/v1/jobs/{job_id}/artifacts")

    def download(self, job_id: str, directory: str | Path, on_bytes: OnBytes | None = None) -> Download:
        """Fetch and verify every file that the job made. An interrupted download goes on where it stopped."""
        return download(self._transport, job_id, Path(directory), on_bytes)


def _passes(error: ServiceUnreachable | ApiError) -> bool:
    """Whether waiting may help."""
    return isinstance(error, ServiceUnreachable) or error.status >= 500 or error.status == 429
