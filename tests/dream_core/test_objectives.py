"""Gradient matching against the reference, and what must not count in it."""

import pytest
import torch

from dream_core.networks import ConvNet
from dream_core.objectives import DISTANCES, Matching
from tests.dream_core import reference, reference_condensation
from tests.dream_core.tiny import matching_loss


@pytest.fixture
def network():
    torch.manual_seed(0)
    return ConvNet(3, 4, 8, depth=2, width=5).double()


def batch(n, seed):
    return torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def reference_loss(network, metric, real, synthetic, label):
    weights = list(network.parameters())
    losses = [reference.cross_entropy(reference.logits(weights, x), [label] * len(x)) for x in (real, synthetic)]
    gradients = [torch.autograd.grad(loss, weights, create_graph=True) for loss in losses]
    return reference_distance(metric, [g.detach() for g in gradients[0]], list(gradients[1]))


def reference_distance(metric, real, synthetic):
    """Over the convolutions alone."""
    if metric not in ("l1_mean", "cosine_all"):
        return reference.match_distance(metric, real, synthetic)
    real, synthetic = ([g for g in gradients if g.dim() == 4] for gradients in (real, synthetic))
    if metric == "cosine_all":
        return reference_condensation.dc_cos(real, synthetic)
    rows = [(a - b, len(a)) for a, b in zip(real, synthetic, strict=True)]
    return sum(row.abs().sum() / row.numel() for difference, n in rows for row in difference.reshape(n, -1))


def matching(network, metric="mse"):
    """As IDC does it."""
    return Matching(network, "gradient", metric, "convolutions")


@pytest.mark.parametrize("metric", DISTANCES)
def test_loss_and_pixel_gradient_equal_the_reference(network, metric):
    """Batches differ in size: both cross-entropies are means."""
    real, synthetic = batch(7, 1), batch(2, 2).requires_grad_()
    ours = matching_loss(matching(network, metric), real, synthetic, 3)
    theirs = reference_loss(network, metric, real, synthetic, 3)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    (a,), (b,) = torch.autograd.grad(ours, synthetic), torch.autograd.grad(theirs, synthetic)
    torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(("metric", "expected"), [("mse", 0 + 4 + 16 + 3 * 4), ("l1", 0 + 2 + 4 + 3 * 2)])
def test_distances_are_sums_not_means(metric, expected):
    a = torch.tensor([[1.0, 2, 3], [0, 0, 0]])
    b = torch.tensor([[1.0, 0, -1], [2, 2, 2]])
    assert float(DISTANCES[metric]([a], [b])) == expected


def test_cosine_is_taken_row_by_row():
    a, b = torch.tensor([[1.0, 0], [0, 5]]), torch.tensor([[2.0, 0], [0, -1]])
    assert float(DISTANCES["cosine"]([a[..., None, None]], [b[..., None, None]])) == pytest.approx(2, abs=1e-4)


def test_only_convolution_weights_are_matched(network):
    """No classifier, no biases, no normalisation."""
    matched = matching(network).weights
    assert [tuple(w.shape) for w in matched] == [(5, 3, 3, 3), (5, 5, 3, 3)]


def test_real_side_keeps_no_graph_and_the_network_gets_no_gradient(network):
    real, synthetic = batch(3, 1).requires_grad_(), batch(2, 2).requires_grad_()
    loss = matching_loss(matching(network), real, synthetic, 0)
    (gradient,) = torch.autograd.grad(loss, synthetic, retain_graph=True)
    assert gradient.abs().max() > 0
    (none,) = torch.autograd.grad(loss, real, allow_unused=True)
    assert none is None
    assert all(p.grad is None for p in network.parameters())


def test_pixel_gradient_is_that_of_differences(network):
    """The second derivative, checked by finite differences."""
    network = ConvNet(3, 4, 8, depth=1, width=3, activation="swish").double()
    objective, real = matching(network), batch(3, 1)
    assert torch.autograd.gradcheck(
        lambda x: matching_loss(objective, real, x, 1), batch(1, 2).requires_grad_(), atol=1e-6
    )


def test_same_images_match_exactly(network):
    x = batch(4, 1)
    assert matching_loss(matching(network), x, x.clone(), 2).item() < 1e-20


def test_repeating_a_batch_changes_nothing(network):
    """Mean-reduced: otherwise 128 real against 10 synthetic images would scale the gradients."""
    real, synthetic = batch(4, 1), batch(2, 2)
    objective = matching(network)
    once, twice = (
        matching_loss(objective, real, synthetic, 0),
        matching_loss(objective, real, torch.cat([synthetic] * 3), 0),
    )
    torch.testing.assert_close(once, twice)
