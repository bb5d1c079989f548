import json
from dataclasses import replace

import pytest
import torch

from dream_core.errors import Diverged
from tests.dream_core.tiny import tiny_dataset, tiny_recipe
from worker.checkpoint import CheckpointStore
from worker.distilling import Distilling
from worker.order import Job
from worker.reporting import Interrupted, Reporter

DATASET = tiny_dataset()
CPU = torch.device("cpu")


@pytest.fixture
def job(tmp_path):
    return Job(
        "job_0",
        tiny_recipe(),
        tmp_path,
        tmp_path,
        tmp_path / "checkpoints",
        tmp_path / "output",
        checkpoint_interval_s=0,
    )


@pytest.fixture
def distilling(tmp_path, job):
    """Makes the phase of a job, to be asked after every step whether it should stop."""
    report = Reporter(tmp_path / "events.jsonl")

    def distilling(stopping=lambda: False, **changes):
        changed = replace(job, **changes)
        store = CheckpointStore(changed.checkpoints, job.recipe, DATASET.fingerprint, report.warning)
        return Distilling(changed, DATASET, CPU, store, report, stopping)

    return distilling


@pytest.fixture
def told(tmp_path):
    def told(kind):
        events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
        return [event["data"] for event in events if event["type"] == kind]

    return told


class AfterStep:
    """Does something once so many steps are done."""

    def __init__(self, step, then):
        self.step, self.then = step, then

    def __call__(self):
        self.step -= 1
        return bool(self.step == 0 and self.then())


def test_a_pixel_that_is_no_number_ends_the_run_and_is_not_kept(distilling):
    """A step looks at its loss and gradients; what they make of the pixels may still be too much."""
    run = distilling(AfterStep(3, lambda: run.distillation.synthetic.images[0].fill_(float("inf")).min() < 0))

    with pytest.raises(Diverged, match="pixel is not finite at step 3"):
        run.finish()

    kept = run.checkpoints.latest()
    assert kept.step == 2
    assert kept.tensors["images"].isfinite().all()


def test_a_flipped_bit_costs_one_checkpoint_and_not_the_result(distilling, told, tmp_path):
    undisturbed = distilling(checkpoints=tmp_path / "other").finish().synthetic.images
    with pytest.raises(Interrupted):
        distilling(AfterStep(4, lambda: True)).finish()
    newest = max((tmp_path / "checkpoints").glob("ckpt-*")) / "state.safetensors"
    content = bytearray(newest.read_bytes())
    content[-1] ^= 1
    newest.write_bytes(content)

    resumed = distilling()

    assert [event["code"] for event in told("warning")] == ["CHECKPOINT_DAMAGED"]
    assert told("log")[-1]["message"] == "resumed at step 3 of 6"
    assert torch.equal(resumed.finish().synthetic.images, undisturbed)


def test_stopped_it_saves_where_it_is(distilling, told):
    with pytest.raises(Interrupted):
        distilling(AfterStep(4, lambda: True), checkpoint_interval_s=3600).finish()

    assert [event["step"] for event in told("checkpoint")] == [4]
    resumed = distilling(checkpoint_interval_s=3600)
    assert resumed.finish().step_number == 6
    assert [event["step"] for event in told("metric")][-1] == 6
