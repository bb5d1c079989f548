"""Runs that go on beyond their end are as if they had been as long from the start."""

import pytest
import torch

from dream_core.catalog import METHODS
from dream_core.distillation import Distillation
from dream_core.errors import InvalidRecipe
from dream_core.recipes import lengthened, make_recipe
from tests.dream_core.tiny import tiny_dataset, tiny_recipe_of

GO_ON = [name for name, facts in METHODS.items() if facts.family not in ("coresets", "recovery")]


def finish(recipe, state=None):
    distillation = Distillation(recipe, tiny_dataset(), "cpu", state=state)
    for _ in distillation:
        pass
    return distillation


@pytest.mark.parametrize("method", GO_ON)
def test_going_on_gives_the_same_bytes_as_a_longer_run(method):
    recipe = tiny_recipe_of(method)
    longer = lengthened(recipe, 2)
    assert longer.steps > recipe.steps

    went_on = finish(longer, finish(recipe).state_dict())
    at_once = finish(longer)

    assert went_on.step_number == longer.steps
    ours, theirs = went_on.state_dict(), at_once.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())
    assert all(torch.equal(a, b) for a, b in zip(went_on.synthetic.decoded(), at_once.synthetic.decoded(), strict=True))


@pytest.mark.parametrize("method", [name for name in METHODS if name not in GO_ON])
def test_a_method_that_cannot_go_on_says_why(method):
    with pytest.raises(InvalidRecipe, match="in a new job") as caught:
        lengthened(make_recipe(method, "digits", 1), 1)
    assert [field for field, _ in caught.value.problems] == ["method"]


@pytest.mark.parametrize("more", [0, -3, 2**31])
def test_what_is_no_length_is_refused(more):
    with pytest.raises(InvalidRecipe) as caught:
        lengthened(make_recipe("dream", "digits", 1), more)
    assert [field for field, _ in caught.value.problems] == ["params.outer_iterations"]


def test_only_the_length_changes():
    recipe = make_recipe("mtt", "cifar10", 10, seed=5)

    assert lengthened(recipe, 7) == recipe.model_copy(update={"iterations": recipe.iterations + 7})
