"""The measurement of clustering: its parts agree with dream_core, and what was kept can be told."""

import json

import pytest
import torch

from benchmarks import kmeans_report
from benchmarks.kmeans import RESULTS as KEPT
from benchmarks.kmeans import WAYS, cluster, engines, inertia, means, member_means, published, timed


def cloud():
    return torch.randn(300, 16, generator=torch.Generator().manual_seed(0))


def test_every_engine_clusters_as_well_from_the_same_start():
    found = {name: timed(fit, cloud(), seed=0) for name, fit in engines().items()}
    rough = found.pop("sklearn, mini-batches")
    assert all(numbers["inertia"] == pytest.approx(found["torch"]["inertia"], rel=0.02) for numbers in found.values())
    assert found["torch"]["inertia"] < rough["inertia"] < 1.5 * found["torch"]["inertia"]


def test_a_clustering_says_what_the_next_may_start_from():
    X = cloud()
    numbers, state = cluster(X, "random", seed=0)
    assert numbers["inertia"] == inertia(X, state["centers"])
    assert len(state["chosen"]) == len(state["chosen"].unique()) == 128
    torch.testing.assert_close(member_means(X, state["labels"]), state["centers"], rtol=0, atol=1e-4)


def test_means_are_taken_name_by_name():
    assert means([{"a": 1.0, "b": 2.0}, {"a": 3.0, "b": 2.0}]) == {"a": 2.0, "b": 2.0}


def test_every_way_is_a_recipe():
    assert all(published(**way) for way in WAYS.values())


def test_the_table_is_that_of_the_kept_results(tmp_path):
    parts = {name: json.loads((KEPT / f"{name}.json").read_text()) for name in kmeans_report.SECTIONS}
    kmeans_report.write(tmp_path, parts)
    assert (tmp_path / "kmeans.md").read_text() == (KEPT / "kmeans.md").read_text()
    assert (tmp_path / "kmeans.png").stat().st_size > 0
