"""Full disks, under SQLite."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from tests.end_to_end.faults import STEADY, Lane, is_undisturbed, resumed
from tests.fixtures.cluster import Cluster, until

LANE = Lane("disks", workers=1, at_a_time=1, database="sqlite")


@LANE.row
def a_disk_full_of_checkpoints_costs_checkpoints_but_not_the_job(cluster: Cluster):
    with small_disk(cluster.home / "checkpoints", "1m") as disk:
        job_id = cluster.submit("full-of-checkpoints", STEADY)
        until(lambda: cluster.checkpointed(job_id), "a checkpoint", every=0.01)
        _fill(disk)

        job = cluster.wait(job_id)

        assert (job["status"], job["attempt"]) == ("succeeded", 1)
        warnings = [event["data"]["code"] for event in cluster.events(job_id) if event["type"] == "warning"]
        assert "CHECKPOINT_FAILED" in warnings
        for checkpoint in disk.glob(f"{job_id}/ckpt-*"):
            assert load_file(checkpoint / "state.safetensors")
        is_undisturbed(cluster, job_id)


@LANE.row
def a_disk_full_when_the_result_is_written_fails_the_job_and_leaves_what_a_retry_goes_on_from(cluster: Cluster):
    with small_disk(cluster.home / "staging", "16k"):
        job_id = cluster.submit("no-room-for-the-result", STEADY)

        job = cluster.wait(job_id)

        assert (job["status"], job["error"]["class"], job["error"]["code"]) == ("failed", "internal", "DISK_FULL")
        assert not cluster.published(job_id)
        assert cluster.checkpointed(job_id)
    answer = cluster.ask("POST", f"/v1/jobs/{job_id}/retry", json={"from_checkpoint": "latest"})
    assert answer.status_code == 202, answer.text
    again = answer.json()["id"]
    assert cluster.wait(again)["status"] == "succeeded"
    assert resumed(cluster, again)
    is_undisturbed(cluster, again)


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[Path]:
    """A disk of a few bytes there, so that it can be filled."""
    place.mkdir(exist_ok=True)
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("only root can mount a small disk to fill")
    command = [mount, "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"a small disk to fill cannot be mounted here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def _fill(disk: Path) -> None:
    with (disk / "filler").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return
