"""Every route of the API, asked for by everyone there is: who is let in, who is not, and that those change nothing."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from sqlalchemy import func, select

from api.app import create_app
from jobs import keys, operations, outbox
from jobs.outbox import EventType
from jobs.queue import QUEUE
from jobs.repository import utcnow
from jobs.settings import Settings
from jobs.tables import AuditEntry, WebhookDelivery
from tests.api.guarded import ADMIN_KEY, JOB, Guarded, guarded

PUBLIC, READ, WRITE, UPLOAD, ADMIN = "public", "jobs:read", "jobs:write", "datasets:write", "admin"
URL = {"url": "https://hooks.example.org/dream"}


class World:
    """Anna's things, and the keys of all who come and ask for them."""

    def __init__(self, api: Guarded) -> None:
        self.api = api
        self.anna = api.key("anna", READ, WRITE, UPLOAD)[1]
        revoked_id, revoked = api.key("anna")
        api.service.call(keys.revoke_key, revoked_id)
        self.tokens = {
            "no key": None,
            "wrong key": keys.new_token(),
            "malformed key": "drk_abc",
            "expired key": api.key("anna", expires_at=utcnow() - timedelta(seconds=1))[1],
            "revoked key": revoked,
            "other owner": api.key("bela")[1],
            "read scope": api.key("anna", READ)[1],
            "write scope": api.key("anna", WRITE)[1],
            "datasets scope": api.key("anna", UPLOAD)[1],
            "admin": ADMIN_KEY,
        }

    def post(self, path: str, **about: Any) -> dict[str, Any]:
        """What Anna gets for it."""
        response = self.api.ask("POST", path, self.anna, **about)
        assert response.is_success, response.text
        return response.json()

    def job(self) -> dict[str, str]:
        """One that waits."""
        return {"job_id": self.api.submit(self.anna)}

    def two_jobs(self) -> dict[str, str]:
        return self.job() | {"other_id": self.api.submit(self.anna)}

    def paused(self) -> dict[str, str]:
        job = self.job()
        self.post(f"/v1/jobs/{job['job_id']}/pause")
        return job

    def over(self) -> dict[str, str]:
        job = self.job()
        self.post(f"/v1/jobs/{job['job_id']}/cancel")
        return job

    def succeeded(self) -> dict[str, str]:
        """One with an artifact and a preview."""
        job_id = self.api.submit(self.anna)
        self.api.service.succeed(job_id, {"gallery.png": b"picture"})
        previews = self.api.service.settings.previews / job_id
        previews.mkdir(parents=True)
        (previews / "step-00000001.webp").write_bytes(b"picture")
        return {"job_id": job_id, "path": "gallery.png", "step": "1"}

    def dataset(self) -> dict[str, str]:
        """One of which a part has arrived."""
        dataset_id = self.post("/v1/datasets", json={"name": f"d{uuid4().hex[:20]}"})["id"]
        part = {"content": b"PK", "headers": {"Content-Type": "application/octet-stream"}}
        assert self.api.ask("PUT", f"/v1/datasets/{dataset_id}/parts/1", self.anna, **part).is_success
        return {"dataset_id": dataset_id, "number": "1", "name": f"d{uuid4().hex[:20]}"}

    def webhook(self) -> dict[str, str]:
        """One with a message to it."""
        with self.api.service.sessions.begin() as session:  # there may be twenty of an owner's
            for webhook in session.scalars(select(outbox.Webhook).where(outbox.Webhook.owner == "anna")):
                session.delete(webhook)
        webhook_id = self.post("/v1/webhooks", json=URL)["id"]
        self.api.service.call(outbox.enqueue, "anna", EventType.JOB_FAILED, "job_1", utcnow())
        with self.api.service.sessions() as session:
            query = select(WebhookDelivery.id).where(WebhookDelivery.webhook_id == webhook_id)
            return {"webhook_id": webhook_id, "delivery_id": session.scalars(query).one()}

    def key(self) -> dict[str, str]:
        return {"key_id": self.api.key("anna")[0]}

    def worker(self) -> dict[str, str]:
        self.api.service.call(operations.report_worker, "gpu0@host", QUEUE, {})
        return {"worker_id": "gpu0@host"}

    def queue(self) -> dict[str, str]:
        return {"name": QUEUE}

    def audited(self) -> int:
        """How much has been done."""
        with self.api.service.sessions() as session:
            return session.scalar(select(func.count()).select_from(AuditEntry)) or 0


