import torch

from benchmarks.networks_at_once import AtOnce, table
from dream_core.computing import PLAIN


def test_networks_batched_as_one_have_the_gradients_of_each():
    both = AtOnce(count=2, images=4, width=4, device=torch.device("cpu"))
    apart = both.one_after_another(PLAIN)
    torch.testing.assert_close(both.as_one(PLAIN), apart, rtol=1e-4, atol=1e-5)
    assert not torch.equal(apart[0]["classifier.weight"], apart[1]["classifier.weight"])


def test_the_table_says_how_many_times_faster_batching_is():
    assert "| compiled | 3.00 | 2.00 | 1.50 |" in table({"compiled": [3.0, 2.0]}, "a machine", 3, 256)
