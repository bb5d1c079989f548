import json
import subprocess
import sys

import pytest

from worker.narration import sentence
from worker.reporting import Reporter


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_metrics_come_at_most_twice_a_second_but_the_last_one_always(tmp_path):
    report = Reporter(tmp_path / "events.jsonl")

    told = [report.metric(step, 50, loss=0.5) for step in range(1, 51)]

    steps = [event["data"]["step"] for event in read(report.path)]
    assert steps == [step for step, due in enumerate(told, start=1) if due]
    assert (steps[0], steps[-1]) == (1, 50)
    assert len(steps) < 10


def test_a_person_reads_along_on_stderr(tmp_path, capsys):
    report = Reporter(tmp_path / "events.jsonl")

    report.event("phase", phase="distilling")
    for step in range(1, 51):
        report.metric(step, 50, loss=0.123456)
    report.warning("CHECKPOINT_FAILED", "the disk is full")

    said = [line.partition(" ")[2] for line in capsys.readouterr().err.splitlines()]
    assert said == [
        "distilling",
        "step 1 of 50: loss 0.1235",
        "step 50 of 50: loss 0.1235",
        "warning: the disk is full",
    ]


def test_a_log_that_cannot_be_written_is_done_without(tmp_path):
    """As on a full disk."""
    program = "import sys; from pathlib import Path; from worker.reporting import Reporter; "
    program += "Reporter(Path(sys.argv[1])).event('phase', phase='distilling')"
    path = tmp_path / "events.jsonl"
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", program, str(path)], stderr=full, check=False)

    assert done.returncode == 0
    assert [event["type"] for event in read(path)] == ["phase"]


@pytest.mark.parametrize(
    ("kind", "data", "told"),
    [
        ("metric", {"step": 3, "total": 9, "loss": 0.5, "eta_s": 5400.0}, "step 3 of 9: loss 0.5, about 1.5 h to go"),
        ("metric", {"step": 3, "total": 9, "loss": 0.5, "eta_s": 90.0}, "step 3 of 9: loss 0.5, about 2 min to go"),
        ("metric", {"step": 3, "total": 9, "loss": 0.5, "eta_s": 9.0}, "step 3 of 9: loss 0.5, about 9 s to go"),
        (
            "metric",
            {"step": 3, "total": 9, "subject": "random", "run": 2, "epoch": 3, "eta_s": None},
            "random, network 2: epoch 3",
        ),
        (
            "checkpoint",
            {"step": 3, "total": 9, "phase": "distilling", "loss": None, "bytes": 1_250_000, "seconds": 0.125},
            "checkpoint at step 3 of 9: 1.2 MB in 0.12 s",
        ),
        ("preview", {"step": 3, "name": "step-00000003.webp"}, None),
    ],
)
def test_events_become_sentences(kind, data, told):
    assert sentence(kind, data) == told
