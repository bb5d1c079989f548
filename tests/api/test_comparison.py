"""Jobs side by side, and the best of each kind."""

import time
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, update

from jobs import repository
from jobs.comparison import BEST, differences, leaderboard
from jobs.lifecycle import Status
from jobs.repository import utcnow
from jobs.spec import JobSpec
from jobs.tables import Job
from tests.api.conftest import problem
from tests.api.test_jobs import GOOD, report


@pytest.fixture
def judged(service, submit):
    """A job that has come to its end with a score."""

    def judged(accuracy: float | None = 61.0, protocol: str | None = "aaaa", **spec) -> str:
        job_id = submit(**spec)
        service.claim(job_id)
        curve = [report("metric", step=step, total=1000, loss=9.0 / step) for step in range(1, 1001)]
        service.call(repository.append_events, job_id, 1, [report("phase", phase="distilling"), *curve])
        summary = {
            "accuracy": {"mean": accuracy, "std": 1.5, "n": 3, "best_mean": 62.5},
            "baselines": {"random": {"mean": 41.0, "std": 2.0, "n": 3}, "full": None},
            "protocol_hash": protocol,
            "seconds": {"distil": 12.5, "evaluate": 3.0},
        }
        service.call(repository.settle, job_id, 1, Status.SUCCEEDED, result_summary=summary)
        return job_id

    return judged


def test_two_jobs_side_by_side(http, judged, submit):
    first, second = judged(seed=1), submit(seed=2, method="idc")
    answer = http.get(f"/v1/compare?ids={first},{second}").json()
    assert [(job["id"], job["method"], job["status"]) for job in answer["jobs"]] == [
        (first, "dream", "succeeded"), (second, "idc", "queued")
    ]  # fmt: skip
    differing = {difference["field"]: difference["values"] for difference in answer["differences"]}
    assert differing["seed"] == [1, 2]
    assert differing["method"] == ["dream", "idc"]
    assert differing["selection"] == ["representative", "random"]
    assert "dataset" not in differing
    curve, nothing = answer["curves"]
    assert (curve["job_id"], len(curve["points"]), curve["points"][0], curve["points"][-1]) == (
        first, 200, [1, 9.0], [1000, 0.009]
    )  # fmt: skip
    assert nothing == {"job_id": second, "points": []}
    result, none = answer["results"]
    assert result == {
        "job_id": first,
        "accuracy": {"mean": 61.0, "std": 1.5, "n": 3},
        "best_mean": 62.5,
        "baseline_random": {"mean": 41.0, "std": 2.0, "n": 3},
        "ceiling_full": None,
        "seconds": {"distil": 12.5, "evaluate": 3.0},
        "protocol_hash": "aaaa",
        "partial": False,
    }
    assert (none["accuracy"], none["protocol_hash"], none["seconds"]) == (None, None, {})
    assert answer["note"] is None


def test_jobs_that_were_judged_differently_are_said_to_be(http, judged):
    ids = f"{judged()},{judged(protocol='bbbb', evaluation={'epochs': 7})}"
    answer = http.get("/v1/compare", params={"ids": ids}).json()
    assert "different protocols" in answer["note"]
    assert [difference["field"] for difference in answer["differences"]] == ["evaluation.epochs"]


def test_how_many_can_be_compared(http, submit):
    ids = [submit() for _ in range(9)]
    assert len(http.get("/v1/compare", params={"ids": ids[:8]}).json()["jobs"]) == 8
    for wrong in ([], ids[:1], ids, [ids[0], ids[0]]):
        document = problem(http.get("/v1/compare", params={"ids": wrong}), 422, "VALIDATION_FAILED")
        assert document["errors"][0]["pointer"] == "?ids"
    for strange in (f"job_{'0' * 32}", "x", "", "\x00"):
        problem(http.get("/v1/compare", params={"ids": f"{ids[0]},{strange}"}), 404, "NOT_FOUND")


recipes = st.recursive(
    st.dictionaries(st.text("ab", min_size=1), st.integers(0, 2)),
    lambda inner: st.dictionaries(st.text("ab", min_size=1), inner | st.integers(0, 2)),
    max_leaves=6,
)


