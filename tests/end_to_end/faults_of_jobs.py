"""What hurts one job: its runner, its worker, its messages, its user's mind. The servers stay up."""

import signal
import time
from dataclasses import replace
from datetime import datetime

from safetensors.numpy import load_file

from tests.end_to_end.faults import ENDLESS, STEADY, Lane, is_undisturbed, resumed, undisturbed
from tests.fixtures.cluster import OVER, Cluster, until
from tests.fixtures.serving import until_gone

EVERY_STEP = {"DREAM_CHECKPOINT_INTERVAL_S": "0.001"}
LANE = Lane("jobs", workers=2, at_a_time=2, changes=EVERY_STEP)
UNDER_SQLITE = replace(LANE, name="jobs under SQLite", database="sqlite", rows={}, nightly_rows=LANE.rows)


@LANE.row
def a_killed_runner_is_resumed_and_the_result_has_the_same_bytes(cluster: Cluster):
    job_id = cluster.submit("runner", STEADY)
    runner = cluster.runner_of(job_id)
    until(lambda: cluster.checkpointed(job_id), "a checkpoint", every=0.01)

    runner.kill()

    job = cluster.wait(job_id)
    assert (job["status"], job["attempt"], cluster.reasons(job_id)) == ("succeeded", 2, ["worker_lost"])
    queued, running = _moments(cluster, job_id)
    assert (running - queued).total_seconds() < 30
    assert resumed(cluster, job_id)
    is_undisturbed(cluster, job_id)


@LANE.row
def the_runner_of_a_killed_worker_ends_and_the_job_goes_on_when_the_lease_is_over(cluster: Cluster):
    job_id = cluster.submit("worker", STEADY)
    worker, runner = cluster.worker_of(job_id), cluster.runner_of(job_id)
    until(lambda: cluster.checkpointed(job_id), "a checkpoint", every=0.01)

    worker.kill()

    assert not until_gone([runner])
    assert not cluster.publishing(job_id), "it went on without its worker"
    worker.start()
    job = cluster.wait(job_id)
    assert (job["status"], job["attempt"], cluster.reasons(job_id)) == ("succeeded", 2, ["worker_lost"])
    assert resumed(cluster, job_id)
    is_undisturbed(cluster, job_id)


@LANE.row
def a_worker_frozen_for_longer_than_its_lease_is_fenced_out(cluster: Cluster):
    job_id = cluster.submit("frozen", STEADY)
    worker, runner = cluster.worker_of(job_id), cluster.runner_of(job_id)
    until(lambda: cluster.checkpointed(job_id), "a checkpoint", every=0.01)

    worker.send(signal.SIGSTOP)
    until(lambda: cluster.job(job_id)["attempt"] == 2, "another worker has the job")
    worker.send(signal.SIGCONT)

    assert not until_gone([runner])
    job = cluster.wait(job_id)
    assert (job["status"], job["attempt"], cluster.reasons(job_id)) == ("succeeded", 2, ["worker_lost"])
    is_undisturbed(cluster, job_id)


@LANE.nightly_row
def a_worker_frozen_until_the_job_is_over_publishes_nothing(cluster: Cluster):
    job_id = cluster.submit("long-frozen", STEADY)
    worker, runner = cluster.worker_of(job_id), cluster.runner_of(job_id)
    until(lambda: cluster.checkpointed(job_id), "a checkpoint", every=0.01)

    worker.send(signal.SIGSTOP)
    assert cluster.wait(job_id)["attempt"] == 2
    until(lambda: runner.status() == "zombie", "the first runner is done, too")
    worker.send(signal.SIGCONT)

    assert not until_gone([runner])
    time.sleep(3)  # in which the revived worker would publish
    assert cluster.job(job_id)["attempt"] == 2
    is_undisturbed(cluster, job_id)


@LANE.row
def thirty_messages_about_a_job_are_one_attempt(cluster: Cluster):
    job_id = cluster.submit("again-and-again", ENDLESS)
    cluster.ring(job_id, 10)
    cluster.runner_of(job_id)
    cluster.ring(job_id, 10)
    assert cluster.tell(job_id, "cancel") == 202
    cluster.wait(job_id, "cancelled")
    cluster.ring(job_id, 10)

    until(lambda: cluster.bell.waiting() == 0, "all messages were taken")
    assert (cluster.job(job_id)["status"], cluster.job(job_id)["attempt"]) == ("cancelled", 1)
    assert [event["data"]["to"] for event in cluster.events(job_id) if event["type"] == "state"].count("running") == 1


@LANE.row
def a_job_whose_runners_die_three_times_without_progress_is_poison(cluster: Cluster):
    job_id = cluster.submit("poison", ENDLESS)

    for attempt in (1, 2, 3):
        cluster.runner_of(job_id, attempt).kill()

    job = cluster.wait(job_id)
    assert (job["status"], job["attempt"], job["error"]["class"]) == ("failed", 3, "poison")
    assert cluster.reasons(job_id) == ["worker_lost"] * 2
    assert not cluster.published(job_id)


@LANE.nightly_row
def a_job_that_gets_on_between_its_losses_is_no_poison(cluster: Cluster):
    job_id = cluster.submit("unlucky", STEADY)

    for attempt in (1, 2, 3, 4):
        runner = cluster.runner_of(job_id, attempt)
        before = _last_step(cluster, job_id)
        until(lambda before=before: _last_step(cluster, job_id) > before, "a newer checkpoint", every=0.01)
        time.sleep(1.2)  # the worker passes it on within a second
        runner.kill()

    job = cluster.wait(job_id)
    assert (job["status"], job["attempt"]) == ("succeeded", 5)
    is_undisturbed(cluster, job_id)


