"""Downloads: whole, in parts, and not at all."""

import base64
import hashlib
import shutil
from http.client import HTTPConnection

import pytest

from tests.api.conftest import problem

CONTENT = bytes(range(256)) * 400
FILES = {"synthetic.safetensors": CONTENT, "previews/final grid.png": b"png", "<.txt": b"t"}
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def url(service, submit) -> str:
    job_id = submit()
    service.succeed(job_id, FILES)
    return f"/v1/jobs/{job_id}/artifacts"


def test_manifest(http, url):
    manifest = http.get(url).json()
    assert manifest["schema_version"] == 1
    files = {file["path"]: file for file in manifest["files"]}
    assert files.keys() == FILES.keys()
    assert files["synthetic.safetensors"]["sha256"] == SHA256
    assert files["synthetic.safetensors"]["bytes"] == len(CONTENT)


@pytest.mark.parametrize("path", FILES)
def test_every_listed_file_can_be_had(http, url, path):
    response = http.get(f"{url}/{path}")
    assert (response.status_code, response.content) == (200, FILES[path])


def test_download_headers(http, url):
    response = http.get(f"{url}/synthetic.safetensors")
    assert response.headers["etag"] == f'"{SHA256}"'
    digest = base64.b64encode(hashlib.sha256(CONTENT).digest()).decode()
    assert response.headers["repr-digest"] == f"sha-256=:{digest}:"
    assert response.headers["content-disposition"] == 'attachment; filename="synthetic.safetensors"'
    assert response.headers["accept-ranges"] == "bytes"
    assert response.headers["x-content-type-options"] == "nosniff"
    preview = http.get(f"{url}/previews/final grid.png")
    assert preview.headers["content-type"] == "image/png"
    assert preview.headers["content-disposition"] == "attachment; filename*=utf-8''final%20grid.png"


def test_the_manifest_is_a_file_too(http, url):
    response = http.get(f"{url}/manifest.json")
    assert response.json()["schema_version"] == 1
    assert response.headers["etag"] == f'"{hashlib.sha256(response.content).hexdigest()}"'


def test_head(http, url):
    response = http.head(f"{url}/synthetic.safetensors")
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["content-length"] == str(len(CONTENT))
    assert response.headers["etag"] == f'"{SHA256}"'


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("tags", [f'"{SHA256}"', f'W/"{SHA256}"', f'"x", "{SHA256}"', "*"])
def test_if_none_match(http, url, method, tags):
    response = http.request(method, f"{url}/synthetic.safetensors", headers={"If-None-Match": tags})
    assert (response.status_code, response.content) == (304, b"")
    assert response.headers["etag"] == f'"{SHA256}"'


def test_if_none_match_of_another_version(http, url):
    response = http.get(f"{url}/synthetic.safetensors", headers={"If-None-Match": '"other"'})
    assert response.content == CONTENT


@pytest.mark.parametrize(
    ("wanted", "part", "content_range"),
    [
        ("bytes=0-9", CONTENT[:10], f"bytes 0-9/{len(CONTENT)}"),
        ("bytes=102000-", CONTENT[102000:], f"bytes 102000-102399/{len(CONTENT)}"),
        ("bytes=-5", CONTENT[-5:], f"bytes 102395-102399/{len(CONTENT)}"),
        ("bytes=102399-999999", CONTENT[-1:], f"bytes 102399-102399/{len(CONTENT)}"),
    ],
)
def test_ranges(http, url, wanted, part, content_range):
    response = http.get(f"{url}/synthetic.safetensors", headers={"Range": wanted})
    assert (response.status_code, response.content) == (206, part)
    assert response.headers["content-range"] == content_range
    assert response.headers["etag"] == f'"{SHA256}"'
    assert "repr-digest" in response.headers


def test_if_range(http, url):
    path = f"{url}/synthetic.safetensors"
    same = http.get(path, headers={"Range": "bytes=0-9", "If-Range": f'"{SHA256}"'})
    assert same.status_code == 206
    other = http.get(path, headers={"Range": "bytes=0-9", "If-Range": '"other"'})
    assert (other.status_code, other.content) == (200, CONTENT)


def test_ranges_that_cannot_be(http, url):
    path = f"{url}/synthetic.safetensors"
    response = http.get(path, headers={"Range": "bytes=102400-"})
    problem(response, 416, "RANGE_NOT_SATISFIABLE")
    assert response.headers["content-range"] == "bytes */102400"


@pytest.mark.parametrize("wanted", ["lines=1-2", "bytes=x-y", "bytes=9-3", "bytes", "bytes=" + "0-1," * 200 + "0-1"])
def test_what_is_no_range_is_ignored(http, url, wanted):
    response = http.get(f"{url}/synthetic.safetensors", headers={"Range": wanted})
    assert (response.status_code, response.content) == (200, CONTENT)


@pytest.mark.parametrize(
    "path",
    ["nothing.txt", "previews", "..%2f..%2f..%2fdb.sqlite3", "%2fetc%2fpasswd", "previews/../synthetic.safetensors",
     "previews%2f..%2fsynthetic.safetensors", "..%5c..%5cx", "%00"],
)  # fmt: skip
def test_nothing_outside_the_manifest(service, url, path):
    """By hand, as clients would tidy the path."""
    connection = HTTPConnection(service.url.removeprefix("http://"))
    connection.request("GET", f"{url}/{path}")
    response = connection.getresponse()
    assert (response.status, response.headers["content-type"]) == (404, "application/problem+json")
    connection.close()


@pytest.mark.parametrize("path", ["", "/manifest.json", "/nothing"])
def test_not_before_success(http, submit, service, path):
    job_id = submit()
    problem(http.get(f"/v1/jobs/{job_id}/artifacts{path}"), 409, "ARTIFACT_NOT_READY")
    service.claim(job_id)
    document = problem(http.get(f"/v1/jobs/{job_id}/artifacts{path}"), 409, "ARTIFACT_NOT_READY")
    assert "is running; artifacts exist once it is succeeded" in document["detail"]


def test_removed_files(http, url, service):
    shutil.rmtree(service.settings.artifacts)
    problem(http.get(url), 410, "ARTIFACT_EXPIRED")
    problem(http.get(f"{url}/synthetic.safetensors"), 410, "ARTIFACT_EXPIRED")
    assert http.head(f"{url}/synthetic.safetensors").status_code == 410
