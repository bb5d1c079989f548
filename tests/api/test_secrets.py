"""No secret gets into the log, whatever is sent, and whatever goes wrong."""

import json
import os
import subprocess
import sys

import httpx2
import psycopg
import pytest
from sqlalchemy import make_url

from jobs import keys
from jobs.secrets import derive
from tests.api.guarded import JOB, bearer
from tests.api.test_app import wait_until_ready
from tests.fixtures.broker import free_port

SECRET = "what-the-server-alone-knows"
DATABASE_PASSWORD, BROKER_PASSWORD = "hunter2-of-the-database", "hunter3-of-the-broker"
OTHER = keys.new_token()


@pytest.fixture
def database(postgres_url):
    """Its address with a password, which it does not ask for, and a function that shuts everyone out."""
    url = make_url(postgres_url)

    def shut():
        host, name = str(url.query["host"]), str(url.database)
        with psycopg.connect(host=host, user=url.username, dbname="template1", autocommit=True) as connection:
            connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false".encode())
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])

    return url.set(password=DATABASE_PASSWORD).render_as_string(hide_password=False), shut


def test_the_log_tells_no_secret(tmp_path, database):
    database_url, shut = database
    admin, port = keys.new_token(), free_port()
    environment = os.environ | {
        "DREAM_HOME": str(tmp_path),
        "DATABASE_URL": database_url,
        "REDIS_URL": f"redis://:{BROKER_PASSWORD}@127.0.0.1:{free_port()}/0",
        "DREAM_SECRET": SECRET,
        "DREAM_ADMIN_KEY": admin,
        "DREAM_REQUIRE_KEY": "true",
    }
    command = [sys.executable, "-m", "api", "--port", str(port)]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", headers=bearer(admin)) as http:
            wait_until_ready(http)
            token = http.post("/v1/keys", json={"owner": "anna"}).json()["token"]
            webhook = http.post("/v1/webhooks", json={"url": f"https://hooks.example.org/?token={OTHER}"}).json()
            rotated = http.post(f"/v1/webhooks/{webhook['id']}/rotate").json()
            answers = [http.post("/v1/jobs", json=JOB, headers=bearer(token)), *mistakes(http, token, admin)]
            shut()
            answers += [http.get("/v1/jobs"), http.get("/v1/jobs", headers=bearer(keys.new_token()))]
        process.terminate()
        output, _ = process.communicate(timeout=30)
    assert {answer.status_code for answer in answers} == {202, 400, 401, 403, 404, 413, 415, 422, 503}
    events = {json.loads(line)["event"] for line in output.splitlines()}
    assert {"http.request", "key.refused", "queue.unreachable", "database.unavailable"} <= events
    secrets = {
        "an administrator's key": admin,
        "a key": token,
        "another key": OTHER,
        "a webhook's secret": webhook["secret"].removeprefix("whsec_"),
        "its next one": rotated["secret"].removeprefix("whsec_"),
        "the hash of a key": keys.digest(derive(SECRET.encode(), "keys"), token),
        "the server's secret": SECRET,
        "the database's password": DATABASE_PASSWORD,
        "the broker's password": BROKER_PASSWORD,
    }
    told = [name for name, secret in secrets.items() if secret in output]
    assert told == []
    body = "".join(answer.text for answer in answers)
    assert [name for name, secret in secrets.items() if "server" in name and secret in body] == []


def mistakes(http, token, admin):
    """Requests with secrets where they do not belong."""
    wrong = bearer(token[:-1] + "~")
    yield http.get("/v1/jobs", headers=wrong)
    yield http.get("/v1/jobs", headers=bearer(OTHER))
    yield http.get("/v1/jobs", headers={"Authorization": f"Basic {token}"})
    yield http.get("/v1/keys", headers=bearer(token))
    yield http.get(f"/v1/jobs/{token}")
    yield http.get(f"/{admin}/nowhere", params={"key": token})
    yield http.get("/v1/jobs", params={"cursor": token, "access_token": admin})
    yield http.get("/v1/methods/idc", headers={"X-Request-ID": token, "Host": f"{token}.example"})
    yield http.post("/v1/jobs", json=JOB | {"key": token})
    yield http.post("/v1/jobs", content=token.encode(), headers={"Content-Type": "application/json"})
    yield http.post("/v1/jobs", content=token.encode(), headers={"Content-Type": token})
    yield http.post("/v1/jobs", content=token.encode() * 30_000, headers={"Content-Type": "application/json"})
    yield http.post("/v1/webhooks", json={"url": f"https://user:{token}@hooks.example.org/"})
    yield http.request(token, "/v1/jobs")
