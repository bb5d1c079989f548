"""The history of a job, in pages."""

import pytest

from jobs import repository
from tests.api.conftest import problem
from tests.api.test_jobs import report


@pytest.fixture
def job_id(service, submit) -> str:
    """A running job with seven events."""
    job_id = submit()
    service.claim(job_id)
    reports = [report("metric", step=step, total=3, loss=1.0, eta_s=None) for step in (1, 2, 3)]
    service.call(
        repository.append_events, job_id, 1, [*reports, report("log", message="a"), report("log", message="b")]
    )
    return job_id


def types(http, job_id, **params) -> list[str]:
    return [event["type"] for event in http.get(f"/v1/jobs/{job_id}/events", params=params).json()["data"]]


def test_events_of_some_types(http, job_id):
    assert types(http, job_id, types="log") == ["log", "log"]
    assert types(http, job_id, types="state,log") == ["state", "state", "log", "log"]
    assert types(http, job_id, types=["state", "log"], after=1) == ["state", "log", "log"]
    assert types(http, job_id, types="warning") == []


def test_a_type_that_there_is_not(http, job_id):
    document = problem(http.get(f"/v1/jobs/{job_id}/events?types=log,metrics"), 422, "VALIDATION_FAILED")
    assert document["errors"][0]["pointer"] == "?types.1"
    assert "'metric'" in document["detail"]


def test_a_page_of_some_types_leads_behind_all_that_was_looked_at(http, job_id):
    page = http.get(f"/v1/jobs/{job_id}/events?types=metric&limit=2").json()
    assert (page["has_more"], page["next_after"]) == (True, 4)
    page = http.get(f"/v1/jobs/{job_id}/events?types=metric&limit=2&after=4").json()
    assert ([event["seq"] for event in page["data"]], page["has_more"], page["next_after"]) == ([5], False, 7)


@pytest.mark.parametrize("what", ["events", "metrics"])
def test_polling_by_etag(http, service, job_id, what):
    url = f"/v1/jobs/{job_id}/{what}"
    first = http.get(url)
    assert (first.headers["etag"], first.headers["cache-control"]) == ('W/"7"', "private, no-cache")
    again = http.get(url, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", 'W/"7"')
    service.call(repository.append_events, job_id, 1, [report("log", message="c")])
    changed = http.get(url, headers={"If-None-Match": first.headers["etag"]})
    assert (changed.status_code, changed.headers["etag"]) == (200, 'W/"8"')


@pytest.mark.parametrize("accept", ["*/*", "application/json", "text/*;q=0.5, application/json", "image/png", "x;q=?"])
def test_who_does_not_ask_for_a_stream_gets_a_page(http, job_id, accept):
    response = http.get(f"/v1/jobs/{job_id}/events", headers={"Accept": accept})
    assert response.headers["content-type"] == "application/json"
    assert response.headers["vary"] == "Accept"


def test_both_kinds_are_described(http):
    operation = http.get("/openapi.json").json()["paths"]["/v1/jobs/{job_id}/events"]["get"]
    assert set(operation["responses"]["200"]["content"]) == {"application/json", "text/event-stream"}
    operation = http.get("/openapi.json").json()["paths"]["/v1/jobs/{job_id}/metrics"]["get"]
    assert set(operation["responses"]["200"]["content"]) == {"application/json", "text/csv"}
