"""Downloads: whole, in parts, and not at all."""

import base64
import hashlib
import shutil
from email.parser import BytesParser
from email.policy import HTTP
from http.client import HTTPConnection

import pytest
from sqlalchemy import select, text, update

from jobs import repository
from jobs.artifacts import write_manifest
from jobs.lifecycle import Status
from jobs.repository import utcnow
from jobs.tables import AuditEntry, Job
from tests.api.conftest import problem

CONTENT = bytes(range(256)) * 400
FILES = {"synthetic.safetensors": CONTENT, "previews/final grid.png": b"png", "<.txt": b"t", "empty": b""}
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
        ("bytes=-999999", CONTENT, f"bytes 0-102399/{len(CONTENT)}"),
        ("BYTES=0-0", CONTENT[:1], f"bytes 0-0/{len(CONTENT)}"),
        ("bytes=, 5-6 ,", CONTENT[5:7], f"bytes 5-6/{len(CONTENT)}"),
        ("bytes=0-9,5-19,20-29", CONTENT[:30], f"bytes 0-29/{len(CONTENT)}"),
        ("bytes=0-9,102400-", CONTENT[:10], f"bytes 0-9/{len(CONTENT)}"),
        ("bytes=-0,0-9", CONTENT[:10], f"bytes 0-9/{len(CONTENT)}"),
    ],
)
def test_ranges(http, url, wanted, part, content_range):
    response = http.get(f"{url}/synthetic.safetensors", headers={"Range": wanted})
    assert (response.status_code, response.content) == (206, part)
    assert response.headers["content-range"] == content_range
    assert response.headers["etag"] == f'"{SHA256}"'
    assert "repr-digest" in response.headers


def test_several_ranges_come_as_parts(http, url):
    response = http.get(f"{url}/synthetic.safetensors", headers={"Range": "bytes=300-309,0-9,999999-"})
    kind, _, boundary = response.headers["content-type"].partition("; boundary=")
    assert (response.status_code, kind) == (206, "multipart/byteranges")
    assert int(response.headers["content-length"]) == len(response.content)
    message = BytesParser(policy=HTTP).parsebytes(
        b"Content-Type: " + response.headers["content-type"].encode() + b"\r\n\r\n" + response.content
    )
    assert [
        (part["content-range"], part["content-type"], part.get_payload(decode=True)) for part in message.iter_parts()
    ] == [
        (f"bytes {first}-{first + 9}/{len(CONTENT)}", "application/octet-stream", CONTENT[first : first + 10])
        for first in (0, 300)
    ]
    assert response.content.endswith(f"--{boundary}--".encode())


@pytest.mark.parametrize("wanted", ["bytes=0-9", "bytes=999999-"])
def test_head_knows_no_ranges(http, url, wanted):
    response = http.head(f"{url}/synthetic.safetensors", headers={"Range": wanted})
    assert (response.status_code, response.headers["content-length"]) == (200, str(len(CONTENT)))
    assert "content-range" not in response.headers


@pytest.mark.parametrize("wanted", ["bytes=0-", "bytes=-1", "bytes=5-"])
def test_any_range_of_nothing_is_nothing(http, url, wanted):
    response = http.get(f"{url}/empty", headers={"Range": wanted})
    assert (response.status_code, response.content) == (200, b"")


def test_if_match(http, url):
    path = f"{url}/synthetic.safetensors"
    for tags in (f'"{SHA256}"', "*", f'"x", "{SHA256}"'):
        part = http.get(path, headers={"If-Match": tags, "Range": "bytes=5-9"})
        assert (part.status_code, part.content) == (206, CONTENT[5:10])
    for tags in ('"x"', f'W/"{SHA256}"'):
        problem(http.get(path, headers={"If-Match": tags}), 412, "PRECONDITION_FAILED")


def test_there_is_an_etag_and_no_date(http, url):
    path = f"{url}/synthetic.safetensors"
    assert "last-modified" not in http.get(path).headers
    dated = {"If-Modified-Since": "Wed, 21 Oct 2065 07:28:00 GMT", "If-Range": "Wed, 21 Oct 2015 07:28:00 GMT"}
    response = http.get(path, headers=dated | {"Range": "bytes=0-9"})
    assert (response.status_code, response.content) == (200, CONTENT)


def test_a_version_that_the_client_has_goes_before_its_ranges(http, url):
    for wanted in ("bytes=0-9", "bytes=999999-"):
        headers = {"If-None-Match": f'"{SHA256}"', "Range": wanted}
        assert http.get(f"{url}/synthetic.safetensors", headers=headers).status_code == 304


