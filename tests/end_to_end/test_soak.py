"""The soak must be able to fail: what is a fault, and that a real one is noticed to the exit code."""

import json
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from benchmarks.soak_sabotage import SABOTAGE
from benchmarks.soak_verdict import Blow, Facts, attempts, faults_of, losses_without_a_blow, was_poisoned

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "soak.py"
START = datetime(2026, 1, 1, tzinfo=UTC)
SUCCEEDED = ["queued", "running", "succeeded"]
POISONED = ["queued", "running", "queued", "running", "queued", "running", "failed"]


def told(states, reason=None, every=timedelta(minutes=1)):
    """Events of a job that goes through these states on worker 7, one after another."""
    attempt, events = 0, []
    for number, (before, state) in enumerate(zip([None, *states], states, strict=False), start=1):
        attempt += state == "running"
        data = {"from": before, "to": state, "reason": reason, "worker": "host:7"}
        moment = (START + number * every).isoformat()
        events.append({"seq": number, "type": "state", "attempt": attempt, "created_at": moment, "data": data})
    return events


GOOD = Facts({"id": "job_1", "status": "succeeded"}, told(SUCCEEDED), 1, {"a": "1"}, {"a": "1"})
POISON = Facts(
    {"id": "job_1", "status": "failed", "error": {"class": "poison"}},
    told(POISONED, "worker_lost"),
    blows=[Blow(START + timedelta(minutes=minute, seconds=30), worker_pid=7) for minute in (2, 4, 6)],
)


def test_a_job_that_succeeded_once_with_the_right_bytes_is_well():
    assert faults_of(GOOD) == {}


def test_a_cancelled_job_is_well_only_if_that_was_asked_for():
    cancelled = replace(GOOD, job={"id": "job_1", "status": "cancelled"}, manifests=0, digests={})

    assert set(faults_of(cancelled)) == {"lost"}
    assert faults_of(replace(cancelled, cancel_asked=True)) == {}


def test_a_job_given_up_is_lost_unless_three_of_its_attempts_were_killed():
    assert was_poisoned(POISON)
    assert faults_of(POISON) == {}
    for blows in (POISON.blows[1:], [*POISON.blows[1:], replace(POISON.blows[0], worker_pid=8)]):
        assert not was_poisoned(replace(POISON, blows=blows))
        assert set(faults_of(replace(POISON, blows=blows))) == {"lost"}


def test_attempts_are_read_from_the_events():
    assert [attempt.lost for attempt in attempts(POISON.events)] == [True] * 3
    assert [attempt.lost for attempt in attempts(GOOD.events)] == [False]
    assert attempts(()) == []


def test_attempts_lost_without_a_fault_are_counted():
    assert losses_without_a_blow(Facts(None)) == losses_without_a_blow(POISON) == 0
    assert losses_without_a_blow(replace(POISON, blows=POISON.blows[1:])) == 1


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"job": None, "events": ()}, "lost"),
        ({"job": {"id": "job_1", "status": "running"}}, "lost"),
        ({"job": {"id": "job_1", "status": "failed", "error": {"class": "internal"}}}, "lost"),
        ({"events": told([*SUCCEEDED, "succeeded"])}, "doubled"),
        ({"manifests": 2}, "doubled"),
        ({"events": [event | {"attempt": 3 - number} for number, event in enumerate(told(SUCCEEDED))]}, "doubled"),
        ({"events": [event | {"seq": 1} for event in told(SUCCEEDED)]}, "wrong"),
        ({"manifests": 0}, "wrong"),
        ({"digests": {"a": "2"}}, "wrong"),
        ({"digests": {}}, "wrong"),
    ],
)
def test_what_is_not_well(change, fault):
    assert set(faults_of(replace(GOOD, **change))) == {fault}


@pytest.mark.nightly
@pytest.mark.parametrize(("sabotage", "fault"), [*zip(SABOTAGE, ("lost", "doubled", "wrong"), strict=True)])
def test_a_fault_that_the_service_did_not_survive_is_told_by_the_exit_code(sabotage, fault):
    command = [sys.executable, str(SCRIPT), "--rounds", "1", "--json", "--sabotage", sabotage]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)

    assert (done.returncode, bool(done.stdout)) == (1, True), done.stderr
    found = json.loads(done.stdout)
    assert {name for name in ("lost", "doubled", "wrong") if found[name]} == {fault}
