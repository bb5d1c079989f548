import errno
import json

import pytest
import torch

from dream_core.errors import DreamError
from jobs.checkpoints import list_checkpoints
from tests.dream_core.tiny import tiny_recipe, tiny_recipe_of
from worker.checkpoint import Checkpoint, CheckpointStore, identity

RECIPE = tiny_recipe(outer_iterations=100)


def state(step, size=64):
    return {"images": torch.full((size,), float(step)), "step": torch.tensor(step)}


@pytest.fixture
def warnings():
    return []


@pytest.fixture
def store_of(tmp_path, warnings):
    def store_of(recipe=RECIPE, fingerprint="data", directory=tmp_path / "checkpoints"):
        return CheckpointStore(directory, recipe, fingerprint, lambda code, message: warnings.append((code, message)))

    return store_of


@pytest.fixture
def store(store_of):
    return store_of()


def save(store, *steps, seconds=0.5, size=64, tensors=None):
    for step in steps:
        written = store.save(Checkpoint(step, seconds, tensors or state(step, size)), "distilling", step / 4)
    return written


def damage_newest(store, how):
    newest = max(store.directory.glob("ckpt-*"))
    for path in newest.glob("*"):
        how(path)


def names(store):
    return sorted(path.name for path in store.directory.iterdir())


def test_what_is_saved_comes_back(store):
    size = save(store, 7, seconds=1.25)

    found = store.latest()
    assert (found.step, found.seconds) == (7, 1.25)
    assert found.tensors.keys() == state(7).keys()
    assert all(torch.equal(found.tensors[name], value) for name, value in state(7).items())
    assert found.tensors["images"].dtype == torch.float32
    assert size == sum(path.stat().st_size for path in store.directory.rglob("*.*") if path.is_file())


def test_a_view_is_saved_by_its_values(store):
    whole = torch.arange(12.0).view(3, 4)

    save(store, 1, tensors={"column": whole[:, 1], "turned": whole.T})

    assert store.latest().tensors["column"].tolist() == [1, 5, 9]
    assert torch.equal(store.latest().tensors["turned"], whole.T)


def test_without_any_there_is_none(store):
    assert store.latest() is None
    assert not store.directory.exists()


def test_the_latest_two_are_kept(store):
    save(store, 5, 10, 100)

    assert len(names(store)) == 2
    assert store.latest().step == 100
    damage_newest(store, lambda path: path.unlink())
    assert store.latest().step == 10


def test_a_step_can_be_saved_again(store):
    save(store, 5)

    save(store, 5, seconds=99, tensors=state(6))

    assert (store.latest().seconds, store.latest().tensors["step"].item()) == (99, 6)
    assert len(names(store)) == 1


def test_those_of_another_run_are_passed_over_and_left_alone(store, store_of):
    save(store, 100, 200)
    other = store_of(fingerprint="other data")
    assert other.latest() is None

    save(other, 1, 2, 3)

    assert other.latest().step == 3
    assert store.latest().step == 200


def test_one_that_was_moved_to_another_run_is_refused(store, store_of):
    save(store, 5)
    other = store_of(fingerprint="other data")
    (path,) = store.directory.iterdir()
    path.rename(path.with_name(path.name.replace(store.identity, other.identity)))

    assert other.latest() is None


def test_a_run_is_its_recipe_and_its_data():
    recipe = tiny_recipe()

    assert identity(recipe, "data") == identity(tiny_recipe(), "data")
    others = [
        identity(recipe, "other data"),
        identity(tiny_recipe(seed=4), "data"),
        identity(tiny_recipe(evaluation={"epochs": 5}), "data"),
    ]
    assert len({identity(recipe, "data"), *others}) == 4


def test_a_field_that_came_later_does_not_make_another_run():
    class Later(type(RECIPE)):
        came_later: int = 5

    later = Later.model_validate(RECIPE.model_dump())

    assert "came_later" in later.model_dump()
    assert identity(later, "data") == identity(RECIPE, "data")
    assert identity(later.model_copy(update={"came_later": 6}), "data") != identity(RECIPE, "data")


@pytest.mark.parametrize(
    "how",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-20]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\xff" * 40),
        lambda path: path.write_text("[]"),
        lambda path: path.unlink(),
    ],
    ids=["truncated", "empty", "garbage", "other JSON", "gone"],
)
@pytest.mark.parametrize("name", ["state.json", "state.safetensors"])
def test_a_damaged_one_gives_way_to_the_one_before(store, warnings, name, how):
    save(store, 5, 10)
    damage_newest(store, lambda path: how(path) if path.name == name else None)

    assert store.latest().step == 5
    ((code, message),) = warnings
    assert code == "CHECKPOINT_DAMAGED"
    assert "00000010" in message
    assert str(store.directory) not in message

    save(store, 10)  # as the resumed run does when it gets there
    assert store.latest().step == 10


@pytest.mark.parametrize("place", [-1, -100, 100])
def test_a_single_flipped_bit_is_found(store, warnings, place):
    save(store, 5, 10)

    def flip(path):
        content = bytearray(path.read_bytes())
        content[place] ^= 1
        path.write_bytes(content)

    damage_newest(store, lambda path: flip(path) if path.suffix == ".safetensors" else None)

    assert store.latest().step == 5
    assert "checksum" in warnings[0][1]