@dataclass(frozen=True)
class Row:
    """What a route wants, and what it answers to those who have it."""

    scope: str
    status: int = 200
    made: Callable[[World], dict[str, str]] | None = None
    about: dict[str, Any] = field(default_factory=dict)
    query: str = ""
    owned: bool = True  # what was made for it is Anna's own, so that others find nothing

    def expected(self, who: str) -> int:
        """The status."""
        if self.scope == PUBLIC or who == "admin":
            return self.status
        if who.endswith("key"):
            return 401
        if who == "other owner":
            return 403 if self.scope == ADMIN else 404 if self.made and self.owned else self.status
        scopes = {"read scope": READ, "write scope": WRITE, "datasets scope": UPLOAD}
        return self.status if self.scope == scopes[who] else 403


def sending(**body: Any) -> dict[str, Any]:
    return {"json": body}


PART = {"content": b"PK", "headers": {"Content-Type": "application/octet-stream"}}
ROUTES = {
    "GET /livez": Row(PUBLIC),
    "GET /readyz": Row(PUBLIC),
    "GET /problems/{name}": Row(PUBLIC, made=lambda world: {"name": "not-found"}),
    "GET /": Row(PUBLIC),
    "HEAD /": Row(PUBLIC),
    "GET /web/{name}": Row(PUBLIC, made=lambda world: {"name": "page.js"}),
    "HEAD /web/{name}": Row(PUBLIC, made=lambda world: {"name": "page.js"}),
    "GET /metrics": Row(ADMIN),
    "GET /openapi.json": Row(PUBLIC),
    "HEAD /openapi.json": Row(PUBLIC),
    "POST /v1/jobs": Row(WRITE, 202, about={"json": JOB}),
    "GET /v1/jobs": Row(READ),
    "GET /v1/jobs/{job_id}": Row(READ, made=World.job),
    "PATCH /v1/jobs/{job_id}": Row(WRITE, made=World.job, about=sending(name="new")),
    "DELETE /v1/jobs/{job_id}": Row(WRITE, 204, World.over),
    "POST /v1/jobs/{job_id}/cancel": Row(WRITE, made=World.job),
    "POST /v1/jobs/{job_id}/pause": Row(WRITE, made=World.job),
    "POST /v1/jobs/{job_id}/resume": Row(WRITE, 202, World.paused),
    "POST /v1/jobs/{job_id}/retry": Row(WRITE, 202, World.over, about=sending()),
    "GET /v1/jobs/{job_id}/checkpoints": Row(READ, made=World.job),
    "GET /v1/jobs/{job_id}/events": Row(READ, made=World.job),
    "GET /v1/jobs/{job_id}/metrics": Row(READ, made=World.job),
    "GET /v1/jobs/{job_id}/previews": Row(READ, made=World.job),
    "GET /v1/jobs/{job_id}/previews/{step}.webp": Row(READ, made=World.succeeded),
    "HEAD /v1/jobs/{job_id}/previews/{step}.webp": Row(READ, made=World.succeeded),
    "GET /v1/jobs/{job_id}/logs": Row(READ, made=World.job),
    "HEAD /v1/jobs/{job_id}/logs": Row(READ, made=World.job),
    "GET /v1/jobs/{job_id}/artifacts": Row(READ, made=World.succeeded),
    "GET /v1/jobs/{job_id}/artifacts/{path:path}": Row(READ, made=World.succeeded),
    "HEAD /v1/jobs/{job_id}/artifacts/{path:path}": Row(READ, made=World.succeeded),
    "GET /v1/jobs/{job_id}/archive": Row(READ, made=World.succeeded),
    "GET /v1/compare": Row(READ, made=World.two_jobs, query="?ids={job_id}&ids={other_id}"),
    "GET /v1/leaderboard": Row(READ),
    "POST /v1/estimates": Row(READ, about={"json": JOB}),
    "GET /v1/methods": Row(READ),
    "GET /v1/methods/{name}": Row(READ, made=lambda world: {"name": "idc"}, owned=False),
    "GET /v1/datasets": Row(READ),
    "POST /v1/datasets": Row(UPLOAD, 201, about=sending(name="{name}"), made=World.dataset, owned=False),
    "GET /v1/datasets/{dataset_id}": Row(READ, made=World.dataset),
    "DELETE /v1/datasets/{dataset_id}": Row(UPLOAD, 204, World.dataset),
    "PUT /v1/datasets/{dataset_id}/parts/{number}": Row(UPLOAD, 200, World.dataset, about=PART),
    "POST /v1/datasets/{dataset_id}/complete": Row(UPLOAD, 202, World.dataset),
    "POST /v1/webhooks": Row(WRITE, 201, about={"json": URL}),
    "GET /v1/webhooks": Row(WRITE),
    "GET /v1/webhooks/{webhook_id}": Row(WRITE, made=World.webhook),
    "DELETE /v1/webhooks/{webhook_id}": Row(WRITE, 204, World.webhook),
    "POST /v1/webhooks/{webhook_id}/rotate": Row(WRITE, made=World.webhook),
    "POST /v1/webhooks/{webhook_id}/enable": Row(WRITE, made=World.webhook),
    "GET /v1/webhooks/{webhook_id}/deliveries": Row(WRITE, made=World.webhook),
    "POST /v1/webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver": Row(WRITE, 202, World.webhook),
    "POST /v1/keys": Row(ADMIN, 201, about=sending(owner="cleo")),
    "GET /v1/keys": Row(ADMIN),
    "DELETE /v1/keys/{key_id}": Row(ADMIN, 204, World.key),
    "GET /v1/owners/{owner}/limits": Row(ADMIN, made=lambda world: {"owner": "anna"}),
    "PUT /v1/owners/{owner}/limits": Row(ADMIN, made=lambda world: {"owner": "anna"}, about=sending()),
    "GET /v1/limits": Row(READ),
    "GET /v1/usage": Row(READ),
    "GET /v1/audit": Row(ADMIN),
    "GET /v1/workers": Row(ADMIN, made=World.worker),
    "POST /v1/workers/{worker_id:path}/drain": Row(ADMIN, 202, World.worker),
    "POST /v1/workers/{worker_id:path}/undrain": Row(ADMIN, made=World.worker),
    "GET /v1/queues": Row(ADMIN),
    "POST /v1/queues/{name}/pause": Row(ADMIN, made=World.queue),
    "POST /v1/queues/{name}/resume": Row(ADMIN, made=World.queue),
}


