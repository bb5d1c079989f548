import errno

import pytest
import torch

from tests.dream_core.tiny import tiny_recipe
from worker.checkpoint import CheckpointStore, identity

IDENTITY = "0123456789abcdef"


def state(step, size=64):
    return {"images": torch.full((size,), float(step)), "step": torch.tensor(step)}


@pytest.fixture
def store(tmp_path):
    return CheckpointStore(tmp_path / "checkpoints", IDENTITY)


def save(store, *steps):
    for step in steps:
        store.save(step, step / 2, state(step))


def damage_newest(store, how):
    newest = max(store.directory.glob("ckpt-*"))
    for path in newest.glob("*"):
        how(path)


def names(store):
    return sorted(path.name for path in store.directory.iterdir())


def test_what_is_saved_comes_back(store):
    size = store.save(7, 1.25, state(7))

    found = store.latest()
    assert (found.step, found.seconds, found.identity) == (7, 1.25, IDENTITY)
    assert found.tensors.keys() == state(7).keys()
    assert all(torch.equal(found.tensors[name], value) for name, value in state(7).items())
    assert found.tensors["images"].dtype == torch.float32
    assert size == sum(path.stat().st_size for path in store.directory.rglob("*.*") if path.is_file())


def test_a_view_is_saved_by_its_values(store):
    whole = torch.arange(12.0).view(3, 4)

    store.save(1, 0, {"column": whole[:, 1], "turned": whole.T})

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

    store.save(5, 99, state(6))

    assert (store.latest().seconds, store.latest().tensors["step"].item()) == (99, 6)
    assert len(names(store)) == 1


def test_those_of_another_run_are_passed_over_and_left_alone(store):
    save(store, 100, 200)
    other = CheckpointStore(store.directory, "f" * 16)
    assert other.latest() is None

    save(other, 1, 2, 3)

    assert other.latest().step == 3
    assert store.latest().step == 200


def test_one_that_was_moved_to_another_run_is_refused(store):
    save(store, 5)
    other = CheckpointStore(store.directory, "f" * 16)
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
def test_a_damaged_one_gives_way_to_the_one_before(store, name, how):
    save(store, 5, 10)
    damage_newest(store, lambda path: how(path) if path.name == name else None)

    assert store.latest().step == 5

    save(store, 10)  # as the resumed run does when it gets there
    assert store.latest().step == 10


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


def test_a_full_disk_is_said_and_leaves_the_earlier_ones(small_disk):
    store = CheckpointStore(small_disk(256 * 1024) / "checkpoints", IDENTITY)
    save(store, 5)
    before = names(store)

    with pytest.raises(OSError, match="No space left") as error:
        store.save(10, 0, state(10, size=100_000))

    assert error.value.errno == errno.ENOSPC
    assert names(store) == before
    assert store.latest().step == 5
    save(store, 11)
    assert store.latest().step == 11


def test_a_file_beside_belongs_to_the_run(store):
    assert store.beside("scores.json").parent == store.directory
    assert store.beside("scores.json") != CheckpointStore(store.directory, "f" * 16).beside("scores.json")
