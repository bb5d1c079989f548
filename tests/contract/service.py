"""A service with jobs in every state, for requests that nobody has thought of."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
from pydantic import SecretStr

from jobs import repository
from jobs.keys import new_token
from jobs.lifecycle import Status
from jobs.settings import Settings
from tests.api.conftest import Service, serving

KEY = new_token()
SPEC = {"dataset": "digits", "method": "dream", "ipc": 1}


@contextmanager
def stocked(settings: Settings) -> Iterator[tuple[Service, list[str]]]:
    """The running service, which asks for keys, and the ids of its jobs."""
    with serving(settings) as service, httpx2.Client(base_url=service.url) as http:
        ids = [_submit(http) for _ in range(8)]
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
        yield service, ids


def _submit(http: httpx2.Client) -> str:
    answer = http.post("/v1/jobs", json={"spec": SPEC, "metadata": {"made": "for the test"}})
    assert answer.status_code == 202, answer.text
    return answer.json()["id"]
