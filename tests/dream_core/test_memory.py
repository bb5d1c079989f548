"""What is said of memory holds: the bound is above what a run takes, and not far above."""

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from benchmarks.memory_table import KEPT, table
from dream_core.catalog import DATASETS, METHODS, NETWORKS
from dream_core.errors import InvalidRecipe
from dream_core.host import peak_memory
from dream_core.networks import build_network
from dream_core.recipes import make_recipe
from dream_core.recipes.description import IPCS
from dream_core.recipes.footprints import footprint
from dream_core.recipes.memory import largest_class, memory_bound
from tests.fixtures.surroundings import REAL_DATA

ROOT = Path(__file__).parents[2]
GB = 10**9
USELESS = 3
"""Times what a run takes: a bound beyond that says nothing."""
FEW = replace(DATASETS["cifar10"], classes=2, train=600, test=256, smallest_class=300)
"""Two classes hold as much as ten: they are matched one after the other."""
JUDGED = {"repeats": 1, "baselines": False, "ceiling": "none"}


def peak_and_bound(method, ipc, params, steps=1, facts=FEW, data_dir=None, compiled="off", dataset="cifar10"):
    choice = {"compiled": compiled}
    params = (choice if METHODS[method].family == "matching" else {}) | params
    recipe = make_recipe(method, dataset, ipc, params=params, evaluation=JUDGED | choice)
    asked = {"recipe": recipe.model_dump(), "facts": asdict(facts), "steps": steps, "data_dir": data_dir}
    command = [sys.executable, "-m", "tests.dream_core.peak_of_run"]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=ROOT, input=json.dumps(asked), capture_output=True, text=True, env=env, timeout=840, check=False
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout), memory_bound(recipe, facts)


def assert_useful(peak, bound):
    told = f"{peak / GB:.2f} GB of at most {bound / GB:.2f}"
    assert peak <= bound, told
    assert bound <= USELESS * peak, told


@pytest.mark.parametrize(
    ("method", "params", "steps"),
    [
        ("dream", {"n_data": 128}, 1),
        ("mtt", {"experts": 1, "max_start_epoch": 1, "expert_epochs": 1, "student_steps": 2, "zca": False}, 2),
        ("sre2l", {"network": "convnet", "squeeze_epochs": 1, "iterations": 1, "label_epochs": 1}, 12),
    ],
)
def test_a_run_takes_no_more_than_its_bound(method, params, steps):
    assert_useful(*peak_and_bound(method, 10, params, steps))


def test_the_process_itself_with_its_libraries(tmp_path):
    facts, params = DATASETS["digits"], {"clustering": "sklearn"}
    assert_useful(*peak_and_bound("dream", 1, params, 1, facts, str(tmp_path), dataset="digits"))


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("method", "ipc", "params", "steps"),
    [
        ("dream", 50, {"n_data": 128}, 1),
        ("dream", 10, {"n_data": 128, "norm": "none"}, 1),
        ("dream", 10, {"n_data": 128, "network": "resnet10_narrow"}, 1),
        ("dream", 10, {"n_data": 128, "width": 256}, 1),
        ("dream+", 10, {"n_data": 128}, 1),
        ("idc", 10, {"n_data": 128}, 1),
        ("dc", 10, {"epochs_net": 1}, 1),
        ("dsa", 50, {"epochs_net": 1}, 1),
        ("dm", 10, {}, 2),
        ("dm", 10, {"norm": "batch"}, 2),
        ("dd", 10, {}, 1),
        ("mtt", 10, {"experts": 1, "max_start_epoch": 1, "expert_epochs": 1, "student_steps": 2}, 2),
        ("mtt", 50, {"experts": 1, "max_start_epoch": 1, "expert_epochs": 1, "student_steps": 2}, 2),
        ("mtt", 1, {"experts": 1, "max_start_epoch": 1, "expert_epochs": 1, "student_steps": 2}, 2),
        ("sre2l", 10, {"squeeze_epochs": 1, "iterations": 1, "label_epochs": 2}, 13),
        ("herding", 10, {"pretrain_epochs": 1}, 2),
        ("kmeans", 50, {}, 1),
        ("random", 10, {}, 1),
    ],
)
def test_the_same_of_the_others(method, ipc, params, steps):
    assert_useful(*peak_and_bound(method, ipc, params, steps))


@pytest.mark.nightly
@pytest.mark.timeout(900)
@pytest.mark.data
@pytest.mark.skipif(not REAL_DATA, reason="DREAM_DATA_DIR is not set")
@pytest.mark.parametrize(("ipc", "compiled"), [(1, "off"), (10, "off"), (10, "on")])
def test_dream_on_cifar10_takes_at_most_two_gigabytes(ipc, compiled):
    peak, bound = peak_and_bound("dream", ipc, {}, 2, DATASETS["cifar10"], REAL_DATA, compiled)
    assert_useful(peak, bound)
    assert peak <= bound <= 2 * GB


LARGER = [("convnet", 64), ("resnet18", 64), ("alexcifarnet", 64), ("torchvision:resnet18", 128), ("resnetap10", 128)]


@pytest.mark.parametrize(
    ("network", "size"), [*((name, max(32, NETWORKS[name].smallest)) for name in NETWORKS), *LARGER]
)
def test_a_network_holds_what_is_said_of_it(network, size):
    norms = NETWORKS[network].norms
    norm = "instance" if "instance" in norms else norms[0]
    made = build_network(network, 3, 10, size, torch.Generator().manual_seed(0), torch.device("cpu"), norm=norm)
    said = footprint(
        make_recipe("idc", "folder:any", 1, params={"network": network, "image_size": size, "norm": norm}), 3, 10
    )
    counted = kept_floats(made, torch.rand(2, 3, size, size)) / 2
    assert 0.99 * counted <= said.kept <= 1.5 * counted
    parameters = sum(parameter.numel() for parameter in made.parameters())
    assert parameters <= said.parameters <= 2 * parameters
    assert said.features >= made.classifier.in_features


def kept_floats(network, images):
    """That a pass forward keeps for the pass backward, the weights aside."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    kept, held = {}, []

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes() / 4
            held.append(tensor)  # so that no other takes its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network(images)
    return sum(kept.values())


def test_every_method_has_a_bound_that_grows_with_what_it_is_given():
    for method in METHODS:
        for name, facts in DATASETS.items():
            bounds = []
            for ipc in IPCS:
                try:
                    bounds.append(memory_bound(make_recipe(method, name, ipc), facts))
                except InvalidRecipe:
                    continue
            assert min(bounds) > facts.train * facts.channels * facts.size**2
    small, large = (make_recipe("dream", "cifar10", 10, params={"batch_real": n}) for n in (128, 512))
    assert memory_bound(small, DATASETS["cifar10"]) < memory_bound(large, DATASETS["cifar10"])


def test_the_largest_class_is_bounded_by_the_smallest():
    assert largest_class(DATASETS["cifar10"]) == 5000
    assert largest_class(DATASETS["mnist"]) >= 6742


def test_a_process_has_the_peak_of_its_own_and_not_of_its_parent():
    program = "from dream_core.host import peak_memory; print(peak_memory())"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100 << 20 < peak_memory()


def test_the_table_in_the_docs_is_what_the_bounds_say():
    assert KEPT.read_text(encoding="utf-8") == table(), "write it anew: python benchmarks/memory_table.py"
