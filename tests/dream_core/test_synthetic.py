"""Multi-formation: decoding and tiling against the reference, and the order of everything."""

import pytest
import torch

from dream_core.synthetic import SyntheticSet, decode, decode_single, noise, tile
from tests.dream_core import reference


def images(n, size, channels=3):
    return torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize(("size", "factor"), [(8, 1), (8, 2), (9, 2), (28, 2), (28, 3), (10, 3), (10, 4)])
def test_decode_equals_the_reference(size, factor):
    """Bilinear, corners not aligned, cells in the reference's order, 0.5 where the factor does not divide the side."""
    x = images(3, size)
    torch.testing.assert_close(decode_single(x, factor), reference.decode_single(x, factor), rtol=0, atol=1e-12)


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_multi_decodes_at_every_factor(factor):
    x = images(2, 12)
    ours = decode(x, factor, "multi")
    assert len(ours) == 2 * sum(k * k for k in range(1, factor + 1))
    torch.testing.assert_close(ours, reference.decode_multi(x, factor), rtol=0, atol=1e-12)


@pytest.mark.parametrize("factor", [1, 2, 3])
@pytest.mark.parametrize("ipc", [1, 10, 20, 50, 100, 128, 130])
def test_bound_takes_as_many_as_fit(ipc, factor):
    x = images(ipc, 6, channels=1)
    ours = decode(x, factor, "bound")
    torch.testing.assert_close(ours, reference.decode_bound(x, factor), rtol=0, atol=1e-12)
    assert ipc <= len(ours) <= max(128, ipc)


def test_decoded_images_come_patch_by_patch():
    """The first cell of all images, then the second of all: so that tiling and decoding agree."""
    x = torch.arange(8.0).view(2, 4, 1, 1).repeat(1, 1, 4, 4)  # value = 4 · image + cell
    cells = torch.zeros(2, 1, 8, 8)
    for k in range(4):
        row, column = divmod(k, 2)
        cells[:, 0, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = x[:, k]
    decoded = decode_single(cells, 2)
    assert decoded[:, 0, 4, 4].tolist() == [0, 4, 1, 5, 2, 6, 3, 7]


def test_padding_of_uneven_sides_is_grey_at_right_and_bottom():
    decoded = decode_single(torch.zeros(1, 1, 28, 28), 3)  # 30 pixels, cells of 10
    assert decoded[0].max() == 0
    assert decoded[2, 0, :, -1].tolist() == [0.5] * 28
    assert decoded[6, 0, -1].tolist() == [0.5] * 28


@pytest.mark.parametrize(
    ("size", "factor", "ipc"), [(8, 1, 3), (8, 2, 1), (8, 2, 3), (28, 3, 2), (10, 3, 2), (11, 4, 1)]
)
def test_tiling_equals_the_reference(size, factor, ipc):
    """Shrunk by nearest neighbour, in groups of IPC; the first cells take the pixels left over."""
    x = images(ipc * factor**2, size)
    torch.testing.assert_close(tile(x, factor), reference.init_mix(x, ipc, factor), rtol=0, atol=0)


def test_twenty_eight_pixels_by_three_are_ten_nine_and_nine():
    x = torch.arange(9.0).view(9, 1, 1, 1).expand(9, 1, 28, 28)
    tiled = tile(x, 3)[0, 0]
    assert [int((tiled[0] == k).sum()) for k in range(3)] == [10, 9, 9]
    assert [int((tiled[:, 0] == k).sum()) for k in (0, 3, 6)] == [10, 9, 9]


def test_tiling_copies():
    x = images(2, 8)
    tiled = tile(x, 1)
    tiled.zero_()
    assert x.max() > 0


def test_gradients_reach_every_stored_pixel_and_no_other_class():
    x = images(6, 8).requires_grad_()
    synthetic = SyntheticSet(x, classes=3, ipc=2, factor=2)
    (gradient,) = torch.autograd.grad(synthetic.decode(synthetic.of_class(1)).sum(), x)
    assert (gradient[2:4] > 0).all()
    assert gradient[:2].abs().max() == gradient[4:].abs().max() == 0


def test_ipc_counts_stored_images_and_decoded_labels_follow():
    synthetic = SyntheticSet(images(6, 8), classes=3, ipc=2, factor=2)
    decoded, labels = synthetic.decoded()
    assert synthetic.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert len(decoded) == len(labels) == 24
    assert labels.bincount().tolist() == [8, 8, 8]
    torch.testing.assert_close(decoded[8:16], reference.decode_single(images(6, 8)[2:4], 2), rtol=0, atol=1e-12)


def test_noise_is_grey_and_in_range():
    x = noise(500, (1, 8, 8), torch.Generator().manual_seed(0))
    assert (float(x.min()), float(x.max())) == (0, 1)
    assert abs(float(x.mean()) - 0.5) < 0.01
    assert abs(float(x.std()) - 0.24) < 0.01
