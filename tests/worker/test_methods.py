"""Every method through the runner: stopped and resumed in any phase it ends in the same bytes, with files that fit."""

import hashlib
import json
import signal

import pytest
from safetensors.torch import load_file

from dream_core.catalog import METHODS
from dream_core.formats import read_training_set
from dream_core.recipes import lengthened, read_recipe
from tests.fixtures.methods import PARAMS, judged
from tests.worker.runners import job
from worker.stopping import Stop

DONE, FAILED, STOPPED = 0, 70, 75
# what each family leaves beside the files that all have
BESIDE = {"unrolled": {"steps.safetensors"}, "recovery": {"soft_labels.safetensors"}}
PHASES = {"trajectory": ["pretraining"], "recovery": ["pretraining"], "coresets": ["pretraining"]}


def run(directory, method, **fields):
    return job(directory, method=method, ipc=2, params=PARAMS[method], evaluation=judged(method), **fields)


def files_of(work):
    return {path.name: path.read_bytes() for path in work.output.iterdir() if path.name != "manifest.json"}


@pytest.mark.parametrize("method", METHODS)
def test_paused_and_resumed_it_ends_in_the_same_bytes(method, tmp_path):
    """Whether pictures are drawn of it or not."""
    undisturbed = run(tmp_path / "undisturbed", method)
    assert undisturbed.run() == DONE
    work = run(tmp_path / "stopped", method, checkpoint_interval_s=0, previews=str(tmp_path / "previews"))

    count = 2 if METHODS[method].family != "coresets" else 1
    assert work.interrupt(signal.SIGTERM, "checkpoint", count, Stop.PAUSE) == STOPPED
    assert not work.output.exists()
    assert work.run() == DONE

    assert work.events("preview")
    assert any("resumed at step" in event["message"] for event in work.events("log"))
    assert files_of(work) == files_of(undisturbed)
    assert work.result["accuracy"] == undisturbed.result["accuracy"]

    manifest = json.loads((undisturbed.output / "manifest.json").read_text())
    assert BESIDE.get(METHODS[method].family, set()) <= {entry["path"] for entry in manifest["files"]}
    for entry in manifest["files"]:
        content = (undisturbed.output / entry["path"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == entry["sha256"]
    phases = [event["phase"] for event in undisturbed.events("phase")]
    expected = [*PHASES.get(METHODS[method].family, []), "distilling"]
    expected += ["relabelling"] if method == "sre2l" else []
    assert [phase for phase in phases if phase not in ("loading", "evaluating", "publishing")] == expected
    assert undisturbed.result["baselines"]["random"]["n"] == 2


LONGER = {"dream": {"outer_iterations": 1}, "mtt": {"iterations": 15}, "dd": {"iterations": 15}}


@pytest.mark.parametrize("method", LONGER)
def test_a_job_that_goes_on_from_another_ends_in_the_bytes_of_one_that_was_as_long_from_the_start(method, tmp_path):
    def run(name, params=LONGER[method], **fields):
        little = {"repeats": 1, "baselines": False, "tests": 1, "ceiling": "none", "width": 8}
        little |= {} if method == "dd" else {"epochs": 1}
        return job(tmp_path / name, method=method, params=PARAMS[method] | params, evaluation=little, **fields)

    first = run("first")
    assert first.run() == DONE
    longer = lengthened(read_recipe(json.loads((first.output / "recipe.json").read_text())), 1)
    whole = {longer.length_field: getattr(longer, longer.length_field)}
    start_from = str(max(first.checkpoints.glob("ckpt-*")))
    second, at_once = run("second", whole, start_from=start_from), run("at once", whole)

    assert (second.run(), at_once.run()) == (DONE, DONE)

    assert "another job" in second.events("log")[0]["message"]
    assert files_of(second) == files_of(at_once)
    assert files_of(second) != files_of(first)


def test_experts_are_shared_by_jobs_and_forgotten_with_the_cache(tmp_path):
    """The second job trains none; a third with an empty cache trains them again and ends in the same bytes."""
    cache = str(tmp_path / "cache")
    first, second = (run(tmp_path / name, "mtt", cache=cache) for name in ("first", "second"))
    assert (first.run(), second.run()) == (DONE, DONE)
    third = run(tmp_path / "third", "mtt", cache=str(tmp_path / "empty"))
    assert third.run() == DONE

    assert len(list((tmp_path / "cache").glob("*/expert-*.safetensors"))) == PARAMS["mtt"]["experts"]
    trained = [[e for e in work.events("metric") if e.get("loss") and e["step"] <= 15] for work in (first, second)]
    assert len(trained[0]) > len(trained[1])
    assert files_of(first) == files_of(second) == files_of(third)


def test_a_whitened_set_carries_its_transform(tmp_path):
    work = job(
        tmp_path, method="mtt", ipc=1, params=PARAMS["mtt"] | {"zca": True, "iterations": 3}, evaluation=judged("mtt")
    )
    assert work.run() == DONE

    manifest = json.loads((work.output / "manifest.json").read_text())
    assert manifest["preprocessing"]["zca"] == {"file": "zca.safetensors", "eps": 0.1}
    assert manifest["training"]["lr"] > 0
    assert load_file(work.output / "zca.safetensors").keys() == {"mean", "basis", "values"}
    training = read_training_set(work.output)
    whitened = training.transform(training.images)
    assert (training.transform.inverse(whitened) - training.images).abs().max() < 1e-4


def test_soft_labels_are_counted(tmp_path):
    work = run(tmp_path, "sre2l")
    assert work.run() == DONE

    manifest = json.loads((work.output / "manifest.json").read_text())
    images, epochs, classes = 20, PARAMS["sre2l"]["label_epochs"], 10
    assert manifest["storage"] == {
        "images_bytes": images * 64 * 4, "soft_labels_bytes": epochs * images * (8 + 2 * classes), "steps_bytes": 0
    }  # fmt: skip


@pytest.mark.parametrize(
    ("method", "params", "told"),
    [("mtt", {"lr_img": 1e20}, "lower lr_img"), ("dd", {"lr_steps": 1e20}, "lower lr_steps"),
     ("dc", {"lr_img": 1e25}, "lower lr_img")],
)  # fmt: skip
def test_a_divergence_keeps_the_last_good_state(method, params, told, tmp_path):
    work = job(
        tmp_path, method=method, params=PARAMS[method] | params, evaluation=judged(method), checkpoint_interval_s=3600
    )

    assert work.run() == FAILED

    assert work.error["class"] == "numerical_divergence"
    assert told in work.error["message"]
    states = list(work.checkpoints.glob("ckpt-*/state.safetensors"))
    assert states
    assert load_file(states[0])["images"].isfinite().all()
