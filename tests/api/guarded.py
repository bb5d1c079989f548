"""A service that asks for keys, and ways to have them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

import httpx2
from pydantic import SecretStr

from jobs import keys
from jobs.settings import Settings
from tests.api.conftest import Service, serving

ADMIN_KEY = keys.new_token()
EVERYDAY = ("jobs:read", "jobs:write", "datasets:write")
JOB = {"spec": {"dataset": "digits", "method": "dream", "ipc": 1}}


@dataclass(frozen=True)
class Guarded:
    """A running service where nobody is let in without a key."""

    service: Service
    http: httpx2.Client

    def key(self, owner: str, *scopes: str, expires_at: datetime | None = None) -> tuple[str, str]:
        """The id and the token of a new key."""
        hashing = keys.hashing_key(self.service.settings)
        key, token = self.service.call(keys.create_key, hashing, owner, scopes or EVERYDAY, expires_at=expires_at)
        return key.id, token

    def ask(self, method: str, path: str, token: str | None = ADMIN_KEY, **about) -> httpx2.Response:
        """Send a request with this key."""
        return self.http.request(method, path, headers=bearer(token) | about.pop("headers", {}), **about)

    def submit(self, token: str) -> str:
        """A new job's id."""
        response = self.ask("POST", "/v1/jobs", token, json=JOB)
        assert response.status_code == 202, response.text
        return response.json()["id"]


@contextmanager
def guarded(settings: Settings, **changes) -> Iterator[Guarded]:
    """The service with these settings changed. The administrator has ADMIN_KEY."""
    changes = {"require_key": True, "admin_key": SecretStr(ADMIN_KEY)} | changes
    with serving(settings.model_copy(update=changes)) as service, httpx2.Client(base_url=service.url) as http:
        yield Guarded(service, http)


def bearer(token: str | None) -> dict[str, str]:
    """The header that carries a key."""
    return {} if token is None else {"Authorization": f"Bearer {token}"}