def test_a_list_shows_them_without_reading_the_tensors(store):
    size = save(store, 5, 10)
    (store.directory / ".half.tmp").mkdir()

    found = list_checkpoints(store.directory)

    assert [(facts.step, facts.total, facts.phase, facts.loss) for facts in found] == [
        (5, RECIPE.steps, "distilling", 1.25), (10, RECIPE.steps, "distilling", 2.5)
    ]  # fmt: skip
    assert found[1].bytes == size
    assert found[1].created_at.tzinfo is not None


def test_a_loss_that_is_no_number_is_none(store):
    """JSON has neither NaN nor infinity."""
    store.save(Checkpoint(1, 0.0, state(1)), None, float("nan"))

    (path,) = store.directory.glob("*/state.json")
    about = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert (about["loss"], about["phase"]) == (None, None)


def test_what_a_killed_write_left_is_neither_read_nor_in_the_way(store):
    save(store, 5, 10)
    half = max(store.directory.glob("ckpt-*"))
    half = half.rename(half.with_name(f".{half.name}.tmp"))
    (half / "state.safetensors").write_bytes(b"half")
    (half / "more").mkdir()

    assert store.latest().step == 5

    save(store, 10)
    assert store.latest().step == 10
    assert not [name for name in names(store) if name.startswith(".")]


def test_a_full_disk_is_said_and_leaves_the_earlier_ones(small_disk, store_of):
    store = store_of(directory=small_disk(256 * 1024) / "checkpoints")
    save(store, 5)
    before = names(store)

    with pytest.raises(OSError, match="No space left") as error:
        save(store, 10, size=100_000)

    assert error.value.errno == errno.ENOSPC
    assert names(store) == before
    assert store.latest().step == 5
    save(store, 11)
    assert store.latest().step == 11


def test_a_file_beside_belongs_to_the_run(store, store_of):
    assert store.beside("scores.json").parent == store.directory
    assert store.beside("scores.json") != store_of(fingerprint="other data").beside("scores.json")


# ---------------------------------------------------------------- another run's


def changed(**values):
    return tiny_recipe(**({"outer_iterations": 100} | values))


@pytest.fixture
def theirs(store):
    """The checkpoint of another run, at step 10 of 300."""
    save(store, 10)
    (directory,) = store.directory.iterdir()
    return directory


@pytest.mark.parametrize(
    "recipe",
    [RECIPE, changed(outer_iterations=200), changed(outer_iterations=4), changed(evaluation={"epochs": 9})],
    ids=["the same", "longer", "shorter, but not over", "judged otherwise"],
)
def test_another_run_goes_on_from_it(store_of, theirs, tmp_path, recipe):
    store = store_of(recipe, directory=tmp_path / "own")
    assert store.latest() is None

    taken = store.taken_over(theirs)

    assert (taken.step, taken.seconds) == (10, 0.5)
    assert torch.equal(taken.tensors["images"], state(10)["images"])


@pytest.mark.parametrize(
    ("recipe", "fingerprint", "told"),
    [
        (changed(lr_img=0.07), "data", "lr_img was 0.05 and is 0.07"),
        (changed(seed=4), "data", "seed was 3 and is 4"),
        (changed(inner_iterations=4), "data", "inner_iterations was 3 and is 4"),
        (tiny_recipe_of("dd"), "data", "method was 'dream' and is 'dd'"),
        (RECIPE, "other data", "images of the dataset"),
        (changed(outer_iterations=3), "data", "it had done 10 steps, and this job has only 9"),
    ],
)
def test_what_differs_is_said_where_it_does_not_fit(store_of, theirs, tmp_path, recipe, fingerprint, told):
    store = store_of(recipe, fingerprint, tmp_path / "own")

    with pytest.raises(DreamError) as caught:
        store.taken_over(theirs)

    assert told in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def written(theirs, change):
    about = json.loads((theirs / "state.json").read_text())
    change(about["recipe"])
    (theirs / "state.json").write_text(json.dumps(about))


def test_fields_that_an_earlier_version_had_not_are_at_their_defaults(store_of, theirs, tmp_path):
    written(theirs, lambda recipe: [recipe.pop("compiled"), recipe.pop("warm_start")])

    assert store_of(directory=tmp_path / "own").taken_over(theirs).step == 10
    with pytest.raises(DreamError, match="warm_start was False and is True"):
        store_of(changed(warm_start=True), directory=tmp_path / "own").taken_over(theirs)


@pytest.mark.parametrize(
    "change",
    [lambda told: told.clear(), lambda told: told.update(method="later"), lambda told: told.update(later=1)],
    ids=["none", "unknown method", "unknown field"],
)
def test_the_recipe_of_a_later_version_is_refused(store_of, theirs, tmp_path, change):
    written(theirs, change)

    with pytest.raises(DreamError, match="its recipe is not one of this version"):
        store_of(directory=tmp_path / "own").taken_over(theirs)


@pytest.mark.parametrize("name", ["state.json", "state.safetensors"])
def test_one_that_is_damaged_or_gone_cannot_be_gone_on_from(store, theirs, tmp_path, name):
    (theirs / name).write_bytes(b"\xff" * 40)

    for directory in (theirs, tmp_path / "gone"):
        with pytest.raises(DreamError, match="cannot be used") as caught:
            store.taken_over(directory)
        assert str(tmp_path) not in str(caught.value)
