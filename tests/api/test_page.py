"""The page for browsers: how it is served, and, where Chromium is installed, what it does."""

import json
import re

import pytest
from sqlalchemy import delete

from jobs import repository
from jobs.lifecycle import Status
from jobs.tables import Job, JobEvent
from tests.api.conftest import problem
from tests.api.guarded import ADMIN_KEY, JOB, guarded
from tests.api.test_jobs import report
from tests.fixtures.browser import PHONE

PARTS = {
    "/": "text/html",
    "/web/api.js": "text/javascript",
    "/web/page.js": "text/javascript",
    "/web/page.css": "text/css",
    "/web/icon.svg": "image/svg+xml",
}
POLICY = {
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self' blob:",
    "connect-src 'self'",
    "form-action 'none'",
    "base-uri 'none'",
    "frame-ancestors 'none'",
}


@pytest.mark.parametrize("path", PARTS)
def test_how_it_is_sent(http, path):
    response = http.get(path)
    assert response.status_code == 200
    assert response.headers["content-type"].partition(";")[0] == PARTS[path]
    assert set(response.headers["content-security-policy"].split("; ")) == POLICY
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["cache-control"] == "no-cache"
    head = http.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(response.content))
    etag = response.headers["etag"]
    assert head.headers["etag"] == etag
    known = http.get(path, headers={"If-None-Match": etag})
    assert (known.status_code, known.content, known.headers["etag"]) == (304, b"", etag)
    assert set(known.headers["content-security-policy"].split("; ")) == POLICY


def test_every_part_that_is_named_is_there_and_nothing_is_inline(http):
    page = http.get("/").text
    named = set(re.findall(r'(?:href|src)="([^"]+)"', page))
    named |= set(re.findall(r'from "([^"]+)"', http.get("/web/page.js").text))
    assert named == PARTS.keys() - {"/"}
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?! src=)", page)


