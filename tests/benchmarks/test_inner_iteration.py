"""The measurement of an inner iteration: its plain implementation computes the same, and it runs and reports."""

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import torch

from benchmarks.inner_iteration import report
from benchmarks.inner_iteration.clock import Clock, Operations, TooLong, at_most, convolution_peak, matrix_peak
from benchmarks.inner_iteration.images import dataset_or_noise
from benchmarks.inner_iteration.measuring import WAYS, Amount, inner_iteration, measure, warmed_up
from benchmarks.inner_iteration.plain import kmeans, representatives
from dream_core.clustering import TorchKMeans
from dream_core.computing import Computing, has_bfloat16
from dream_core.errors import DatasetMissing
from dream_core.selection import nearest
from tests.dream_core.tiny import tiny_dataset, tiny_recipe

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
AMOUNT = Amount(classes=2, minibatches=2, repeats=2)


@pytest.mark.parametrize("changes", [{}, {"batch_syn_max": 3, "metric": "l1"}, {"mix_p_net": 1.0}])
def test_the_plain_iteration_computes_what_the_loop_does(changes):
    result = measure(tiny_recipe(**changes), tiny_dataset(counts=(14, 11, 9)), CPU, AMOUNT)
    agreed = result["agreement"]
    assert agreed["pixel_gradient_difference"] < 1e-4
    assert agreed["weights_difference"] < 1e-4
    assert agreed["same_representatives"] == 1
    assert result["ratio"] == pytest.approx(result["reference_s"] / result["fast_s"])


def test_plain_kmeans_and_its_representatives_are_those_of_dream_core():
    X = torch.randn(300, 16, generator=torch.Generator().manual_seed(0))
    plain, ours = kmeans(X, 24, seed=5), TorchKMeans(24, random_state=5).fit(X).cluster_centers_
    torch.testing.assert_close(plain, ours, rtol=0, atol=1e-5)
    assert representatives(X, plain).tolist() == nearest(X, ours).tolist()


def test_clustering_counts_once_in_an_interval():
    seconds = {"matching": 1.0, "network": 2.0, "embedding": 30.0, "kmeans": 10.0}
    assert inner_iteration(tiny_recipe(interval=10), seconds) == pytest.approx(7.0)


def test_the_fastest_counts():
    clock = Clock(CPU)
    for seconds in (3.0, 1.0, 2.0):
        clock.keep("work", seconds)
    assert clock.seconds == {"work": 1.0}


def test_operations_are_counted_and_peaks_are_found():
    operations = Operations()
    with operations("product"):
        torch.rand(4, 5) @ torch.rand(5, 6)
    assert operations.counted == {"product": 2 * 4 * 5 * 6}
    assert matrix_peak(CPU, side=64, repeats=2) > 0
    assert convolution_peak(CPU, width=4, side=4, images=2, repeats=2) > 0


def test_a_loop_that_takes_too_long_to_compile_is_not_compiled():
    recipe = tiny_recipe(compiled="on")
    assert warmed_up(recipe, tiny_dataset(), CPU, compile_s=0.001).computing == Computing(bfloat16=has_bfloat16(CPU))


def test_time_that_is_up_ends_a_block_and_no_other():
    with pytest.raises(TooLong), at_most(0.2):
        time.sleep(60)
    with at_most(0.2):
        pass
    time.sleep(0.3)


def test_what_a_block_has_started_ends_with_its_time_and_nothing_else(tmp_path):
    with subprocess.Popen(["sleep", "60"]) as before:
        with pytest.raises(TooLong), at_most(1):
            subprocess.run(["sh", "-c", "sleep 61 & echo $! > pid; wait"], cwd=tmp_path, check=False)
        with suppress(psutil.NoSuchProcess):  # what is killed takes a moment to go, and somebody to bury it
            started = psutil.Process(int((tmp_path / "pid").read_text()))
            until = time.monotonic() + 20
            while started.status() != psutil.STATUS_ZOMBIE:
                assert time.monotonic() < until
                time.sleep(0.05)
        assert before.poll() is None
        before.kill()


def test_every_way_of_computing_has_its_row():
    plain = {"matching": 4.0, "network": 2.0, "embedding": 30.0, "kmeans": 10.0, "evaluation epoch": 1.0}
    ways = {name: plain | {"inner iteration": 5.0} for name in WAYS}
    about = dict.fromkeys(("dataset", "ipc", "device", "machine", "images", "others_cores"), "any")
    lines = list(report.ways(about | {"reference_seconds": plain, "reference_s": 10.0, "ways": ways}))
    assert [line.split(" | ")[0] for line in lines if "0.00 |" in line] == [
        "| plain implementation",
        *(f"| {name}" for name in WAYS),
    ]
    assert lines[4].endswith("| 10.00 |")


def test_a_result_is_kept_as_json_a_table_and_a_plot(tmp_path):
    result = measure(tiny_recipe(), tiny_dataset(), CPU, AMOUNT)
    result |= {"dataset": "tiny", "images": "noise", "ipc": 2, "interval": 2, "device": "cpu", "machine": "any"}
    report.keep(tmp_path, result | {"others_cores": 0.0, "peak_gflops": {"matrix": 1.0, "convolution": 1.0}})
    assert json.loads((tmp_path / "tiny-ipc2-cpu.json").read_text())["ratio"] == result["ratio"]
    table = (tmp_path / "inner_iteration.md").read_text()
    assert all(name in table for name in report.ROWS.values())
    assert (tmp_path / "inner_iteration.png").stat().st_size > 1000


def test_without_a_datasets_files_random_pixels_take_their_place(tmp_path):
    dataset, images = dataset_or_noise("cifar10", tmp_path)
    assert images == "random pixels of the same shape"
    assert dataset.train.images.shape == (50_000, 3, 32, 32)
    assert dataset.train.counts == (5000,) * 10
    with pytest.raises(DatasetMissing):
        dataset_or_noise("folder:nowhere", tmp_path)


def test_the_last_line_is_the_result():
    command = [sys.executable, "benchmarks/inner_iteration.py", "--dataset", "digits", "--quick", "--ipc", "1"]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False, env=env)
    assert done.returncode == 0, done.stderr
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["ratio"] == pytest.approx(last["reference_s"] / last["fast_s"])
    assert last["quick"]
