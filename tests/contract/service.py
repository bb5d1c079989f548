"""A service with jobs in every state, for requests that nobody has thought of."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
from pydantic import SecretStr

from jobs import operations, repository
from jobs.keys import new_token
from jobs.lifecycle import Status
from jobs.queue import QUEUE
from jobs.settings import Settings
from tests.api.conftest import Service, serving

KEY = new_token()
MANY = 6
"""Of what a request may delete, so that others find some."""
SPEC = {"dataset": "digits", "method": "dream", "ipc": 1}


@contextmanager
def stocked(settings: Settings) -> Iterator[tuple[Service, dict[str, list[str]]]]:
    """The running service, which asks for keys, and what is in it, by the names of path parameters."""
    private = settings.model_copy(update={"webhook_allow_private": True})
    with serving(private) as service, httpx2.Client(base_url=service.url) as http:
        webhooks = [_made(http, "/v1/webhooks", {"url": "http://127.0.0.1:9/hook"}) for _ in range(MANY)]
        ids = [_made(http, "/v1/jobs", {"spec": SPEC, "metadata": {"made": "for the test"}}) for _ in range(8)]
        _, running, cancelling, pausing, paused, cancelled, failed, succeeded = ids
        for job_id in (running, cancelling, pausing):
            service.claim(job_id)
        http.post(f"/v1/jobs/{cancelling}/cancel")
        http.post(f"/v1/jobs/{pausing}/pause")
        http.post(f"/v1/jobs/{paused}/pause")
        http.post(f"/v1/jobs/{cancelled}/cancel")
        service.claim(failed)
        error = {"class": "timeout", "code": "MAX_RUNTIME", "message": "too long"}
        service.call(repository.settle, failed, 1, Status.FAILED, error=error)
        service.succeed(succeeded, {"synthetic.safetensors": b"tensors", "gallery.png": b"picture"})
        service.call(operations.report_worker, "worker-1", QUEUE, {}, running)
        known = {
            "job_id": ids,
            "webhook_id": webhooks,
            "delivery_id": [sent["id"] for webhook in webhooks for sent in _deliveries(http, webhook)],
            "dataset_id": [_made(http, "/v1/datasets", {"name": f"images-{number}"}) for number in range(MANY)],
            "key_id": [_made(http, "/v1/keys", {"name": f"key {number}", "owner": "ann"}) for number in range(MANY)],
            "owner": ["ann", "local"],
            "worker_id": ["worker-1"],
            "name": ["dream", QUEUE, "not-found"],
            "path": ["manifest.json", "synthetic.safetensors", "gallery.png"],
        }
    plenty = "1000000/minute"
    guarded = settings.model_copy(
        update={
            "require_key": True,
            "admin_key": SecretStr(KEY),
            "rate_limit": plenty,
            "failed_key_limit": plenty,
            "max_queued": None,
        }
    )
    with serving(guarded) as service:
        yield service, known


def _made(http: httpx2.Client, path: str, body: dict[str, object]) -> str:
    """The id of what the request has made."""
    answer = http.post(path, json=body)
    assert answer.is_success, answer.text
    return answer.json()["id"]


def _deliveries(http: httpx2.Client, webhook_id: str) -> list[dict[str, str]]:
    return http.get(f"/v1/webhooks/{webhook_id}/deliveries").json()["data"]
