"""Series of what was measured, and how they are thinned out."""

import csv
import io
import math
import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import insert

from jobs import repository
from jobs.repository import utcnow
from jobs.series import lttb, read_series
from jobs.spec import JobSpec
from jobs.tables import JobEvent
from tests.api.conftest import problem
from tests.api.test_jobs import GOOD, report

values = st.one_of(st.floats(), st.floats(-1e6, 1e6), st.just(0.0))


@given(st.lists(values, max_size=300), st.integers(2, 60))
def test_thinning_keeps_the_ends_the_order_and_the_limit(y, most):
    kept = lttb(range(len(y)), y, most)
    assert kept == sorted(set(kept))
    assert set(kept) <= set(range(len(y)))
    assert len(kept) == min(len(y), most)
    if y:
        assert (kept[0], kept[-1]) == (0, len(y) - 1)


def test_thinning_keeps_a_spike():
    y = [math.sin(x / 50) for x in range(10_000)]
    y[7123] = 40.0
    assert 7123 in lttb(range(len(y)), y, 100)


def test_the_line_through_what_is_kept_is_near_to_what_is_not():
    y = [math.sin(x / 300) * math.exp(-x / 4000) for x in range(10_000)]
    for a, b in pairwise(lttb(range(len(y)), y, 101)):
        assert max(abs(y[a] + (y[b] - y[a]) * (i - a) / (b - a) - y[i]) for i in range(a, b)) < 0.05


def metric(step: int, **data) -> dict:
    return report("metric", step=step, total=10, **data)


@pytest.fixture
def job_id(service, submit) -> str:
    """A job that was resumed: its second attempt repeats step 3."""
    job_id = submit()
    service.claim(job_id)
    first = [
        report("phase", phase="pretraining"),
        metric(1, loss=None, step_seconds=0.5),
        report("phase", phase="distilling"),
        *(metric(step, loss=10.0 / step, step_seconds=0.25, eta_s=1.5) for step in (2, 3, 4)),
    ]
    service.call(repository.append_events, job_id, 1, first)
    second = [
        report("phase", phase="loading"),
        report("phase", phase="distilling"),
        *(metric(step, loss=20.0 / step, step_seconds=0.25) for step in (3, 4, 5)),
        report("phase", phase="evaluating"),
        metric(1, subject="synthetic", run=1, epoch=1, eta_s=3.0),
        *(
            report("evaluation", subject="synthetic", run=run, runs=2, epochs=1, last=50.0 + run, best=60.0)
            for run in (1, 2)
        ),
        report("evaluation", subject="random", run=1, runs=2, epochs=1, last=40.0, best=41.0),
    ]
    service.call(repository.append_events, job_id, 1, second)
    return job_id


def test_series_by_key_and_phase(http, job_id):
    answer = http.get(f"/v1/jobs/{job_id}/metrics").json()
    found = {(series["key"], series["phase"]): series for series in answer["data"]}
    assert found["loss", "distilling"]["points"] == [[2, 5.0], [3, 20 / 3], [4, 5.0], [5, 4.0]]
    assert found["loss", "distilling"]["total"] == 4
    assert found["loss", "distilling"]["times"] == ["2026-01-02T03:04:05Z"] * 4
    assert found["step_seconds", "pretraining"]["points"] == [[1, 0.5]]
    assert found["accuracy.synthetic", "evaluating"]["points"] == [[1, 51.0], [2, 52.0]]
    assert found["best_accuracy.random", "evaluating"]["points"] == [[1, 41.0]]
    assert {key for key, _ in found} == set(answer["keys"])
    assert {"loss", "step_seconds", "accuracy.synthetic", "accuracy.random"} < set(answer["keys"])
    assert not {"eta_s", "run", "epoch", "total", "step"} & set(answer["keys"])


def test_some_keys_and_few_points(http, job_id):
    answer = http.get(f"/v1/jobs/{job_id}/metrics?keys=loss,step_seconds&max_points=2").json()
    series = [(one["key"], one["phase"], [step for step, _ in one["points"]]) for one in answer["data"]]
    assert series == [
        ("step_seconds", "pretraining", [1]),
        ("loss", "distilling", [2, 5]),
        ("step_seconds", "distilling", [2, 5]),
    ]


def test_unknown_keys_are_refused_with_the_known_ones(http, job_id):
    document = problem(http.get(f"/v1/jobs/{job_id}/metrics?keys=loss,lost"), 422, "VALIDATION_FAILED")
    assert document["errors"][0]["pointer"] == "?keys"
    assert document["known"] == http.get(f"/v1/jobs/{job_id}/metrics").json()["keys"]
    assert "accuracy.random" in document["detail"]


def test_a_job_that_has_measured_nothing_yet(http, submit):
    answer = http.get(f"/v1/jobs/{submit()}/metrics?keys=loss").json()
    assert (answer["data"], "loss" in answer["keys"]) == ([], True)


@pytest.mark.parametrize("query", ["max_points=1", "max_points=10001", "points=3"])
def test_refused_queries(http, job_id, query):
    problem(http.get(f"/v1/jobs/{job_id}/metrics?{query}"), 422, "VALIDATION_FAILED")


def test_as_csv(http, job_id):
    response = http.get(f"/v1/jobs/{job_id}/metrics?keys=loss", headers={"Accept": "text/csv"})
    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    assert response.headers["etag"]
    rows = list(csv.DictReader(io.StringIO(response.text)))
    assert rows[0] == {
        "key": "loss", "phase": "distilling", "step": "2", "value": "5.0", "time": "2026-01-02T03:04:05+00:00"
    }  # fmt: skip
    assert len(rows) == 4


def test_many_events_in_bounded_memory(sessions):
    """Rows go by in small numbers: what stays is 24 bytes a point."""
    spec, many = JobSpec.model_validate(GOOD), 6_000
    with sessions.begin() as session:
        job = repository.create_job(session, spec, spec.resolve(), None, {})
        session.flush()
        events = [
            {"job_id": job.id, "seq": seq, "type": "metric", "attempt": 1, "created_at": utcnow(),
             "data": {"step": seq, "total": many, "loss": 1.0 / seq, "eta_s": 1.0}}
            for seq in range(2, many + 2)
        ]  # fmt: skip
        session.execute(insert(JobEvent), events)
    tracemalloc.start()
    with sessions() as session:
        series = read_series(session, job.id)["loss", "loading"]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(series) == many
    assert peak < 3e6, f"{peak / 1e6:.1f} MB"
    assert len(series.thinned(1000)) == 1000