def test_text_is_never_taken_for_markup(http):
    scripts = "".join(http.get(path).text for path in PARTS if path.endswith(".js"))
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|Function\(", scripts)


def test_everything_else_stays_as_it_was(http):
    for path in ("/index.html", "/web", "/web/", "/web/page.py", "/web/index.html", "/web/..%2fapp.py", "/favicon.ico"):
        response = http.get(path)
        problem(response, 404, "NOT_FOUND")
        assert "sandbox" in response.headers["content-security-policy"]
    assert http.get("/v1/jobs").headers["content-security-policy"].endswith("sandbox")
    response = http.post("/", json={})
    problem(response, 405, "METHOD_NOT_ALLOWED")
    assert response.headers["allow"] == "GET, HEAD"
    problem(http.get("/", headers={"Host": "evil.example"}), 400, "HOST_NOT_ALLOWED")
    assert not {"/", "/web/{name}"} & http.get("/openapi.json").json()["paths"].keys()


@pytest.fixture
def api(settings):
    with guarded(settings) as api:
        yield api
        with api.service.sessions.begin() as session:
            session.execute(delete(JobEvent))
            session.execute(delete(Job))


def test_a_key_is_asked_for_where_one_is_needed(api, tab):
    tab.goto(api.service.url)
    tab.wait_for_selector("#key-form")
    assert not tab.is_visible("#main")
    tab.wait_for_function("document.activeElement.id === 'key'")

    tab.keyboard.type("drk_wrong")
    tab.keyboard.press("Enter")
    tab.wait_for_selector("#key-error:has-text('this is no key')")
    tab.keyboard.type(ADMIN_KEY)
    tab.keyboard.press("Enter")

    tab.wait_for_selector("#none")
    assert not tab.is_visible("#key-form")
    tab.wait_for_selector("#estimate:has-text('steps')")
    tab.reload()
    tab.wait_for_selector("#none")
    assert ADMIN_KEY not in tab.content()
    tab.click("#forget")
    tab.wait_for_selector("#key-form")
    assert not [said for said in tab.complaints if "401" not in said]


def test_jobs_are_shown_steered_and_handed_out(api, tab):
    mine, name = api.submit(ADMIN_KEY), "<img src=x onerror=alert(1)>"
    waiting = api.ask("POST", "/v1/jobs", json=JOB | {"name": name}).json()["id"]
    api.service.succeed(mine, {"gallery.png": b"picture"})
    open_with_key(tab, api.service.url)

    tab.wait_for_selector("#jobs a")
    assert tab.locator("#jobs a").all_text_contents() == [name, "dream on digits, 1 image per class"]
    tab.set_viewport_size(PHONE)
    assert tab.evaluate("document.documentElement.scrollWidth") == PHONE["width"]

    tab.focus("#jobs tr:nth-child(2) a")
    tab.keyboard.press("Enter")
    tab.wait_for_selector("#scores dd:has-text('61.0 ± 1.0 %')")
    assert tab.evaluate("document.activeElement.id") == "title"
    with tab.expect_download() as downloading:
        tab.click("#download")
    assert downloading.value.suggested_filename == f"{mine}.zip"
    assert downloading.value.path().read_bytes()[:2] == b"PK"

    tab.click("#jobs tr:nth-child(1) a")
    tab.wait_for_selector("#cancel")
    assert not tab.is_visible("#scores dd")
    tab.click("#cancel")
    tab.wait_for_selector("#status:has-text('cancelled')")
    assert api.ask("GET", f"/v1/jobs/{waiting}").json()["status"] == "cancelled"
    assert tab.complaints == []


def test_a_running_job_is_followed_with_the_key_and_again_where_the_stream_breaks(api, tab):
    job_id = api.submit(ADMIN_KEY)
    api.service.claim(job_id)
    seen = []

    def watch(route):
        """Breaks the first stream."""
        seen.append(route.request.headers)
        if len(seen) == 1:
            route.abort()
        else:
            route.continue_()

    tab.route("**/events?types=*", watch)
    open_with_key(tab, f"{api.service.url}/#{job_id}")
    tab.wait_for_selector("#status:has-text('running')")
    while len(seen) < 2:
        tab.wait_for_timeout(50)
    api.service.call(repository.append_events, job_id, 1, [report("metric", step=3, total=10, eta_s=70.0)])

    tab.wait_for_selector("#counted:has-text('Step 3 of 10 · 1 min to go')")
    assert tab.get_attribute("#progress", "max") == "10"
    error = {"class": "user_error", "code": "BROKEN", "message": "the images are <b>broken</b>"}
    api.service.call(repository.settle, job_id, 1, Status.FAILED, error=error)
    tab.wait_for_selector("#status:has-text('failed')")
    assert tab.text_content("#reason") == error["message"]
    assert not tab.is_visible("#progress")
    assert {headers["last-event-id"] for headers in seen} == {"2"}
    assert len(seen) == 2


def test_faults_are_shown_next_to_their_fields(api, tab):
    open_with_key(tab, api.service.url)
    tab.wait_for_selector("#estimate:has-text('steps')")
    assert tab.locator("#dataset option:disabled").count() > 0
    tab.click("#absent summary")
    assert "cifar-10-batches-py" in tab.text_content("#reasons")

    tab.fill("#ipc", "9999")
    tab.wait_for_selector("#ipc-error:not(:empty)")
    assert tab.get_attribute("#ipc", "aria-invalid") == "true"
    tab.fill("#ipc", "1")
    tab.click("#settings summary")
    tab.fill("#params", '{"outer_iterations": -1}')
    tab.fill("#evaluation", "{")
    tab.click("#submit")
    tab.wait_for_selector("#evaluation-error:has-text('no JSON')")
    tab.fill("#evaluation", "")
    tab.click("#submit")
    tab.wait_for_selector("#params-error:has-text('outer_iterations: ')")
    assert tab.evaluate("document.activeElement.id") == "params"
    tab.click("#short")
    tab.wait_for_selector("#estimate:has-text('500 steps')")
    tab.click("#submit")
    tab.wait_for_selector("#status:has-text('queued')")

    [job] = api.ask("GET", "/v1/jobs").json()["data"]
    assert job["spec"]["params"] == {"outer_iterations": 5}
    assert job["spec"]["evaluation"] == {"epochs": 300}
    assert not [said for said in tab.complaints if "422" not in said]


def test_a_submit_whose_answer_is_lost_makes_one_job(api, tab):
    open_with_key(tab, api.service.url)
    tab.wait_for_selector("#estimate:has-text('steps')")
    lost = []

    def lose(route):
        """The first answer."""
        if route.request.method == "POST" and not lost:
            lost.append(route.fetch())
            route.abort()
        else:
            route.continue_()

    tab.route("**/v1/jobs", lose)
    tab.click("#submit")
    tab.wait_for_selector("#form-error:has-text('does not answer')")
    tab.click("#submit")
    tab.wait_for_selector("#status:has-text('queued')")
    assert len(api.ask("GET", "/v1/jobs").json()["data"]) == 1


def open_with_key(tab, url):
    tab.add_init_script(f"sessionStorage.setItem('key', {json.dumps(ADMIN_KEY)})")
    tab.goto(url)