@pytest.fixture(scope="module")
def world(settings: Settings) -> Iterator[World]:
    with guarded(settings, failed_key_limit="100000/minute", rate_limit="100000/minute") as api:
        yield World(api)


def routes_of(router: Any) -> Iterator[str]:
    """All routes of an application, those of included routers as well, as in `GET /v1/jobs`."""
    for route in router.routes:
        if hasattr(route, "original_router"):
            yield from routes_of(route.original_router)
        else:
            yield from (f"{method} {route.path}" for method in route.methods)


def test_every_route_is_in_the_table(settings):
    assert sorted(routes_of(create_app(settings))) == sorted(ROUTES)


@pytest.mark.parametrize("route", ROUTES)
def test_who_is_let_in(world, route):
    row = ROUTES[route]
    made: dict[str, str] = {}
    answers = {}
    for who, token in world.tokens.items():
        made = made or (row.made(world) if row.made else {})
        before = world.audited()
        answer = ask(world.api, route, row, made, token)
        answers[who] = answer.status_code
        if not answer.is_success:
            assert world.audited() == before, f"{who} has changed something"
            assert "www-authenticate" in answer.headers or answer.status_code != 401
        elif answer.request.method not in ("GET", "HEAD"):
            made = {}
    assert answers == {who: row.expected(who) for who in answers}


def ask(api: Guarded, route: str, row: Row, made: dict[str, str], token: str | None) -> httpx2.Response:
    method, path = route.replace(":path", "").split()
    about = dict(row.about)
    if about.get("json") == {"name": "{name}"}:
        about["json"] = {"name": made["name"]}
    return api.ask(method, (path + row.query).format(**made), token, **about)
