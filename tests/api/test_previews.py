"""What can be looked at while a job runs: pictures of its synthetic set, and its log."""

import hashlib
import shutil

import pytest

from jobs.lifecycle import Status
from jobs.repository import utcnow
from jobs.tables import Job
from tests.api.conftest import problem

FRAMES = {20: b"RIFF-twenty", 3: b"RIFF-three", 123456789: b"RIFF-late"}
LOG = b"--- attempt 1\nstep 1 of 9: loss 1\n"


@pytest.fixture
def job_id(service, submit) -> str:
    job_id = submit()
    service.claim(job_id)
    directory = service.settings.previews / job_id
    directory.mkdir(parents=True)
    for step, content in FRAMES.items():
        (directory / f"step-{step:08d}.webp").write_bytes(content)
    (directory / ".step-00000021.webp.tmp").write_bytes(b"half")
    (directory / "notes.webp").write_bytes(b"strange")
    return job_id


def test_pictures_are_listed_by_step_and_can_be_had(http, job_id):
    listed = http.get(f"/v1/jobs/{job_id}/previews").json()["data"]
    assert [frame["step"] for frame in listed] == [3, 20, 123456789]
    for frame in listed:
        response = http.get(frame["url"])
        assert response.content == FRAMES[frame["step"]]
        assert len(response.content) == frame["bytes"]
        assert frame["created_at"].endswith("Z")


def test_a_picture_stays_as_it_is(http, job_id):
    url = f"/v1/jobs/{job_id}/previews/20.webp"
    response = http.get(url)
    etag = f'"{hashlib.sha256(FRAMES[20]).hexdigest()}"'
    assert response.headers["content-type"] == "image/webp"
    assert response.headers["cache-control"] == "private, max-age=31536000, immutable"
    assert response.headers["etag"] == etag
    again = http.get(url, headers={"If-None-Match": etag})
    assert (again.status_code, again.content) == (304, b"")
    head = http.head(url)
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(FRAMES[20])))


def test_pictures_that_there_are_not(http, submit, job_id):
    problem(http.get(f"/v1/jobs/{job_id}/previews/4.webp"), 404, "NOT_FOUND")
    problem(http.get(f"/v1/jobs/{job_id}/previews/x.webp"), 422, "VALIDATION_FAILED")
    problem(http.get(f"/v1/jobs/{job_id}/previews/-1.webp"), 422, "VALIDATION_FAILED")
    assert http.get(f"/v1/jobs/{job_id}/previews/%2e%2e%2fstep-00000003.webp").status_code in (404, 422)
    assert http.get(f"/v1/jobs/{submit()}/previews").json() == {"data": []}


# ---------------------------------------------------------------- logs


@pytest.fixture
def log(service, submit):
    """The URL of a running job's log, and its file."""
    job_id = submit()
    service.claim(job_id)
    service.settings.job_logs.mkdir(exist_ok=True)
    path = service.settings.job_logs / f"{job_id}.log"
    path.write_bytes(LOG)
    return f"/v1/jobs/{job_id}/logs", path


def test_a_log(http, log):
    url, _ = log
    response = http.get(url)
    assert (response.status_code, response.content) == (200, LOG)
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert response.headers["cache-control"] == "private, no-cache"
    assert response.headers["accept-ranges"] == "bytes"
    head = http.head(url)
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(LOG)))
    again = http.get(url, headers={"If-None-Match": response.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_a_log_is_followed_by_ranges(http, service, log):
    url, path = log
    seen, job_id = b"", path.stem
    for addition in (b"", b"step 2\n", "schön\n".encode()):
        with path.open("ab") as file:
            file.write(addition)
        response = http.get(url, headers={"Range": f"bytes={len(seen)}-"})
        assert response.status_code == 206
        assert response.headers["content-range"] == f"bytes {len(seen)}-{path.stat().st_size - 1}/{path.stat().st_size}"
        seen += response.content
        assert seen == path.read_bytes()
        nothing_new = http.get(url, headers={"Range": f"bytes={len(seen)}-"})
        document = problem(nothing_new, 416, "RANGE_NOT_SATISFIABLE")
        assert (document["at_end"], document["size"], nothing_new.headers["retry-after"]) == (True, len(seen), "2")
        assert nothing_new.headers["content-range"] == f"bytes */{len(seen)}"
    service.call(service_settle, job_id)
    over = http.get(url, headers={"Range": f"bytes={len(seen)}-"})
    assert problem(over, 416, "RANGE_NOT_SATISFIABLE")["at_end"] is True
    assert "retry-after" not in over.headers


def service_settle(session, job_id: str) -> None:
    session.get(Job, job_id).status = Status.FAILED


def test_a_range_beyond_the_end_is_another_thing_than_nothing_new(http, log):
    url, _ = log
    document = problem(http.get(url, headers={"Range": "bytes=999-"}), 416, "RANGE_NOT_SATISFIABLE")
    assert document["at_end"] is False


@pytest.mark.parametrize(
    ("wanted", "part"), [("bytes=-7", LOG[-7:]), ("bytes=4-8", LOG[4:9]), ("bytes=4-999", LOG[4:])]
)
def test_parts_of_a_log(http, log, wanted, part):
    response = http.get(log[0], headers={"Range": wanted})
    assert (response.status_code, response.content) == (206, part)


@pytest.mark.parametrize("wanted", ["bytes=0-1,4-5", "lines=1-2", "bytes=9-3"])
def test_other_ranges_bring_the_whole_log(http, log, wanted):
    response = http.get(log[0], headers={"Range": wanted})
    assert (response.status_code, response.content) == (200, LOG)


@pytest.mark.parametrize("headers", [{}, {"Range": "bytes=0-"}, {"Range": "bytes=-5"}])
def test_a_job_without_a_log_has_an_empty_one(http, submit, headers):
    response = http.get(f"/v1/jobs/{submit()}/logs", headers=headers)
    assert (response.status_code, response.content, response.headers["content-length"]) == (200, b"", "0")


def test_a_log_that_grows_while_it_is_sent(http, log):
    """Its length has been said by then."""
    url, path = log
    path.write_bytes(b"x" * 5_000_000)
    with http.stream("GET", url) as response:
        pieces = response.iter_raw()
        first = next(pieces)
        with path.open("ab") as file:
            file.write(b"y" * 1_000_000)
        rest = b"".join(pieces)
    assert (len(first + rest), b"y" in rest) == (5_000_000, False)


def test_a_log_that_has_been_removed(http, service, log):
    url, path = log
    shutil.rmtree(path.parent)
    with service.sessions.begin() as session:
        session.get(Job, path.stem).purged_at = utcnow()
    problem(http.get(url), 410, "ARTIFACT_EXPIRED")
