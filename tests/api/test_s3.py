"""Results that are kept on an S3 server: what the API answers itself, what it sends elsewhere for, and the SDK."""

import base64
import hashlib
import io
import json
import os
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote

import httpx2
import numpy as np
import psutil
import pytest
from pydantic import SecretStr
from safetensors.numpy import save
from sqlalchemy import update

from client import Client
from jobs import repository
from jobs.artifacts import MANIFEST, verify, write_manifest
from jobs.keys import new_token
from jobs.lifecycle import Status
from jobs.tables import Job
from tests.api.conftest import problem, serving
from tests.fixtures.s3 import SECRET

CONTENT = os.urandom(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
FILES = {"synthetic.safetensors": CONTENT, "previews/final grid.png": b"png", "empty": b""}


@pytest.fixture(scope="module")
def settings(settings, s3_server):
    return s3_server.settings(settings)


@pytest.fixture
def job_id(service, submit):
    job_id = submit()
    service.succeed(job_id, FILES)
    return job_id


@pytest.fixture
def url(job_id):
    return f"/v1/jobs/{job_id}/artifacts"


def test_files_are_to_be_had_by_a_link(http, url):
    answer = http.get(f"{url}/synthetic.safetensors")
    assert (answer.status_code, answer.content) == (307, b"")
    assert answer.headers["cache-control"] == "private, no-store"
    assert "X-Amz-Expires=600" in answer.headers["location"]
    assert SECRET not in answer.headers["location"]
    file = httpx2.get(answer.headers["location"])
    assert (file.status_code, file.content) == (200, CONTENT)
    assert file.headers["content-disposition"] == 'attachment; filename="synthetic.safetensors"'
    preview = http.get(f"{url}/previews/final grid.png", follow_redirects=True)
    assert (preview.content, preview.headers["content-type"]) == (b"png", "image/png")
    assert preview.headers["content-disposition"] == "attachment; filename*=utf-8''final%20grid.png"
    part = httpx2.get(answer.headers["location"], headers={"Range": "bytes=1000-1999"})
    assert (part.headers["content-range"], part.content) == ("bytes 1000-1999/3000000", CONTENT[1000:2000])


def test_a_link_is_to_one_file_alone(http, url):
    link = http.get(f"{url}/synthetic.safetensors").headers["location"]
    assert httpx2.get(link.replace("synthetic.safetensors?", f"{MANIFEST}?")).status_code == 403
    assert httpx2.put(link, content=b"other").status_code == 403
    assert httpx2.get(link.partition("dream-results")[0] + "dream-results").is_client_error  # no listing


def test_what_needs_no_file_the_api_answers_itself(http, url):
    digest = base64.b64encode(hashlib.sha256(CONTENT).digest()).decode()
    head = http.head(f"{url}/synthetic.safetensors")
    assert (head.status_code, head.headers["content-length"]) == (200, str(len(CONTENT)))
    assert head.headers["content-disposition"] == 'attachment; filename="synthetic.safetensors"'
    same = http.get(f"{url}/synthetic.safetensors", headers={"If-None-Match": f'"{SHA256}"'})
    assert same.status_code == 304
    for answer in (head, same):
        assert (answer.headers["etag"], answer.headers["repr-digest"]) == (f'"{SHA256}"', f"sha-256=:{digest}:")
    problem(http.get(f"{url}/synthetic.safetensors", headers={"If-Match": '"other"'}), 412, "PRECONDITION_FAILED")
    problem(http.get(f"{url}/synthetic.safetensors", headers={"Range": "bytes=3000000-"}), 416, "RANGE_NOT_SATISFIABLE")
    problem(http.get(f"{url}/nothing"), 404, "NOT_FOUND")


def test_the_manifest_comes_from_the_api(http, url):
    file = http.get(f"{url}/{MANIFEST}")
    assert (file.status_code, file.json()) == (200, http.get(url).json())
    assert file.headers["etag"] == f'"{hashlib.sha256(file.content).hexdigest()}"'
    assert http.head(f"{url}/{MANIFEST}").headers["content-length"] == str(len(file.content))


def test_an_upload_of_a_lost_attempt_is_not_served(service, http, submit):
    job_id = submit()
    service.claim(job_id)
    staged = service.store.stage()
    (staged / "lost").write_bytes(b"of the first attempt")
    write_manifest(staged, {"schema_version": 1})
    service.store.upload(staged, verify(staged), job_id, 1)
    problem(http.get(f"/v1/jobs/{job_id}/artifacts"), 409, "ARTIFACT_NOT_READY")
    service.call(repository.requeue, job_id, 1, "worker_lost")
    service.claim(job_id)
    (staged / "lost").write_bytes(b"of the second")
    (staged / MANIFEST).unlink()
    write_manifest(staged, {"schema_version": 1})
    service.store.upload(staged, verify(staged), job_id, 2)
    assert service.call(repository.settle, job_id, 1, Status.SUCCEEDED) is None
    assert service.call(repository.settle, job_id, 2, Status.SUCCEEDED) is Status.SUCCEEDED
    assert http.get(f"/v1/jobs/{job_id}/artifacts/lost", follow_redirects=True).content == b"of the second"


def test_what_has_been_removed_is_gone(service, http, job_id, url):
    service.store.delete(job_id)
    problem(http.get(url), 410, "ARTIFACT_EXPIRED")
    problem(http.get(f"{url}/synthetic.safetensors"), 410, "ARTIFACT_EXPIRED")
    problem(http.get(f"/v1/jobs/{job_id}/archive"), 410, "ARTIFACT_EXPIRED")


def test_archives_are_made_of_what_lies_there_in_little_memory(service, http, submit):
    rng = np.random.default_rng(0)
    images = rng.random((800, 3, 64, 64), np.float32)
    arrays = {"images": images, "labels": np.repeat(np.arange(10), 80)}
    facts = {"dataset": {"name": "d", "licence": "none"}, "method": {"name": "m"}, "ipc": 40,
             "classes": [{"index": i, "name": str(i)} for i in range(10)],
             "preprocessing": {"value_range": "0..1", "mean": [0], "std": [1], "zca": None},
             "decode": {"decoded": 800}, "training": {"mode": "train"}}  # fmt: skip
    job_id = submit()
    service.claim(job_id)
    staged = service.store.stage()
    (staged / "decoded.safetensors").write_bytes(save(arrays))
    write_manifest(staged, facts)
    service.store.upload(staged, verify(staged), job_id, 1)
    assert service.call(repository.settle, job_id, 1, Status.SUCCEEDED)
    service.store.discard(staged)
    before = psutil.Process().memory_full_info().uss
    with http.stream("GET", f"/v1/jobs/{job_id}/archive?format=npz") as answer:
        pieces = [piece for number, piece in enumerate(answer.iter_bytes(1 << 20)) if number < 3]
    assert psutil.Process().memory_full_info().uss - before < images.nbytes / 2
    assert pieces
    with np.load(io.BytesIO(http.get(f"/v1/jobs/{job_id}/archive?format=npz").content)) as file:
        assert np.array_equal(file["images"], images)
        assert np.array_equal(file["labels"], arrays["labels"])
    with zipfile.ZipFile(io.BytesIO(http.get(f"/v1/jobs/{job_id}/archive").content)) as file:
        assert json.loads(file.read(MANIFEST))["ipc"] == 40
        assert file.read("decoded.safetensors") == save(arrays)


@pytest.mark.parametrize("have", [0, 1_000_000, len(CONTENT)])
def test_the_sdk_downloads_resumes_and_verifies(service, job_id, tmp_path, have):
    (tmp_path / "synthetic.safetensors.part").write_bytes(CONTENT[:have])
    seen = []
    with Client(service.url) as client:
        client.jobs.download(job_id, tmp_path, lambda name, done, size: seen.append((name, done)))
    for name, content in FILES.items():
        assert (tmp_path / name).read_bytes() == content
    if 0 < have < len(CONTENT):
        assert min(done for name, done in seen if name == "synthetic.safetensors") > have


def test_the_key_stays_with_the_service(service, settings, job_id, tmp_path):
    """The link leads to a server that writes down what it is sent."""
    seen = []

    class Recorder(BaseHTTPRequestHandler):
        def do_GET(self):
            seen.append(str(self.headers))
            content = FILES[unquote(self.path.partition("?")[0].partition("/v1-1/")[2])]
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    key = new_token()
    with ThreadingHTTPServer(("127.0.0.1", 0), Recorder) as elsewhere:
        Thread(target=elsewhere.serve_forever, daemon=True).start()
        public = f"http://127.0.0.1:{elsewhere.server_port}"
        changes = {"require_key": True, "admin_key": SecretStr(key), "s3_public_endpoint_url": public}
        with serving(settings.model_copy(update=changes)) as guarded, Client(guarded.url, key) as client:
            (tmp_path / "synthetic.safetensors.part").write_bytes(CONTENT[:10])
            client.jobs.download(job_id, tmp_path)
            elsewhere.shutdown()
    assert (tmp_path / "synthetic.safetensors").read_bytes() == CONTENT
    assert any("bytes=10-" in headers for headers in seen)
    assert not any(word in headers for headers in seen for word in (key, "Authorization", "If-Range"))


def test_a_store_that_refuses_is_told_of_without_secrets(service, settings, submit, job_id, url):
    wrong = settings.model_copy(update={"aws_secret_access_key": SecretStr("wrong" * 8)})
    with serving(wrong) as broken, httpx2.Client(base_url=broken.url) as http:
        ready = http.get("/readyz")
        assert (ready.status_code, ready.json()["status"]) == (200, "ready")
        assert "refuses the credentials" in ready.json()["artifacts"]
        for path in (url, f"{url}/synthetic.safetensors", f"/v1/jobs/{job_id}/archive"):
            answer = http.get(path)
            problem(answer, 503, "STORAGE_UNAVAILABLE")
            assert answer.headers["retry-after"]
            assert "wrong" not in answer.text
        assert http.get(f"/v1/jobs/{job_id}").json()["status"] == "succeeded"


def test_purged_jobs_need_no_store(service, http, url, job_id):
    with service.sessions.begin() as session:
        session.execute(update(Job).where(Job.id == job_id).values(purged_at=repository.utcnow()))
    problem(http.get(url), 410, "ARTIFACT_EXPIRED")
