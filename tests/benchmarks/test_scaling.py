"""How cost grows: exponents are found, a point is measured, and what was measured becomes a table and a plot."""

import json
from dataclasses import asdict, replace

import pytest
import torch

from benchmarks.inner_iteration.images import noise_dataset
from benchmarks.inner_iteration.measuring import Amount
from benchmarks.scaling import report
from benchmarks.scaling.fitting import exponent
from benchmarks.scaling.points import PARTS, SIZES, Point, measure_point, points
from dream_core.catalog import DATASETS


def result(base, found):
    about = {"machine": "any", "measured": "all", "device": "cpu", "others_cores": 0.0, "quick": True}
    return about | {"base": asdict(base), "points": found}


def made_up(point):
    """Matching grows with the square of the side, memory with its root, nothing else grows."""
    seconds = dict.fromkeys(PARTS, 1.0) | {"matching": 3.0 * point.image_size**2}
    return {
        "sizes": asdict(point),
        "seconds": seconds,
        "total_s": 5.0,
        "runs": 2,
        "peak_bytes": 1e9 * point.image_size**0.5,
        "bound_bytes": 2e9,
        "interval": 10,
        "computing": {"compiled": False, "bfloat16": False},
    }


@pytest.mark.parametrize("power", [-1.0, 0.0, 0.5, 2.0])
def test_a_power_law_is_found(power):
    sizes = [1, 10, 50, 200]
    assert exponent(sizes, [3.0 * size**power for size in sizes]) == pytest.approx(power, abs=1e-9)


def test_no_exponent_without_two_points_or_of_nothing():
    assert exponent([1], [1.0]) is None
    assert exponent([1, 2], [0.0, 1.0]) is None


def test_each_size_is_varied_alone_and_the_base_is_measured_once():
    found = points(Point(), SIZES)
    assert len(found) == len(set(found)) == 1 + sum(len(some) - 1 for some in SIZES.values())
    for point in found:
        assert sum(asdict(point)[axis] != asdict(Point())[axis] for axis in SIZES) <= 1


def test_a_table_and_a_plot_with_the_exponents(tmp_path):
    base = Point()
    made = result(base, [made_up(point) for point in points(base, SIZES)])
    found = report.exponents(made, "image_size")
    assert (found["matching"], found["memory"]) == (pytest.approx(2.0), pytest.approx(0.5))
    assert found["network"] == pytest.approx(0.0)
    assert report.exponents(made, "classes")["matching"] == pytest.approx(0.0)
    report.keep(tmp_path, made)
    assert json.loads((tmp_path / "scaling.json").read_text()) == made
    assert (
        "| side of an image, pixels | 0.00 | 2.00 | 0.00 | 0.00 | 0.00 | 0.50 |"
        in (tmp_path / "scaling.md").read_text()
    )
    assert (tmp_path / "scaling.png").stat().st_size > 10_000


def test_a_point_is_measured():
    small = Point(ipc=1, classes=2, per_class=150, image_size=8)
    found = measure_point(small, torch.device("cpu"), Amount(1, 1, 1, evaluation=False), compiled=False)
    assert min(found["seconds"].values()) > 0
    assert found["total_s"] > found["seconds"]["matching"] + found["seconds"]["network"]
    assert found["sizes"] == asdict(small)


def test_after_so_many_images_noise_comes_again():
    facts = replace(DATASETS["digits"], classes=3, train=120_000, test=6)
    train = noise_dataset(facts).train
    assert train.counts == (40_000,) * 3
    assert torch.equal(train.images[:50_000], train.images[50_000:100_000])
    assert not torch.equal(train.images[:40_000], train.images[40_000:80_000])
