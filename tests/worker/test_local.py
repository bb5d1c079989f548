import json
import signal
import subprocess

import pytest

from tests.fixtures.serving import DREAM, environment

SETTINGS = {
    "outer_iterations": 1, "inner_iterations": 40, "width": 8, "batch_real": 16, "n_data": 32,
    "evaluation.epochs": 2, "evaluation.repeats": 1, "evaluation.ceiling": "none",
}  # fmt: skip
TINY = [word for name, value in SETTINGS.items() for word in ("--set", f"{name}={value}")]


def dream(*arguments, **options):
    command = [*DREAM, *map(str, arguments)]
    return subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=120, check=False, **options
    )


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def refused(done, *words):
    assert (done.returncode, done.stdout.count("Traceback"), done.stderr.count("Traceback")) == (1, 0, 0), done.stderr
    assert "error" in done.stderr
    assert all(word in done.stderr for word in words), done.stderr


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that Ctrl-C interrupts and the same command finishes: (its folder, what it said at first, at last)."""
    folder = tmp_path_factory.mktemp("runs") / "a folder of Zoë's"
    command = ["run", "-d", "digits", "--ipc", 1, *TINY, "-o", "mine 猫", "--json"]
    folder.mkdir()
    interrupted = interrupt([*DREAM, *map(str, command)], folder)
    return folder, interrupted, dream(*command, cwd=folder)


def interrupt(command, folder):
    """Press Ctrl-C once the first step is done."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment(), cwd=folder, **pipes) as process:
        lines = []
        for line in process.stdout:
            lines.append(line)
            if '"step"' in line:
                process.send_signal(signal.SIGINT)
                break
        rest, errors = process.communicate(timeout=60)
        return subprocess.CompletedProcess(command, process.returncode, "".join(lines) + rest, errors)


def test_ctrl_c_stops_a_run_that_the_same_command_finishes(finished):
    folder, interrupted, done = finished

    assert interrupted.returncode == 130
    assert "The same command goes on from here" in interrupted.stderr
    assert (done.returncode, done.stderr) == (0, "")
    said = [json.loads(line) for line in done.stdout.splitlines()]
    assert next(line["data"]["message"] for line in said if line.get("type") == "log").startswith("resumed at step ")
    assert names(folder) == ["mine 猫"]


def test_the_last_line_is_the_result(finished):
    folder, _, done = finished

    result = json.loads(done.stdout.splitlines()[-1])

    assert result["output"] == str(folder / "mine 猫")
    assert result["accuracy"].keys() >= {"mean", "std", "n"}
    assert result["accuracy"]["n"] == 1
    assert result["baselines"]["random"].keys() >= {"mean", "std"}
    assert result["baselines"]["full"] is None
    assert result["seconds"].keys() == {"distil", "evaluate"}
    manifest = json.loads((folder / "mine 猫" / "manifest.json").read_text())
    assert set(names(folder / "mine 猫")) == {"manifest.json", *(entry["path"] for entry in manifest["files"])}


def test_evaluating_a_result_repeats_its_accuracy(finished):
    folder, _, done = finished

    again = dream("evaluate", "mine 猫", "--json", cwd=folder)

    assert (again.returncode, again.stderr) == (0, "")
    result, repeated = json.loads(done.stdout.splitlines()[-1]), json.loads(again.stdout)
    assert {name: repeated["accuracy"][name] for name in result["accuracy"]} == result["accuracy"]
    assert (repeated["protocol_hash"], repeated["epochs"]) == (result["protocol_hash"], 2)


MEANT = {
    "mtt": {"experts": 1, "max_start_epoch": 1, "expert_epochs": 1, "student_steps": 2, "iterations": 2, "zca": True,
            "evaluation.epochs": 3},
    "dd": {"iterations": 2},
    "sre2l": {"network": "convnet", "squeeze_epochs": 1, "iterations": 2, "label_epochs": 3},
}  # fmt: skip


