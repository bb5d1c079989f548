"""What is said of the methods agrees with what they do."""

import subprocess
import sys

import pytest

from dream_core.catalog import DATASETS, METHODS, NETWORKS
from dream_core.errors import InvalidRecipe
from dream_core.recipes import OF_THE_SPEC, EvaluationRecipe, make_recipe, recipe_class
from dream_core.recipes.description import IPCS, describe, describe_all, image_passes

every_method = pytest.mark.parametrize("method", METHODS)
SECTIONS = ("params", "evaluation")


def fields(method, section):
    return describe(method)[f"{section}_schema"]["properties"]


def preset_of(method, dataset, ipc):
    (found,) = [p for p in describe(method)["presets"] if (p["dataset"], p["ipc"]) == (dataset, ipc)]
    return found


def refused(method, dataset="cifar10", ipc=10, **overrides):
    try:
        make_recipe(method, dataset, ipc, **overrides)
    except InvalidRecipe:
        return True
    return False


def test_every_method_is_described_in_the_order_of_the_catalog():
    described = describe_all()
    assert [method["name"] for method in described] == list(METHODS)
    for method in described:
        assert all(method[word] for word in ("family", "title", "summary", "paper", "cost", "source"))


def test_an_unknown_method_is_refused_with_the_names():
    with pytest.raises(InvalidRecipe, match=r"known: .*idc, dream, dream\+"):
        describe("magic")


@every_method
def test_the_schemas_have_the_recipes_own_fields_and_require_none(method):
    described = describe(method)
    assert set(fields(method, "params")) == set(recipe_class(method).model_fields) - set(OF_THE_SPEC)
    assert set(fields(method, "evaluation")) == set(EvaluationRecipe.model_fields)
    for section in SECTIONS:
        schema = described[f"{section}_schema"]
        assert (schema["type"], schema["additionalProperties"]) == ("object", False)
        assert not {"required", "$defs"} & set(schema)


@every_method
@pytest.mark.parametrize("section", SECTIONS)
def test_every_field_says_in_a_line_what_it_means(method, section):
    for name, field in fields(method, section).items():
        assert field["description"].endswith("."), name
        assert field["description"].isprintable(), name


@every_method
def test_there_is_a_preset_for_every_dataset_and_ipc(method):
    presets = [(preset["dataset"], preset["ipc"]) for preset in describe(method)["presets"]]
    assert presets == [(dataset, ipc) for dataset in DATASETS for ipc in IPCS]


@every_method
def test_what_a_method_cannot_serve_has_no_preset(method, monkeypatch):
    monkeypatch.setattr("dream_core.recipes.description.IPCS", (10, 141))  # a class of the digits has 140 images
    presets = describe.__wrapped__(method)["presets"]
    assert {preset["ipc"] for preset in presets if preset["dataset"] == "digits"} == {10}
    assert {preset["ipc"] for preset in presets if preset["dataset"] == "svhn"} == {10, 141}


@every_method
def test_setting_a_preset_changes_nothing(method):
    for preset in describe(method)["presets"]:
        published = make_recipe(method, preset["dataset"], preset["ipc"])
        overrides = {section: preset[section] for section in SECTIONS}
        assert make_recipe(method, preset["dataset"], preset["ipc"], **overrides) == published
        assert preset["steps"] == published.steps


@every_method
def test_defaults_and_a_preset_are_the_complete_recipe(method):
    params, evaluation = (
        {name: field["default"] for name, field in fields(method, section).items() if "default" in field}
        for section in SECTIONS
    )
    for preset in describe(method)["presets"]:
        recipe = make_recipe(method, preset["dataset"], preset["ipc"])
        assert not params.keys() & preset["params"].keys()
        assert params | preset["params"] == recipe.model_dump(exclude=set(OF_THE_SPEC))
        assert not evaluation.keys() & preset["evaluation"].keys()
        assert evaluation | preset["evaluation"] == recipe.evaluation.model_dump()


@every_method
def test_defaults_hold_for_folders_too(method):
    folder = make_recipe(method, "folder:mine", 10)
    for section, recipe in (("params", folder), ("evaluation", folder.evaluation)):
        for name, field in fields(method, section).items():
            assert field.get("default", getattr(recipe, name)) == getattr(recipe, name), name


