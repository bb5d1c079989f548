"""Named random streams, and the shuffled walk made of them."""

import pytest
import torch

from dream_core.randomness import Shuffle, derive, stream


def test_a_stream_is_decided_by_seed_and_key():
    first = torch.rand(4, generator=stream(0, "augment", 1, 2))
    torch.rand(9)
    assert torch.equal(first, torch.rand(4, generator=stream(0, "augment", 1, 2)))
    others = [
        derive(0, "augment", 1, 2),
        derive(1, "augment", 1, 2),
        derive(0, "augment", 2, 1),
        derive(0, "augment", 12),
    ]
    assert len(set(others)) == 4
    assert all(0 <= seed < 2**63 for seed in others)


@pytest.mark.parametrize(("size", "batch"), [(10, 3), (9, 3), (2, 5), (1, 1)])
@pytest.mark.parametrize("drop_last", [True, False])
def test_a_pass_sees_every_item_at_most_once(size, batch, drop_last):
    walk = Shuffle(size, batch, 0, "x", drop_last=drop_last)
    batches = [walk[number].tolist() for number in range(walk.per_pass)]
    seen = [item for items in batches for item in items]
    assert len(seen) == len(set(seen))
    if drop_last:
        assert {len(items) for items in batches} == {min(batch, size)}
    else:
        assert sorted(seen) == list(range(size))


def test_every_pass_has_another_order_and_any_batch_can_be_asked_for_first():
    walk = Shuffle(50, 50, 0, "x", drop_last=False)
    passes = [walk[number].tolist() for number in range(3)]
    assert len({str(items) for items in passes}) == 3
    assert Shuffle(50, 50, 0, "x", drop_last=False)[2].tolist() == passes[2]
    assert walk[0].tolist() == passes[0]
