"""A run that ranks share has the bytes of one that does not, at every step and on every rank."""

import os
import time

import pytest
import torch

from dream_core.distillation import Distillation, choose_devices
from dream_core.errors import DevicesMissing, InvalidRecipe
from dream_core.ranks import Ranks
from dream_core.recipes import check_divides
from tests.dream_core.ranked import LOST, STEPS, Dawdle, Distil, Diverge, Gather, ends, results, start
from tests.dream_core.tiny import tiny_dataset, tiny_recipe_of

MIDDLE = 4
"""In the second network, between two clusterings."""
METHODS = {
    "dream": ("dream", {"interval": 2, "n_data": 32}),
    "dsa": ("dsa", {"epochs_net": 2}),
    "dm": ("dm", {"outer_iterations": STEPS, "inner_iterations": 1}),
}
OTHERS = {
    "idc": ("idc", {"n_data": 32}),
    "dc": ("dc", {"epochs_net": 2}),
    "dream on dm": ("dream", {"base": "dm", "interval": 2, "outer_iterations": STEPS, "inner_iterations": 1}),
    "dream on dsa": ("dream", {"base": "dsa", "interval": 3}),
    "dream+": ("dream+", {"interval": 2, "n_data": 32}),
    "noise": ("dm", {"init": "noise", "outer_iterations": STEPS, "inner_iterations": 1}),
}


def same(states, expected):
    return all(
        state.keys() == expected.keys() and all(torch.equal(value, expected[name]) for name, value in state.items())
        for state in states
    )


@pytest.mark.parametrize("name", METHODS)
def test_1_2_and_4_ranks_give_the_same_bytes(name, tmp_path):
    """Digits have ten classes: of four ranks two have three, and two have two."""
    work = Distil(*METHODS[name])
    (alone,) = results(1, tmp_path / "1", work)

    assert len(alone["losses"]) == STEPS
    assert same(results(2, tmp_path / "2", work), alone)
    assert same(results(4, tmp_path / "4", work), alone)


def test_a_run_goes_on_with_another_number_of_ranks(tmp_path):
    method, params = METHODS["dream"]
    (alone,) = results(1, tmp_path / "1", Distil(method, params))
    halves = results(2, tmp_path / "2", Distil(method, params, MIDDLE))

    rest = Distil(method, params, state=halves[0])

    expected = alone | {"losses": alone["losses"][MIDDLE:]}
    assert same(results(4, tmp_path / "4", rest), expected)
    assert same(results(1, tmp_path / "one", rest), expected)


@pytest.mark.nightly
@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("name", METHODS | OTHERS)
def test_every_method_that_is_divided_goes_on_with_another_number_of_ranks(name, count, tmp_path):
    method, params = (METHODS | OTHERS)[name]
    (alone,) = results(1, tmp_path / "1", Distil(method, params))
    (half,) = results(1, tmp_path / "half", Distil(method, params, MIDDLE))

    assert same(results(count, tmp_path / "whole", Distil(method, params)), alone)
    expected = alone | {"losses": alone["losses"][MIDDLE:]}
    assert same(results(count, tmp_path / "rest", Distil(method, params, state=half)), expected)


def test_what_is_gathered_may_differ_in_length(tmp_path):
    for found in results(3, tmp_path / "3", Gather(7)):
        for label in range(7):
            assert torch.equal(found[str(label)], torch.full((label % 3, 2), label))
        assert torch.equal(found["scalars"], torch.stack([torch.tensor(label / 7) for label in range(7)]))


def test_all_ranks_notice_that_one_diverges_and_step_no_further(tmp_path):
    assert [state["noticed_after"].item() for state in results(2, tmp_path / "2", Diverge())] == [1, 1]


def test_a_rank_that_is_killed_is_missed_by_the_others(tmp_path):
    processes = start(3, tmp_path / "3", Dawdle(tmp_path))
    end = time.monotonic() + 30
    while not all((tmp_path / f"begun-{rank}").exists() for rank in range(3)):
        assert time.monotonic() < end
        time.sleep(0.01)

    processes[1].kill()

    assert ends(processes) == [LOST, -9, LOST]


# ---------------------------------------------------------------- what cannot be divided


@pytest.mark.parametrize("method", ["mtt", "dd", "sre2l", "random", "herding", "k-center", "kmeans"])
def test_methods_whose_classes_hang_together_run_on_one_device(method):
    with pytest.raises(InvalidRecipe, match=rf"^resources\.gpus: {method} with these settings runs on one device: .*"):
        Distillation(tiny_recipe_of(method), tiny_dataset(), "cpu", ranks=Ranks(0, 2))


@pytest.mark.parametrize("method", ["dm", "dsa", "idc"])
def test_batch_normalisation_is_not_divided(method):
    with pytest.raises(InvalidRecipe, match="batch normalisation mixes classes, set norm to another; or leave it at 1"):
        check_divides(tiny_recipe_of(method, norm="batch"), 2, 3)


def test_no_rank_is_without_a_class():
    check_divides(tiny_recipe_of("dm"), 3, 3)
    with pytest.raises(InvalidRecipe, match="each device takes classes of its own, and folder:tiny has only 3; use at"):
        Distillation(tiny_recipe_of("dm"), tiny_dataset(), "cpu", ranks=Ranks(0, 4))


def test_one_device_is_what_is_named_and_several_are_there():
    cores = os.cpu_count() or 1

    assert choose_devices("cpu", 1) == [torch.device("cpu")]
    assert choose_devices("cpu", cores) == [torch.device("cpu")] * cores
    with pytest.raises(DevicesMissing, match=rf"{cores + 1} devices are wanted, and there is no GPU and {cores} cores"):
        choose_devices("cpu", cores + 1)
    there = torch.cuda.device_count()
    if there:
        with pytest.raises(DevicesMissing, match=f"{there + 1} GPUs are wanted, and PyTorch sees {there} here"):
            choose_devices("cuda", there + 1)
        with pytest.raises(DevicesMissing, match="only cuda:0 may be used here"):
            choose_devices("cuda:0", 2)


def test_outside_a_process_group_a_rank_is_alone():
    assert Ranks.current() == Ranks(0, 1)
    assert list(Ranks(1, 3).own(8)) == [1, 4, 7]