@every_method
def test_a_network_is_offered_where_the_method_takes_it_on_some_dataset(method):
    taken = [n for n in NETWORKS if not all(refused(method, d, params={"network": n}) for d in DATASETS)]
    assert fields(method, "params")["network"]["enum"] == taken
    assert "convnet" in taken


def test_what_a_method_never_takes_is_not_offered():
    assert fields("dream", "params")["network"]["enum"] == list(NETWORKS)
    assert fields("dream", "params")["base"]["enum"] == ["dc", "dsa", "dm", "idc"]
    assert fields("dsa", "params")["base"]["enum"] == ["dsa"]
    assert fields("sre2l", "params")["norm"]["enum"] == ["batch"]
    assert fields("mtt", "params")["norm"]["enum"] == ["instance", "layer", "group", "none"]
    modes = {method: fields(method, "evaluation")["mode"]["enum"] for method in ("idc", "dd", "sre2l")}
    assert modes == {"idc": ["train"], "dd": ["train", "replay"], "sre2l": ["train", "soft"]}
    assert fields("idc", "evaluation")["lr"]["type"] == "number"
    assert {"const": "learned", "type": "string"} in fields("mtt", "evaluation")["lr"]["anyOf"]


def test_published_settings_are_marked():
    assert preset_of("dream", "cifar10", 10)["published"]
    assert not preset_of("dream", "digits", 10)["published"]
    assert not any(preset["published"] for preset in describe("random")["presets"])


@pytest.mark.parametrize(
    ("method", "dataset", "ipc", "passes"),
    [
        # 200,000 steps: 10 classes of 64 real and 40 decoded images, and 2000 for the network
        ("idc", "cifar10", 10, 200_000 * (10 * (64 + 40) + 2000)),
        # the same with 128, and an embedding of all 50,000 in every tenth
        ("dream", "cifar10", 10, 200_000 * (10 * (128 + 40) + 2000) + 20_000 * 50_000),
        # and every one of 2000 networks sees all once
        ("dream+", "cifar10", 10, 200_000 * (10 * (128 + 40) + 2000) + 20_000 * 50_000 + 2000 * 50_000),
        # 1000 networks: 10 steps of 10 classes, 9 trainings of 50 epochs over 100 images
        ("dc", "mnist", 10, 1000 * (10 * 10 * (256 + 10) + 9 * 50 * 100)),
        ("dm", "cifar100", 10, 20_000 * 100 * (256 + 10)),
        ("mtt", "cifar100", 50, 100 * 41 * 50_000 + 5000 * 80 * 125),
        ("dd", "cifar10", 10, 19_600 * (1024 + 3 * 100)),
        ("sre2l", "cifar100", 50, 200 * 50_000 + 50 * 1000 * 100 + 400 * 5000),
        ("random", "mnist", 1, 0),
        ("herding", "mnist", 1, 11 * 60_000),
    ],
)
def test_image_passes(method, dataset, ipc, passes):
    assert preset_of(method, dataset, ipc)["image_passes"] == passes


def test_image_passes_follow_what_is_set():
    digits, few = DATASETS["digits"], {"outer_iterations": 1}
    whole, short = (image_passes(make_recipe("dream", "digits", 1, params=params), digits) for params in ({}, few))
    assert short == whole / 2000


@pytest.mark.parametrize(
    ("changes", "embedded"),
    [
        ({}, 10 * 60_000),
        ({"pool": 500}, 10 * 5000),
        ({"pool": 10_000}, 10 * 60_000),
        ({"staggered": True}, 10 * 60_000),
    ],
)
def test_image_passes_count_what_is_clustered(changes, embedded):
    params = {"outer_iterations": 1} | changes
    matched = 100 * (10 * (128 + 4) + 500)
    assert image_passes(make_recipe("dream", "mnist", 1, params=params), DATASETS["mnist"]) == matched + embedded


def test_it_needs_no_torch():
    program = (
        "import sys; from dream_core.recipes.description import describe_all; describe_all()\n"
        "print([name for name in ('torch', 'numpy', 'sklearn') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"
