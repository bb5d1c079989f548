import hashlib
import json
import re
import shutil
import signal
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from dream_core import loader
from dream_core.formats import read_training_set
from dream_core.recipes import make_recipe
from tests.dream_core.dataset_files import tree_files, write_tree
from tests.worker.runners import job
from worker import pipeline
from worker.stopping import Stop

DONE, USER_ERROR, FAILED, IO_ERROR, STOPPED = 0, 64, 70, 74, 75
# long enough to be interrupted in every phase
STEPS, EPOCHS, REPEATS = 30, 6, 3
LONGER = {
    "params": {"inner_iterations": STEPS, "interval": 5},
    "evaluation": {"epochs": EPOCHS, "repeats": REPEATS, "baselines": True},
}
SAME = ("synthetic.safetensors", "decoded.safetensors", "metrics.jsonl", "evaluation.json", "gallery.png")


def evaluating(work):
    """The progress that was told of while networks were trained and tested."""
    return [event for event in work.events("metric") if "subject" in event]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """As the supervisor starts it, and run to its end."""
    work = job(tmp_path_factory.mktemp("undisturbed") / "a näme", **LONGER)
    command = [sys.executable, "-m", "worker.runner", str(work.directory)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (DONE, "")
    (work.directory / "said").write_text(done.stderr)
    return work


def test_a_run_leaves_a_result_and_verified_files(undisturbed):
    assert undisturbed.result.keys() == {"accuracy", "baselines", "protocol_hash", "seconds", "budget"}
    assert 0 < undisturbed.result["accuracy"]["mean"] <= 100
    assert undisturbed.result["accuracy"]["n"] == undisturbed.result["baselines"]["random"]["n"] == REPEATS
    assert undisturbed.result["baselines"]["full"] is None
    assert not (undisturbed.directory / "error.json").exists()
    manifest = json.loads((undisturbed.output / "manifest.json").read_text())
    assert {entry["path"] for entry in manifest["files"]} == {
        path.name for path in undisturbed.output.iterdir() if path.name != "manifest.json"
    }
    for entry in manifest["files"]:
        assert hashlib.sha256((undisturbed.output / entry["path"]).read_bytes()).hexdigest() == entry["sha256"]
    assert manifest["evaluation"][0]["mean"] == undisturbed.result["accuracy"]["mean"]


def test_a_run_tells_how_it_goes(undisturbed):
    phases = [event["phase"] for event in undisturbed.events("phase")]
    assert phases == ["loading", "distilling", "evaluating", "publishing"]
    distilling = [event for event in undisturbed.events("metric") if "loss" in event]
    assert (distilling[0]["step"], distilling[-1]["step"], distilling[-1]["total"]) == (1, STEPS, STEPS)
    assert distilling[-1]["eta_s"] == 0
    (saved,) = undisturbed.events("checkpoint")
    assert (saved["step"], saved["total"], saved["phase"], saved["loss"]) == (
        STEPS, STEPS, "distilling", distilling[-1]["loss"]
    )  # fmt: skip
    assert saved["bytes"] > 1000
    judged = [(event["subject"], event["run"]) for event in undisturbed.events("evaluation")]
    assert judged == [(subject, run) for subject in ("synthetic", "random") for run in (1, 2, 3)]
    assert undisturbed.events("warning") == []
    last = evaluating(undisturbed)[-1]
    assert (last["step"], last["total"]) == (2 * REPEATS * EPOCHS,) * 2


def test_a_run_says_how_it_goes(undisturbed):
    """On stderr, where the supervisor takes it up for the job's log."""
    lines = (undisturbed.directory / "said").read_text().splitlines()

    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ \S.*", line) for line in lines)
    said = [line.partition(" ")[2] for line in lines]
    assert [line for line in said if " " not in line] == ["loading", "distilling", "evaluating", "publishing"]
    assert re.fullmatch(rf"step 1 of {STEPS}: loss \S+(, about \d+ \w+ to go)?", said[2])
    assert any(re.fullmatch(rf"step {STEPS} of {STEPS}: loss \S+", line) for line in said)
    assert any(re.fullmatch(rf"checkpoint at step {STEPS} of {STEPS}: \d+ kB in \d+\.\d\d s", line) for line in said)
    assert any(re.fullmatch(r"random, network 3 of 3: \d+\.\d\d %", line) for line in said)


def test_random_real_images_are_drawn_anew_for_every_network(undisturbed):
    report = json.loads((undisturbed.output / "evaluation.json").read_text())

    assert len({run["last"] for run in report["baselines"]["random"]["per_run"]}) > 1


# ---------------------------------------------------------------- stopped, killed, resumed


def test_stopped_while_distilling_it_goes_on_and_ends_in_the_same_bytes(undisturbed, tmp_path):
    work = job(tmp_path, **LONGER)

    assert work.interrupt(signal.SIGTERM, "metric") == STOPPED

    (saved,) = work.events("checkpoint")
    assert 1 <= saved["step"] < STEPS
    assert not work.output.exists()
    assert not (tmp_path / "error.json").exists()
    assert work.run() == DONE
    assert [event["message"] for event in work.events("log")] == [f"resumed at step {saved['step']} of {STEPS}"]
    assert work.files(*SAME) == undisturbed.files(*SAME)
    assert work.result["accuracy"] == undisturbed.result["accuracy"]


def test_stopped_while_evaluating_it_measures_no_network_twice(undisturbed, tmp_path):
    work = job(tmp_path, **LONGER)

    assert work.interrupt(signal.SIGTERM, "evaluation") == STOPPED

    before, shown = work.events("evaluation"), len(evaluating(work))
    assert work.run() == DONE
    after = work.events("evaluation")[len(before) :]
    assert after[: len(before)] == before
    assert len(after) == 2 * REPEATS
    # the networks of the first attempt count as done before the first epoch of the second
    assert min(event["step"] for event in evaluating(work)[shown:]) > len(before) * EPOCHS
    assert work.files(*SAME) == undisturbed.files(*SAME)
    assert work.result["baselines"] == undisturbed.result["baselines"]


def test_killed_it_goes_on_from_its_checkpoint_and_ends_in_the_same_bytes(undisturbed, tmp_path):
    work = job(tmp_path, checkpoint_interval_s=0, **LONGER)

    assert work.interrupt(signal.SIGKILL, "checkpoint", 3) == -signal.SIGKILL

    assert work.run() == DONE
    assert int(work.events("log")[0]["message"].split()[3]) >= 3
    assert work.files(*SAME) == undisturbed.files(*SAME)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_interrupted_while_a_checkpoint_is_written_it_ends_in_the_same_bytes(undisturbed, tmp_path, number):
    work = job(tmp_path, checkpoint_interval_s=0, **LONGER)

    code = work.interrupt_when(
        number, lambda: any(work.checkpoints.glob(".ckpt-*.tmp/state.safetensors")), "a checkpoint is written"
    )

    assert code == (STOPPED if number is signal.SIGTERM else -number)
    assert work.run() == DONE
    assert work.events("warning") == []
    assert not any(work.checkpoints.glob(".*"))
    assert work.files(*SAME) == undisturbed.files(*SAME)


def test_asked_to_stop_while_it_publishes_it_publishes(undisturbed, tmp_path):
    work = job(tmp_path, **LONGER)

    code = work.interrupt_when(
        signal.SIGTERM, (work.output / "synthetic.safetensors").exists, "publishing", Stop.CANCEL
    )

    assert code == DONE
    assert work.files(*SAME) == undisturbed.files(*SAME)
    assert "partial" not in work.result
    assert "partial" not in json.loads((work.output / "manifest.json").read_text())


def test_killed_while_it_publishes_the_next_attempt_does(undisturbed, tmp_path):
    work = job(tmp_path, **LONGER)

    work.interrupt_when(signal.SIGKILL, (work.output / "synthetic.safetensors").exists, "publishing")

    assert work.run() == DONE
    assert work.files(*SAME) == undisturbed.files(*SAME)


def test_asked_to_stop_before_it_has_begun_it_stops_at_the_first_step(tmp_path):
    work = job(tmp_path, **LONGER)

    assert work.interrupt(signal.SIGTERM, "phase") == STOPPED

    assert work.events("checkpoint")[0]["step"] <= 2


# ---------------------------------------------------------------- ended for good: partial results


@pytest.mark.parametrize("why", [Stop.CANCEL, Stop.TIMEOUT])
def test_cancelled_while_distilling_it_leaves_what_there_is(tmp_path, why):
    work = job(tmp_path, **LONGER)

    assert work.interrupt(signal.SIGTERM, "metric", why=why) == STOPPED

    (saved,) = work.events("checkpoint")
    step = saved["step"]
    assert 1 <= step < STEPS
    assert work.result == {"partial": True, "step": step, "steps": STEPS}
    manifest = json.loads((work.output / "manifest.json").read_text())
    assert (manifest["partial"], manifest["steps_done"]) == (True, step)
    assert (manifest["evaluation"], manifest["baselines"]) == ([], {})
    assert "evaluation.json" not in {entry["path"] for entry in manifest["files"]}
    for entry in manifest["files"]:
        assert hashlib.sha256((work.output / entry["path"]).read_bytes()).hexdigest() == entry["sha256"]
    state = load_file(next(work.checkpoints.glob("ckpt-*/state.safetensors")))["images"]
    images, labels = loader.load(work.output, decoded=False, normalized=False)
    assert torch.equal(images, state.clamp(0, 1))
    assert len(read_training_set(work.output).images) == len(loader.load(work.output)[1]) >= len(labels)


def test_cancelled_while_evaluating_it_leaves_the_whole_set_unjudged(undisturbed, tmp_path):
    work = job(tmp_path, **LONGER)

    assert work.interrupt(signal.SIGTERM, "evaluation", why=Stop.CANCEL) == STOPPED

    assert work.result == {"partial": True, "step": STEPS, "steps": STEPS}
    manifest = json.loads((work.output / "manifest.json").read_text())
    assert (manifest["partial"], manifest["steps_done"], manifest["evaluation"]) == (True, STEPS, [])
    made = [name for name in SAME if name != "evaluation.json"]
    assert work.files(*made) == undisturbed.files(*made)


def test_cancelled_before_anything_is_learned_it_leaves_nothing(tmp_path):
    work = job(tmp_path, method="herding", params={"pretrain_epochs": 200, "width": 8})

    assert work.interrupt(signal.SIGTERM, "metric", why=Stop.CANCEL) == STOPPED

    assert not work.output.exists()
    assert not (work.directory / "result.json").exists()
    assert work.events("checkpoint")


def test_a_disk_too_full_for_a_partial_result_costs_it_alone(small_disk, tmp_path):
    output = small_disk(8 * 1024) / "output"
    work = job(tmp_path / "work", output=str(output), **LONGER)

    assert work.interrupt(signal.SIGTERM, "metric", why=Stop.CANCEL) == STOPPED

    (warning,) = work.events("warning")
    assert warning["code"] == "PARTIAL_NOT_KEPT"
    assert "No space left on device" in warning["message"]
    assert str(tmp_path) not in warning["message"]
    assert not (output / "manifest.json").exists()
    assert not (work.directory / "result.json").exists()
    assert work.events("checkpoint")


# ---------------------------------------------------------------- going on from another job's checkpoint


def last_checkpoint(work):
    return str(max(work.checkpoints.glob("ckpt-*")))


def test_a_retry_goes_on_where_another_job_was_and_ends_in_the_same_bytes(undisturbed, tmp_path):
    cancelled = job(tmp_path / "cancelled", **LONGER)
    assert cancelled.interrupt(signal.SIGTERM, "metric", why=Stop.CANCEL) == STOPPED
    work = job(tmp_path / "retried", start_from=last_checkpoint(cancelled), checkpoint_interval_s=0, **LONGER)

    assert work.interrupt(signal.SIGTERM, "checkpoint") == STOPPED  # and has one of its own from now on
    shutil.rmtree(cancelled.checkpoints)
    assert work.run() == DONE

    first, second = (event["message"] for event in work.events("log"))
    assert first.endswith("which another job had reached")
    assert re.fullmatch(rf"resumed at step \d+ of {STEPS}", second)
    assert work.files(*SAME) == undisturbed.files(*SAME)


def test_a_checkpoint_that_does_not_fit_is_refused_with_the_difference(undisturbed, tmp_path):
    changed = LONGER | {"params": LONGER["params"] | {"lr_img": 0.25}}
    work = job(tmp_path, start_from=last_checkpoint(undisturbed), **changed)

    assert work.run() == USER_ERROR

    assert work.error["class"] == "user_error"
    assert "lr_img was" in work.error["message"]
    assert "is 0.25" in work.error["message"]


def test_scores_that_cannot_be_read_are_measured_again(tmp_path):
    work = job(tmp_path)
    assert work.run() == DONE
    before = work.files("evaluation.json")
    (kept,) = work.checkpoints.glob("*scores.json")
    kept.write_bytes(b"")

    assert work.run() == DONE

    assert work.files("evaluation.json") == before


# ---------------------------------------------------------------- what the user can mend


def test_a_missing_dataset_is_named_with_its_files_and_their_place(tmp_path):
    work = job(tmp_path, dataset="mnist", data_dir=str(tmp_path / "images"))

    assert work.run() == USER_ERROR

    assert (work.error["class"], work.error["code"]) == ("user_error", "DATASET_MISSING")
    assert "t10k-labels-idx1-ubyte" in work.error["message"]
    assert str(tmp_path / "images" / "MNIST" / "raw") in work.error["message"]
    assert work.error["message"] in (tmp_path / "runner.log").read_text()
    assert not work.output.exists()


def folder_job(tmp_path, files, ipc=1):
    write_tree(tmp_path / "data_dir" / "own", files)
    return job(tmp_path, dataset="folder:own", ipc=ipc, params={"image_size": 8, "factor": 1})


def test_a_folder_too_small_for_the_ipc_is_told_how_many_it_has(tmp_path):
    work = folder_job(tmp_path, tree_files(), ipc=3)

    assert work.run() == USER_ERROR

    assert (work.error["class"], work.error["code"]) == ("user_error", "INVALID_RECIPE")
    assert "only 2 training images" in work.error["message"]


def test_a_broken_image_is_named(tmp_path):
    files = tree_files()
    files["train/dog/1.png"] = files["train/dog/1.png"][:60]
    work = folder_job(tmp_path, files)

    assert work.run() == USER_ERROR

    assert (work.error["class"], work.error["code"]) == ("user_error", "DATASET_INVALID")
    assert "train/dog/1.png" in work.error["message"]


def test_a_folder_is_distilled(tmp_path):
    work = folder_job(tmp_path, tree_files())

    assert work.run() == DONE

    manifest = json.loads((work.output / "manifest.json").read_text())
    assert [entry["name"] for entry in manifest["classes"]] == ["cat", "dog"]


def test_a_divergence_says_what_to_do(tmp_path):
    work = job(tmp_path, params={"lr_img": 9e29})

    assert work.run() == FAILED

    assert (work.error["class"], work.error["code"]) == ("numerical_divergence", "NUMERICAL_DIVERGENCE")
    assert "lower lr_img" in work.error["message"]
    assert not work.output.exists()


def test_too_little_memory_says_what_to_lower(tmp_path):
    work = job(tmp_path, params={"width": 2**31 - 1})  # 77 GB in the first layer alone

    assert work.run() == FAILED

    assert (work.error["class"], work.error["code"]) == ("out_of_memory", "OUT_OF_MEMORY")
    told = work.error["message"]
    assert re.search(r"at its peak the run held [1-9]?\d\.\d GiB", told)
    assert "batch_real (now 16), batch_syn_max (now 128)" in told
    assert f"width (now {2**31 - 1})" in told
    assert "evaluation.batch_size (now 64)" in told


# ---------------------------------------------------------------- full disks


def test_a_disk_that_is_full_when_the_files_are_written_publishes_nothing(small_disk, tmp_path):
    output = small_disk(8 * 1024) / "output"
    work = job(tmp_path / "work", output=str(output))

    assert work.run() == IO_ERROR

    assert (work.error["class"], work.error["code"]) == ("internal", "DISK_FULL")
    assert "free some space" in work.error["message"]
    assert not (output / "manifest.json").exists()
    assert not (work.directory / "result.json").exists()


def test_a_disk_too_full_for_checkpoints_costs_the_checkpoints_alone(small_disk, tmp_path):
    disk = small_disk(4096)
    (disk / "filling").write_bytes(bytes(4096))
    work = job(tmp_path / "work", checkpoints=str(disk / "checkpoints"))

    assert work.run() == DONE

    warnings = work.events("warning")
    assert {warning["code"] for warning in warnings} == {"CHECKPOINT_FAILED"}
    assert all("No space left on device" in warning["message"] for warning in warnings)
    assert work.events("checkpoint") == []
    assert work.result["accuracy"]["n"] == 1


# ---------------------------------------------------------------- what a score stands for


def test_a_budget_that_was_overridden_is_marked(undisturbed):
    own = make_recipe("dream", "digits", 1)

    assert undisturbed.result["budget"] == {
        "steps": STEPS,
        "recipe_steps": own.steps,
        "epochs": EPOCHS,
        "recipe_epochs": own.evaluation.epochs,
        "published": False,
    }


@pytest.mark.parametrize(
    ("dataset", "ipc", "params", "evaluation", "published"),
    [
        ("cifar10", 10, {}, {}, True),
        ("cifar10", 10, {}, {"repeats": 1, "baselines": False, "ceiling": "none"}, True),  # judged less often, but so
        ("cifar10", 10, {}, {"epochs": 300}, False),
        ("cifar10", 10, {"outer_iterations": 20}, {}, False),
        ("cifar10", 10, {"width": 64}, {}, False),
        ("cifar10", 7, {}, {}, False),
        ("digits", 1, {}, {}, False),
        ("folder:own", 1, {"image_size": 64}, {}, False),
    ],
)
def test_only_what_the_papers_ran_is_called_published(dataset, ipc, params, evaluation, published):
    recipe = make_recipe("dream", dataset, ipc, params=params, evaluation=evaluation)

    assert pipeline.budget(recipe)["published"] is published


@pytest.mark.parametrize(
    ("ceiling", "epochs", "full"),
    [
        ("none", None, None),
        ("published", None, None),  # no figure was found for digits
        ("measure", 1, {"source": "measured", "epochs": 1, "n": 1}),
        ("auto", None, {"source": "measured", "epochs": 2, "n": 1}),  # small enough
    ],
)
def test_the_whole_training_set_is_measured_where_that_is_wanted(tmp_path, ceiling, epochs, full):
    work = job(tmp_path, evaluation={"ceiling": ceiling, "ceiling_epochs": epochs})

    assert work.run() == DONE

    measured = work.result["baselines"]["full"]
    assert (measured and {name: measured[name] for name in ("source", "epochs", "n")}) == full
    assert [event["epochs"] for event in work.events("evaluation") if event["subject"] == "full"] == (
        [full["epochs"]] if full else []
    )
