"""ConvNet-D: sizes, initialisation, and the forward pass against the reference."""

import math

import pytest
import torch
from torch import nn

from dream_core.networks import ConvNet, initialize, matched_network
from dream_core.recipes import make_recipe
from tests.dream_core import reference

PUBLISHED = [
    ({"channels": 3, "classes": 10, "size": 32}, 320_010),
    ({"channels": 1, "classes": 10, "size": 28}, 317_706),
    ({"channels": 3, "classes": 100, "size": 32}, 504_420),
    ({"channels": 3, "classes": 200, "size": 64, "depth": 4}, 857_160),
    ({"channels": 3, "classes": 200, "size": 64, "depth": 3}, 1_938_120),
    ({"channels": 3, "classes": 10, "size": 128, "depth": 5}, 615_690),
    ({"channels": 3, "classes": 10, "size": 32, "depth": 1}, 331_530),
    ({"channels": 3, "classes": 10, "size": 32, "depth": 2}, 233_610),
    ({"channels": 3, "classes": 10, "size": 32, "depth": 4}, 452_490),
    ({"channels": 3, "classes": 10, "size": 32, "width": 32}, 24_714),
    ({"channels": 3, "classes": 10, "size": 32, "width": 64}, 86_282),
    ({"channels": 3, "classes": 10, "size": 32, "width": 256}, 1_229_834),
    ({"channels": 3, "classes": 10, "size": 32, "norm": "none"}, 319_242),
    ({"channels": 3, "classes": 10, "size": 32, "norm": "layer"}, 663_306),
    ({"channels": 3, "classes": 10, "size": 32, "pooling": "none"}, 1_610_250),
]


@pytest.mark.parametrize(("arguments", "count"), PUBLISHED)
def test_parameter_counts_are_the_published_ones(arguments, count):
    with torch.device("meta"):
        network = ConvNet(**arguments)
    assert sum(p.numel() for p in network.parameters()) == count


@pytest.mark.parametrize(("channels", "size", "depth"), [(1, 28, 3), (3, 32, 3), (3, 64, 4), (3, 128, 5)])
def test_embedding_has_2048_features(channels, size, depth):
    network = ConvNet(channels, 10, size, depth)
    assert network.embed(torch.zeros(2, channels, size, size)).shape == (2, 2048)


def test_mnist_is_padded_to_32_by_the_first_convolution():
    convolutions = [m for m in ConvNet(1, 10, 28).modules() if isinstance(m, nn.Conv2d)]
    assert [c.padding for c in convolutions] == [(3, 3), (1, 1), (1, 1)]


@pytest.mark.parametrize(("channels", "size", "depth"), [(1, 8, 1), (3, 8, 2), (1, 28, 3), (3, 12, 2), (3, 9, 1)])
def test_forward_equals_the_reference(channels, size, depth):
    torch.manual_seed(0)
    network = ConvNet(channels, 4, size, depth, width=5).double()
    for module in network.modules():  # scales and shifts that are not 1 and 0
        if isinstance(module, nn.GroupNorm):
            nn.init.uniform_(module.weight)
            nn.init.uniform_(module.bias)
    x = torch.randn(3, channels, size, size, dtype=torch.float64)
    weights = list(network.parameters())
    torch.testing.assert_close(network.embed(x), reference.features(weights, x), rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(network(x), reference.logits(weights, x), rtol=1e-9, atol=1e-11)


def test_instance_norm_is_learned_and_has_no_running_statistics():
    norms = [m for m in ConvNet(3, 10, 32).modules() if isinstance(m, nn.GroupNorm)]
    assert [(n.num_groups, n.num_channels, n.affine, n.eps) for n in norms] == [(128, 128, True, 1e-5)] * 3
    network = ConvNet(3, 10, 32, width=8)
    x = torch.randn(4, 3, 32, 32)
    assert torch.equal(network.train()(x), network.eval()(x))


@pytest.mark.parametrize("norm", ["instance", "batch", "layer", "group", "none"])
@pytest.mark.parametrize("pooling", ["average", "max", "none"])
def test_variants_run(norm, pooling):
    network = ConvNet(3, 4, 16, depth=2, width=8, norm=norm, pooling=pooling, activation="leaky_relu")
    assert network(torch.randn(2, 3, 16, 16)).shape == (2, 4)


def test_initialisation_is_that_of_pytorch():
    """Uniform within ±1/√fan_in, weights and biases; normalisation at 1 and 0."""
    network = ConvNet(3, 10, 32)
    initialize(network, torch.Generator().manual_seed(0))
    pytorch = ConvNet(3, 10, 32)
    for ours, theirs in zip(network.modules(), pytorch.modules(), strict=True):
        if isinstance(ours, nn.Conv2d | nn.Linear):
            bound = 1 / math.sqrt(ours.weight[0].numel())
            for a, b in ((ours.weight.detach(), theirs.weight.detach()), (ours.bias.detach(), theirs.bias.detach())):
                assert float(a.abs().max()) <= bound
                assert float(b.abs().max()) <= bound
            assert ours.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
            assert theirs.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
        elif isinstance(ours, nn.GroupNorm):
            assert ours.weight.min().item() == ours.weight.max().item() == 1
            assert ours.bias.abs().max().item() == 0


def test_initialisation_is_decided_by_its_generator_alone():
    recipe = make_recipe("dream", "digits", 1)
    made = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        made.append(matched_network(recipe, 1, 10, torch.Generator().manual_seed(7), torch.device("cpu")))
    assert all(torch.equal(a, b) for a, b in zip(made[0].parameters(), made[1].parameters(), strict=True))
    other = matched_network(recipe, 1, 10, torch.Generator().manual_seed(8), torch.device("cpu"))
    assert not torch.equal(next(other.parameters()), next(made[0].parameters()))


@pytest.mark.parametrize(("dataset", "depth"), [("cifar10", 3), ("mnist", 3), ("tinyimagenet", 4)])
def test_depth_leaves_four_by_four(dataset, depth):
    recipe = make_recipe("idc", dataset, 1)
    assert recipe.depth == depth
    channels = 1 if dataset == "mnist" else 3
    network = matched_network(recipe, channels, 10, torch.Generator(), torch.device("cpu"))
    assert network.classifier.in_features == 2048