@LANE.row
def a_paused_job_lets_its_worker_go_and_is_resumed_uncharged(cluster: Cluster):
    job_id = cluster.submit("pause", STEADY)
    runner = cluster.runner_of(job_id)
    until(lambda: cluster.checkpointed(job_id), "a checkpoint", every=0.01)

    assert cluster.tell(job_id, "pause") == 202

    cluster.wait(job_id, "paused")
    assert not until_gone([runner])
    assert cluster.tell(job_id, "resume") == 202
    job = cluster.wait(job_id)
    assert (job["status"], job["attempt"], job["retries_left"]) == ("succeeded", 2, 2)
    assert resumed(cluster, job_id)
    is_undisturbed(cluster, job_id)


@LANE.row
def cancelled_while_a_checkpoint_is_written_it_leaves_whole_ones(cluster: Cluster):
    _cancel_while_checkpointing(cluster, 0.01)


@LANE.nightly_row
def cancelled_at_any_moment_of_a_checkpoint_it_leaves_whole_ones(cluster: Cluster):
    for milliseconds in range(0, 60, 5):
        _cancel_while_checkpointing(cluster, milliseconds / 1000)


@LANE.row
def cancelled_while_the_result_is_published_it_has_all_of_it_or_nothing(cluster: Cluster):
    _cancel_while_publishing(cluster, 0.0)


@LANE.nightly_row
def cancelled_at_any_moment_of_publishing_it_has_all_of_a_result_or_nothing(cluster: Cluster):
    endings = {_cancel_while_publishing(cluster, hundredths / 100) for hundredths in range(0, 150, 10)}
    assert endings == {"cancelled", "succeeded"}


@LANE.row
def a_worker_that_is_replaced_gives_its_job_back_uncharged(cluster: Cluster):
    job_id = cluster.submit("deploy", STEADY)
    worker = cluster.worker_of(job_id)
    until(
        lambda: cluster.checkpointed(job_id), "a checkpoint", every=0.01
    )  # there is one after every step, and one is due again

    assert worker.terminate() == 0

    job = cluster.job(job_id)
    assert (cluster.reasons(job_id), job["retries_left"]) == (["host_shutdown"], 2)
    worker.start()
    job = cluster.wait(job_id)
    assert (job["status"], job["attempt"]) == ("succeeded", 2)
    assert resumed(cluster, job_id)
    is_undisturbed(cluster, job_id)


@LANE.row
def a_worker_that_is_replaced_while_it_publishes_publishes_first(cluster: Cluster):
    job_id = cluster.submit("deploy-late", STEADY)
    worker = cluster.worker_of(job_id)
    until(lambda: cluster.publishing(job_id), "the result is being written", every=0.01)

    assert worker.terminate() == 0

    job = cluster.job(job_id)
    assert (job["status"], job["attempt"]) == ("succeeded", 1)
    worker.start()
    is_undisturbed(cluster, job_id)


@LANE.nightly_row
def a_worker_may_be_replaced_at_any_moment(cluster: Cluster):
    for tenths in range(0, 60, 5):
        job_id = cluster.submit(f"deploy-after-{tenths}", STEADY)
        worker = cluster.worker_of(job_id)
        time.sleep(tenths / 10)
        assert worker.terminate() == 0
        worker.start()
        job = cluster.wait(job_id)
        assert (job["status"], job["retries_left"]) == ("succeeded", 2)
        assert set(cluster.reasons(job_id)) <= {"host_shutdown"}
        is_undisturbed(cluster, job_id)


def _cancel_while_checkpointing(cluster: Cluster, delay_s: float) -> None:
    job_id = cluster.submit(f"cancel-a-checkpoint-{delay_s}", ENDLESS)
    until(lambda: cluster.checkpointed(job_id), "a checkpoint", every=0.01)
    time.sleep(delay_s)

    assert cluster.tell(job_id, "cancel") == 202

    assert cluster.wait(job_id)["status"] == "cancelled"
    left = list(cluster.home.glob(f"checkpoints/{job_id}/ckpt-*"))
    assert left
    for checkpoint in left:
        assert load_file(checkpoint / "state.safetensors")


def _cancel_while_publishing(cluster: Cluster, delay_s: float) -> str:
    """How it ended: either is right, but nothing in between."""
    job_id = cluster.submit(f"cancel-a-result-{delay_s}", STEADY)
    until(lambda: cluster.publishing(job_id) or cluster.job(job_id)["status"] in OVER, "the result is being written")
    time.sleep(delay_s)

    told = cluster.tell(job_id, "cancel")

    job = cluster.wait(job_id)
    assert (told, job["status"]) in [(202, "cancelled"), (409, "succeeded")]
    assert job["partial"] is (job["status"] == "cancelled" and bool(cluster.published(job_id)))
    if cluster.published(job_id):
        assert cluster.digests(job_id) == undisturbed()
    return job["status"]


def _last_step(cluster: Cluster, job_id: str) -> int:
    checkpoints = cluster.home.glob(f"checkpoints/{job_id}/ckpt-*")
    return max((int(path.name.rpartition("-")[2]) for path in checkpoints), default=0)


def _moments(cluster: Cluster, job_id: str) -> tuple[datetime, datetime]:
    """When the job was last queued, and when it last began to run."""
    states = [event for event in cluster.events(job_id) if event["type"] == "state"]
    when = {event["data"]["to"]: datetime.fromisoformat(event["created_at"]) for event in states}
    return when["queued"], when["running"]
