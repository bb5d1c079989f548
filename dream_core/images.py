"""From stored uint8 to what a network sees."""

import torch
from torch import Tensor


def to_unit(images: Tensor, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Tensor:
    """uint8 [N, C, H, W] as floats in [0, 1]; floats are only moved."""
    scale = 255 if images.dtype == torch.uint8 else 1
    return images.to(device=device, dtype=dtype) / scale if scale != 1 else images.to(device=device, dtype=dtype)


class Normalize:
    """Images in [0, 1] minus the channel means, over the channel deviations."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]):
        self.mean, self.std = torch.tensor(mean).view(1, -1, 1, 1), torch.tensor(std).view(1, -1, 1, 1)

    def __call__(self, images: Tensor) -> Tensor:
        return (images - self.mean.to(images)) / self.std.to(images)
