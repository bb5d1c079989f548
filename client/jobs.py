"""`Client.jobs`: submit distillations, steer them, and look at how they go."""

import math
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import httpx2

from client import archive, logs, streaming, waiting
from client.archive import OnProgress
from client.download import Download, OnBytes, download
from client.resources import Event, Job
from client.transport import IDEMPOTENCY_KEY, Transport
from client.waiting import OnEvent

ArchiveFormat = Literal["safetensors", "npz", "imagefolder", "hf"]
Priority = Literal["high", "normal", "low"]


class Jobs:
    """Distillations: yours, or everyone's for an administrator."""

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
        priority: Priority = "normal",
        gpus: int = 1,
        gpu_class: str | None = None,
        idempotency_key: str | None = None,
    ) -> Job:
        """Submit a distillation. `params` and `evaluation` override the published recipe. `gpus` devices share the job;
        a worker of `gpu_class` takes it.

        A request whose answer is lost is sent again under the same `idempotency_key` (by default one of its own), and
        makes no second job. Raises `ValidationFailed`, whose `errors` names every field that is wrong,
        `DatasetMissing`, or `QuotaExceeded`.
        """
        resources = {"gpus": gpus, "gpu_class": gpu_class, "max_runtime_s": max_runtime_s}
        body = _body(dataset, method, ipc, seed, params, evaluation, name, metadata, resources, priority)
        return self._submit("/v1/jobs", body, idempotency_key)

    def estimate(
        self,
        dataset: str,
        method: str = "dream",
        ipc: int = 1,
        seed: int = 0,
        params: dict[str, Any] | None = None,
        evaluation: dict[str, Any] | None = None,
        priority: Priority = "normal",
    ) -> dict[str, Any]:
        """What such a job would take: `seconds` with their error bars, `memory_bytes`, `disk_bytes`, its `queue` place.

        Submits nothing. Raises what `create` would raise for the job itself.
        """
        body = _body(dataset, method, ipc, seed, params, evaluation, None, None, {}, priority)
        return self._transport.json("POST", "/v1/estimates", json=body)

    def get(self, job_id: str, known: Job | None = None) -> Job:
        """The job as it is now; `known` itself if it has not changed since. Raises `NotFound` or `Gone`."""
        headers = {"If-None-Match": f'W/"{known.version}"'} if known else {}
        response = self._transport.request("GET", f"/v1/jobs/{job_id}", headers=headers)
        if known and response.status_code == httpx2.codes.NOT_MODIFIED:
            return known
        return Job.from_json(self._transport.decode(response))

    def list(
        self, limit: int | None = None, metadata: Mapping[str, str] | None = None, **filters: str | Sequence[str]
    ) -> Iterator[Job]:
        """Jobs, newest first, page by page, of those that have all pairs of `metadata`.

        Filters: `status` (one or several), `method`, `dataset`, `created_after` and `created_before` (RFC 3339); with
        `order="asc"` the oldest come first.
        """
        pairs = {f"metadata[{key}]": value for key, value in (metadata or {}).items()}
        return map(Job.from_json, self._transport.pages("/v1/jobs", limit, {**filters, **pairs}))

    def update(
        self,
        job_id: str,
        *,
        name: str | None = None,
        metadata: dict[str, str] | None = None,
        priority: Priority | None = None,
        version: int | None = None,
    ) -> Job:
        """Change what is given. An empty `name` takes the name away; `metadata` stands for all pairs.

        With `version`, raises `PreconditionFailed` where the job has changed since. Raises `IllegalTransition` for the
        priority of a job that no longer waits.
        """
        given = {"name": name, "metadata": metadata, "priority": priority}
        body = {
            field: value or None if field == "name" else value for field, value in given.items() if value is not None
        }
        headers = {} if version is None else {"If-Match": f'W/"{version}"'}
        return Job.from_json(self._transport.json("PATCH", f"/v1/jobs/{job_id}", json=body, headers=headers))

    def delete(self, job_id: str) -> None:
        """Delete a job that is over, with its files. Raises `JobNotOver`."""
        self._transport.request("DELETE", f"/v1/jobs/{job_id}")

    def cancel(self, job_id: str, mode: Literal["graceful", "now"] = "graceful") -> Job:
        """Ask for a stop. The job is `cancelling` until its worker has stopped and kept what it had made by then.

        `now` waits for no worker and keeps nothing. Raises `IllegalTransition` if it has succeeded or failed.
        """
        return self._steer(job_id, "cancel", {"mode": mode})

    def pause(self, job_id: str) -> Job:
        """Ask for a pause. The job is `pausing` until its worker has written a checkpoint and is free for others."""
        return self._steer(job_id, "pause")

    def resume(self, job_id: str) -> Job:
        """Queue a paused job again. It goes on from its checkpoint, and ends with the same bytes."""
        return self._steer(job_id, "resume")

    def retry(
        self,
        job_id: str,
        from_checkpoint: Literal["latest"] | int | None = None,
        more_iterations: int | None = None,
        name: str | None = None,
        priority: Priority = "normal",
        idempotency_key: str | None = None,
    ) -> Job:
        """A new job that does what this one did, or goes on from its checkpoint (`latest`, or the step of one).

        `more_iterations` go beyond its end. Raises `JobNotOver` or `NoCheckpoint`.
        """
        body = {
            "from_checkpoint": from_checkpoint, "more_iterations": more_iterations, "name": name, "priority": priority,
        }  # fmt: skip
        return self._submit(f"/v1/jobs/{job_id}/retry", body, idempotency_key)

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

    def stream(
        self, job_id: str, after: int = 0, types: Sequence[str] = (), until: float = math.inf
    ) -> Iterator[Event]:
        """What has happened after the event numbered `after`, and then what happens, until the job is over.

        Only events of these `types`; none means all. A connection that breaks is opened again, and no event comes
        twice. Ends early once `until` on the monotonic clock has come.
        """
        return streaming.follow(self._transport, job_id, after, types, until)

    def wait(self, job_id: str, timeout: float | None = None, on_event: OnEvent | None = None) -> Job:
        """The job once it is over, however it ended. `on_event` sees every event, from the first.

        Raises `WaitTimeout` after `timeout` seconds; the job goes on. A service that is away for less than a
        minute is waited for.
        """
        return waiting.wait(self, job_id, timeout, on_event)

    def manifest(self, job_id: str) -> dict[str, Any]:
        """What the job made: its files with sizes and hashes, and how the pixels are to be used."""
        return self._transport.json("GET", f"/v1/jobs/{job_id}/artifacts")

    def download(self, job_id: str, directory: str | Path, on_bytes: OnBytes | None = None) -> Download:
        """Fetch and verify every file that the job made. An interrupted download goes on where it stopped."""
        return download(self._transport, job_id, Path(directory), on_bytes)

    def archive(
        self, job_id: str, target: str | Path, form: ArchiveFormat = "safetensors", on_bytes: OnProgress | None = None
    ) -> Path:
        """Fetch the result as one file, at `target` or in that folder, and say where it is.

        `safetensors` has all files as they are, `npz` the images for NumPy, `imagefolder` and `hf` PNG files.
        """
        return archive.fetch(self._transport, job_id, Path(target), form, on_bytes)

    def metrics(self, job_id: str, keys: Sequence[str] = (), max_points: int = 1000) -> "list[dict[str, Any]]":
        """What was measured, a series for each key (as `loss`) and phase, thinned out so that its shape stays."""
        query = {"keys": list(keys), "max_points": max_points}
        return self._transport.json("GET", f"/v1/jobs/{job_id}/metrics", params=query)["data"]

    def previews(self, job_id: str) -> "list[dict[str, Any]]":
        """The pictures of the synthetic set as it grows: step, url, bytes, created_at."""
        return self._transport.json("GET", f"/v1/jobs/{job_id}/previews")["data"]

    def preview(self, job_id: str, step: int) -> bytes:
        """One of these pictures, a WebP file."""
        return self._transport.request("GET", f"/v1/jobs/{job_id}/previews/{step}.webp").content

    def log(self, job_id: str) -> str:
        """What the job's workers have said so far, all attempts in a row."""
        return self._transport.request("GET", f"/v1/jobs/{job_id}/logs").content.decode(errors="replace")

    def follow_log(self, job_id: str) -> Iterator[str]:
        """What the job's workers have said, and then what they say, until the job is over."""
        return logs.follow(self._transport, job_id, lambda: self.get(job_id).finished)

    def compare(self, *job_ids: str) -> dict[str, Any]:
        """Two to eight jobs side by side: `jobs`, `differences` of their recipes, `curves`, `results`."""
        return self._transport.json("GET", "/v1/compare", params={"ids": ",".join(job_ids)})

    def checkpoints(self, job_id: str) -> "list[dict[str, Any]]":
        """The states that a retry can go on from, the oldest first: step, total, phase, loss, bytes, created_at."""
        return self._transport.json("GET", f"/v1/jobs/{job_id}/checkpoints")["data"]

    def _submit(self, path: str, body: dict[str, Any], key: str | None) -> Job:
        headers = {IDEMPOTENCY_KEY: key or str(uuid.uuid4())}
        return Job.from_json(self._transport.json("POST", path, json=body, headers=headers))

    def _steer(self, job_id: str, verb: str, query: dict[str, str] | None = None) -> Job:
        return Job.from_json(self._transport.json("POST", f"/v1/jobs/{job_id}/{verb}", params=query))


def _body(
    dataset: str,
    method: str,
    ipc: int,
    seed: int,
    params: dict[str, Any] | None,
    evaluation: dict[str, Any] | None,
    name: str | None,
    metadata: dict[str, str] | None,
    resources: dict[str, Any],
    priority: str,
) -> dict[str, Any]:
    """What is sent to submit a job, or to estimate one."""
    spec = {
        "dataset": dataset,
        "method": method,
        "ipc": ipc,
        "seed": seed,
        "params": params or {},
        "evaluation": evaluation or {},
        "resources": resources,
    }
    return {"spec": spec, "name": name, "metadata": metadata or {}, "priority": priority}