def test_if_range(http, url):
    path = f"{url}/synthetic.safetensors"
    same = http.get(path, headers={"Range": "bytes=0-9", "If-Range": f'"{SHA256}"'})
    assert same.status_code == 206
    for tag in ('"other"', f'W/"{SHA256}"', '"other", "' + SHA256 + '"'):
        other = http.get(path, headers={"Range": "bytes=0-9", "If-Range": tag})
        assert (other.status_code, other.content) == (200, CONTENT)


def test_ranges_that_cannot_be(http, url):
    path = f"{url}/synthetic.safetensors"
    for wanted in ("bytes=102400-", "bytes=-0", "bytes=102400-,999999-"):
        response = http.get(path, headers={"Range": wanted})
        problem(response, 416, "RANGE_NOT_SATISFIABLE")
        assert response.headers["content-range"] == "bytes */102400"


@pytest.mark.parametrize(
    "wanted",
    ["lines=1-2", "bytes=x-y", "bytes=9-3", "bytes=0-1,9-3", "bytes", "bytes=", "bytes=,", "bytes=-", "bytes=0--1",
     "bytes=0 - 1", "bytes=1", "bytes=" + "9" * 30 + "-", "bytes=" + "0-1," * 200 + "0-1"],
)  # fmt: skip
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


def test_what_a_cancelled_job_had_made_can_be_had_and_says_what_it_is(http, submit, service):
    job_id = submit()
    service.claim(job_id)
    service.call(repository.request_cancel, job_id)
    staged = service.store.stage()
    (staged / "synthetic.safetensors").write_bytes(CONTENT)
    write_manifest(staged, {"schema_version": 1, "job_id": job_id, "partial": True, "evaluation": []})
    with service.sessions.begin() as session:
        settled = repository.settle(
            session, job_id, 1, Status.CANCELLED, partial=True, result_summary={"partial": True}
        )
        assert settled is Status.CANCELLED
        service.store.publish(staged, job_id)
    assert http.get(f"/v1/jobs/{job_id}/artifacts").json()["partial"] is True
    assert http.get(f"/v1/jobs/{job_id}/artifacts/synthetic.safetensors").content == CONTENT


def test_what_has_expired_is_gone(http, url, service):
    with service.sessions.begin() as session:
        session.execute(update(Job).where(Job.id == url.split("/")[3]).values(purged_at=utcnow()))
    problem(http.get(url), 410, "ARTIFACT_EXPIRED")
    problem(http.get(f"{url}/synthetic.safetensors"), 410, "ARTIFACT_EXPIRED")
    problem(http.get(f"{url.removesuffix('artifacts')}archive"), 410, "ARTIFACT_EXPIRED")


def downloads(service, url: str) -> list[str]:
    with service.sessions() as session:
        query = select(AuditEntry).where(
            AuditEntry.resource == url.split("/")[3], AuditEntry.action.contains("download")
        )
        return [f"{entry.owner} {entry.action}" for entry in session.scalars(query)]


def test_downloads_are_put_down_once_each(http, url, service):
    path = f"{url}/synthetic.safetensors"
    http.get(path)
    http.get(path, headers={"Range": "bytes=0-99"})
    assert downloads(service, url) == ["local artifact.downloaded"] * 2
    http.get(path, headers={"Range": "bytes=100-"})
    http.get(path, headers={"If-None-Match": f'"{SHA256}"'})
    http.head(path)
    http.get(url)
    assert len(downloads(service, url)) == 2
    http.get(f"{url.removesuffix('artifacts')}archive")
    assert downloads(service, url)[2:] == ["local archive.downloaded"]


def test_a_download_that_cannot_be_put_down_goes_on(http, url, service):
    with service.sessions.begin() as session:
        session.execute(text("ALTER TABLE audit_log RENAME TO gone"))
    try:
        assert http.get(f"{url}/synthetic.safetensors").content == CONTENT
    finally:
        with service.sessions.begin() as session:
            session.execute(text("ALTER TABLE gone RENAME TO audit_log"))
    assert downloads(service, url) == []


def test_removed_files(http, url, service):
    shutil.rmtree(service.settings.artifacts)
    problem(http.get(url), 410, "ARTIFACT_EXPIRED")
    problem(http.get(f"{url}/synthetic.safetensors"), 410, "ARTIFACT_EXPIRED")
    assert http.head(f"{url}/synthetic.safetensors").status_code == 410