@settings(max_examples=40)
@given(st.lists(recipes, min_size=2, max_size=4))
def test_only_what_differs_is_listed(specs):
    assert not differences([specs[0], specs[0]])
    for difference in differences(specs):
        assert len(difference.values) == len(specs)
        assert len(set(map(str, difference.values))) > 1


# ---------------------------------------------------------------- leaderboard


@pytest.mark.usefixtures("empty")
def test_the_best_of_each_kind(http, judged, submit):
    better, worse = judged(70.0), judged(60.0, method="idc", seed=5)
    other_protocol, other_ipc = judged(10.0, "bbbb"), judged(80.0, ipc=2)
    judged(None), judged(99.0, None), submit()
    board = http.get("/v1/leaderboard").json()
    kinds = [
        (
            group["dataset"],
            group["ipc"],
            group["protocol_hash"],
            [(row["rank"], row["job_id"]) for row in group["rows"]],
        )
        for group in board["data"]
    ]
    assert kinds == [
        ("digits", 1, "aaaa", [(1, better), (2, worse)]),
        ("digits", 1, "bbbb", [(1, other_protocol)]),
        ("digits", 2, "aaaa", [(1, other_ipc)]),
    ]
    assert board["has_more"] is False
    second = board["data"][0]["rows"][1]
    assert (second["method"], second["seed"], second["result"]["accuracy"]["mean"]) == ("idc", 5, 60.0)
    assert board["data"][0]["protocol"]["network"] == "convnet"
    only = http.get("/v1/leaderboard?dataset=digits&ipc=2").json()["data"]
    assert [group["ipc"] for group in only] == [2]
    assert http.get("/v1/leaderboard?dataset=mnist").json()["data"] == []
    problem(http.get("/v1/leaderboard?ipc=0"), 422, "VALIDATION_FAILED")


@pytest.mark.usefixtures("empty")
def test_what_is_deleted_or_no_number_has_no_place(http, service, judged):
    kept, deleted = judged(50.0), judged(60.0)
    service.call(repository.delete, deleted)
    board = http.get("/v1/leaderboard").json()["data"]
    assert [row["job_id"] for row in board[0]["rows"]] == [kept]


def fill(session, count: int, kinds: int) -> None:
    """Jobs that have succeeded, of owners a and b in turn."""
    spec, now = JobSpec.model_validate(GOOD), utcnow()
    same = {"spec": spec.model_dump(mode="json"), "resolved_spec": spec.resolve().model_dump(mode="json"), "labels": {}}
    rows = [
        same | {
            "id": f"job_{number:032x}", "owner": "ab"[number % 2], "dataset": f"d{number % kinds}", "method": "dream",
            "ipc": 1, "status": Status.SUCCEEDED, "accuracy": number * 7919 % 9973 / 100, "protocol_hash": "p",
            "queue": "q", "run_after": now, "queued_at": now, "created_at": now + timedelta(seconds=number),
            "result_summary": {"accuracy": {"mean": 1.0}},
        }
        for number in range(count)
    ]  # fmt: skip
    session.execute(insert(Job), rows)


def test_ten_of_each_kind_on_both_databases(sessions):
    with sessions.begin() as session:
        fill(session, 300, kinds=3)
        session.execute(update(Job).where(Job.id == f"job_{7:032x}").values(accuracy=float("nan")))
    with sessions() as session:
        everyone, _ = leaderboard(session)
        mine, _ = leaderboard(session, owner="a")
    assert [ranked.rank for ranked in everyone] == [*range(1, BEST + 1)] * 3
    assert f"job_{7:032x}" not in {ranked.job.id for ranked in everyone}
    for start in (0, 10, 20):
        scores = [ranked.job.accuracy for ranked in everyone[start : start + 10]]
        assert scores == sorted(scores, reverse=True)
    assert {ranked.job.owner for ranked in mine} == {"a"}


@pytest.mark.nightly
def test_a_hundred_thousand_jobs(sessions):
    with sessions.begin() as session:
        fill(session, 100_000, kinds=50)
    with sessions() as session:
        for filters in ({}, {"dataset": "d7"}, {"owner": "a"}):
            started = time.monotonic()
            found, _ = leaderboard(session, **filters)
            seconds = time.monotonic() - started
            assert len(found) >= BEST
            assert seconds < 3, f"{filters}: {seconds:.2f} s"