@pytest.mark.parametrize("method", MEANT)
def test_a_set_is_evaluated_as_it_was_meant_to_be_used(method, tmp_path):
    """Whitened at its own rate, by its own steps, on its soft labels: all of it is in the files."""
    values = MEANT[method] | {"width": 8, "evaluation.width": 8, "evaluation.repeats": 2, "evaluation.ceiling": "none"}
    values = [word for name, value in values.items() for word in ("--set", f"{name}={json.dumps(value)}")]
    env = environment({"DREAM_HOME": str(tmp_path / "home")})
    command = [*DREAM, "run", "-d", "digits", "-m", method, "--ipc", "2", *values, "-o", "set", "--json"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr

    again = dream("evaluate", "set", "--json", cwd=tmp_path)

    result, repeated = json.loads(done.stdout.splitlines()[-1]), json.loads(again.stdout)
    assert {name: repeated["accuracy"][name] for name in result["accuracy"]} == result["accuracy"]
    assert repeated["protocol_hash"] == result["protocol_hash"]
    assert (tmp_path / "home" / "cache").is_dir() == (method != "dd")


def test_a_directory_that_holds_something_is_left_alone(finished):
    folder, _, _ = finished
    before = {path.name: path.read_bytes() for path in (folder / "mine 猫").iterdir()}

    refused(dream("run", "-d", "digits", *TINY, "-o", "mine 猫", cwd=folder), "not empty", "--output")

    assert {path.name: path.read_bytes() for path in (folder / "mine 猫").iterdir()} == before
    assert names(folder) == ["mine 猫"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-d", "imagenet"], ["no dataset 'imagenet'", "cifar10"]),
        (["-d", "digits", "-m", "magic"], ["no method 'magic'", "dream"]),
        (["-d", "digits", "--set", "fctor=1", "--set", "evaluation.epoch=1"], ["params.fctor", "evaluation.epoch"]),
        (["-d", "digits", "--ipc", "999"], ["ipc", "999", "140"]),
        (["-d", "digits", "--set", "factor=8"], ["params.factor", "8 x 8", "at most 4"]),
        (["-d", "digits", "--set", "lr_img=-1"], ["params.lr_img", "greater than 0"]),
    ],
    ids=lambda value: " ".join(value[2:] or value) if isinstance(value, list) else None,
)
def test_what_cannot_be_run_is_refused_and_leaves_nothing(tmp_path, arguments, words):
    refused(dream("run", *arguments, "-o", "out", cwd=tmp_path), "the run cannot start", *words)

    assert names(tmp_path) == []


def test_missing_files_are_named_and_nothing_is_left(tmp_path):
    wanted = ["run", "-d", "cifar10", "--data-dir", tmp_path / "images", "-o", tmp_path / "out"]

    refused(dream(*wanted), "data_batch_1", str(tmp_path / "images" / "cifar-10-batches-py"))

    assert names(tmp_path) == []


def test_an_output_that_is_a_file_is_left_alone(tmp_path):
    (tmp_path / "out").write_text("mine")

    refused(dream("run", "-d", "digits", *TINY, "-o", "out", cwd=tmp_path), "not empty")

    assert (names(tmp_path), (tmp_path / "out").read_text()) == (["out"], "mine")


def test_what_is_no_result_cannot_be_evaluated(tmp_path):
    refused(dream("evaluate", tmp_path), str(tmp_path), "holds no downloaded result", "dream download")
    refused(dream("evaluate", tmp_path / "absent"), "holds no downloaded result")


@pytest.mark.parametrize("name", ["decoded.safetensors", "manifest.json", "recipe.json"])
def test_a_result_that_is_cut_short_cannot_be_evaluated(finished, tmp_path, name):
    folder, _, _ = finished
    for path in (folder / "mine 猫").iterdir():
        content = path.read_bytes()
        (tmp_path / path.name).write_bytes(content[: len(content) // 2] if path.name == name else content)

    refused(dream("evaluate", tmp_path), "holds no downloaded result")
