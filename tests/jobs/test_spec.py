import pytest
from pydantic import ValidationError

from dream_core.errors import InvalidRecipe
from jobs.spec import JobSpec


def spec(**changes) -> JobSpec:
    return JobSpec(**({"dataset": "digits", "method": "dream", "ipc": 1} | changes))


def test_resolves_to_the_published_recipe_with_own_values():
    recipe = spec(dataset="cifar10", ipc=10, params={"factor": 3}, evaluation={"epochs": 5}).resolve()
    assert (recipe.factor, recipe.n_data, recipe.evaluation.epochs) == (3, 2000, 5)


@pytest.mark.parametrize("name", ["mine", "a/b.zip", "with space", "v1.0", "..hidden", "a..b", "übung"])
def test_folders_inside_the_data_directory(name):
    assert spec(dataset=f"folder:{name}").resolve().dataset == f"folder:{name}"


@pytest.mark.parametrize(
    "name",
    ["/etc", "..", "../x", "a/../../x", "a/..", ".", "./", "//host/x", "\\\\host\\x", "C:\\x", "C:/x", "a\\..\\x",
     "~/x", "~root", "a\x00b", "a\nb"],
)  # fmt: skip
def test_folders_elsewhere_are_refused(name):
    with pytest.raises(InvalidRecipe) as refusal:
        spec(dataset=f"folder:{name}").resolve()
    assert refusal.value.problems[0][0] == "dataset"


@pytest.mark.parametrize("params", [{"lr_net": float("nan")}, {"weight_decay_net": float("inf")}])
def test_only_numbers_that_json_knows(params):
    with pytest.raises(ValidationError, match="JSON"):
        spec(params=params)


@pytest.mark.parametrize("name", ["params", "evaluation"])
@pytest.mark.parametrize("value", ["\ud800", {"\ud800": 1}])
def test_only_text_that_can_be_written(name, value):
    with pytest.raises(ValidationError, match="surrogates"):
        spec(**{name: {"metric": value}})


def test_not_nested_beyond_reason():
    deep = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ValidationError, match="too deeply"):
        spec(params={"x": deep})


def test_unknown_fields_are_refused():
    with pytest.raises(ValidationError, match="not permitted"):
        spec(epochs=3)
