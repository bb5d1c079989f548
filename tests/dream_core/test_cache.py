"""The cache of networks: whole files or none, a folder for every content of the key."""

import gc
import json
import os
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save

from dream_core.cache import NetworkCache

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([7, 8]), "half": torch.ones(2).half()}


def names(directory):
    return sorted(path.name for path in directory.rglob("*") if path.is_file())


@pytest.fixture
def cache(tmp_path):
    return NetworkCache(tmp_path / "cache", {"kind": "test"})


def test_what_was_saved_is_loaded(cache):
    assert "network" not in cache
    assert cache.load("network") is None
    cache.save("network", TENSORS)
    assert "network" in cache
    loaded = cache.load("network")
    assert loaded.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert torch.equal(loaded[name], tensor)
        assert loaded[name].dtype == tensor.dtype
    assert names(cache.directory) == ["about.json", "network.safetensors"]


def test_the_same_tensors_are_the_same_bytes_and_names_are_apart(cache, tmp_path):
    cache.save("first", TENSORS)
    cache.save("second", {"a": TENSORS["a"].T})  # not contiguous
    cache.save("third", TENSORS)
    first, third = ((cache.directory / f"{name}.safetensors").read_bytes() for name in ("first", "third"))
    assert first == third == save(TENSORS)
    assert torch.equal(cache.load("second")["a"], TENSORS["a"].T)
    assert names(cache.directory) == ["about.json", "first.safetensors", "second.safetensors", "third.safetensors"]


def test_another_object_of_the_same_key_finds_the_files_and_one_of_another_does_not(tmp_path):
    about = {"kind": "expert", "lr": 0.01, "dataset": "f00d"}
    NetworkCache(tmp_path, about).save("network", TENSORS)
    assert NetworkCache(tmp_path, dict(reversed(about.items()))).load("network") is not None
    for changed in ({"lr": 0.02}, {"lr": 1}, {"dataset": "f00e"}, {"kind": "teacher"}, {"more": None}):
        assert "network" not in NetworkCache(tmp_path, about | changed)
    shorter = {name: about[name] for name in ("kind", "lr")}
    assert "network" not in NetworkCache(tmp_path, shorter)
    assert "network" not in NetworkCache(tmp_path / "elsewhere", about)


def test_a_folder_says_what_its_files_hang_on(tmp_path):
    about = {"lr": 0.01, "kind": "expert", "zca": True}
    cache = NetworkCache(tmp_path, about)
    cache.save("network", TENSORS)
    assert cache.directory.parent == tmp_path
    assert json.loads((cache.directory / "about.json").read_text()) == about


CONTENT = save(TENSORS)
DAMAGED = {
    "empty": b"",
    "cut within the header": CONTENT[:20],
    "cut within the tensors": CONTENT[:-5],
    "overwritten": b"\xff" * len(CONTENT),
    "zeros": bytes(len(CONTENT)),
    "longer": CONTENT + b"more",
    "no JSON": CONTENT[:8] + b"\xfe" * 40 + CONTENT[48:],
    "a page of a proxy": b"<html>502 Bad Gateway</html>",
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_file_is_none_and_can_be_saved_again(damage, cache):
    cache.save("network", TENSORS)
    path = cache.directory / "network.safetensors"
    path.write_bytes(DAMAGED[damage])
    assert cache.load("network") is None
    cache.save("network", TENSORS)
    assert path.read_bytes() == CONTENT


def test_a_folder_in_a_files_place_is_none(cache):
    (cache.directory / "network.safetensors").mkdir(parents=True)
    assert cache.load("network") is None
    assert "network" not in cache


@pytest.mark.parametrize("before", ["nothing", "another file"])
@pytest.mark.parametrize("fails", ["writing", "putting in place"])
def test_a_file_is_written_whole_or_not_at_all(fails, before, cache, monkeypatch):
    other = {"other": torch.zeros(3)}
    if before != "nothing":
        cache.save("network", other)
    write = Path.write_bytes

    def full_disk(self, content):
        write(self, content[: len(content) // 2])
        raise OSError("no space left on device")

    def not_replaced(source, target):
        raise OSError("not allowed")

    with monkeypatch.context() as patch:
        if fails == "writing":
            patch.setattr(Path, "write_bytes", full_disk)
        else:
            patch.setattr(os, "replace", not_replaced)
        with pytest.raises(OSError, match=r"no space|not allowed"):
            cache.save("network", TENSORS)
    if before == "nothing":
        assert cache.load("network") is None
        assert names(cache.directory) == []
    else:
        assert torch.equal(cache.load("network")["other"], other["other"])
        assert names(cache.directory) == ["about.json", "network.safetensors"]
    cache.save("network", TENSORS)
    assert (cache.directory / "network.safetensors").read_bytes() == CONTENT


def test_a_reader_never_sees_half_a_file(cache, monkeypatch):
    """Until the moment it is put in place, a file of that name is the old one, whole."""
    cache.save("network", {"old": torch.zeros(1)})
    replace, seen = os.replace, []

    def look(source, target):
        if Path(target).suffix == ".safetensors":
            seen.append(sorted(load_file(target)))
        replace(source, target)

    monkeypatch.setattr(os, "replace", look)
    cache.save("network", TENSORS)
    assert seen == [["old"]]
    assert sorted(cache.load("network")) == sorted(TENSORS)


def test_a_temporary_cache_vanishes_with_its_object():
    """Quietly: a warning about it would be an error to who runs Python strictly."""
    first, second = (NetworkCache(None, {"kind": "test"}) for _ in range(2))
    first.save("network", TENSORS)
    assert first.load("network") is not None
    assert "network" not in second  # shared by nobody
    root = first.directory.parent
    assert root.is_dir()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del first
        gc.collect()
    assert not root.exists()
    assert second.directory.parent.is_dir()
