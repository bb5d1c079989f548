"""From stored uint8 to what a network sees, and back: pixels, normalised, whitened."""

from typing import Protocol

import torch
from torch import Tensor


def to_unit(images: Tensor, device: torch.device | str = "cpu") -> Tensor:
    """uint8 [N, C, H, W] as floats in [0, 1]; floats are only moved. The type is PyTorch's default, float32."""
    moved = images.to(device=device, dtype=torch.get_default_dtype())
    return moved / 255 if images.dtype == torch.uint8 else moved


class Transform(Protocol):
    """From images in [0, 1] to a network's input, and exactly back."""

    def __call__(self, images: Tensor) -> Tensor:
        """Network inputs [N, C, H, W] of images [N, C, H, W] in [0, 1]."""
        ...

    def inverse(self, inputs: Tensor) -> Tensor:
        """The images that give these inputs, not clamped."""
        ...


class Unchanged:
    """Of what is a network's input already."""

    def __call__(self, images: Tensor) -> Tensor:
        return images

    def inverse(self, inputs: Tensor) -> Tensor:
        return inputs


class Normalize:
    """Images in [0, 1] minus the channel means, over the channel deviations."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]):
        self.mean, self.std = torch.tensor(mean).view(1, -1, 1, 1), torch.tensor(std).view(1, -1, 1, 1)

    def __call__(self, images: Tensor) -> Tensor:
        return (images - self.mean.to(images)) / self.std.to(images)

    def inverse(self, inputs: Tensor) -> Tensor:
        return inputs * self.std.to(inputs) + self.mean.to(inputs)


class Zca:
    """Whitening of whole images: (x − μ) U (Λ + ε)^−½ Uᵀ, with the training images' mean μ and covariance U Λ Uᵀ.

    The inverse is exact: ε is in it, too. Source: as MTT applies it (to images in [0, 1], not normalised).

    Args:
        mean: [d], d = C · H · W.
        basis: the eigenvectors U of the covariance, [d, d], a column each.
        values: its eigenvalues Λ, [d].
    """

    def __init__(self, mean: Tensor, basis: Tensor, values: Tensor, eps: float = 0.1):
        self.mean, self.basis, self.values, self.eps = mean, basis, values, eps
        deviation = (values.double().clamp_min(0) + eps).sqrt()
        u = basis.double()
        self._matrix = (u / deviation @ u.T).to(torch.get_default_dtype())
        self._inverse = (u * deviation @ u.T).to(torch.get_default_dtype())

    @classmethod
    def fit(cls, images: Tensor, eps: float = 0.1, chunk: int = 4096) -> "Zca":
        """The transform of training images, uint8 [N, C, H, W] with N ≥ 2."""
        mean = torch.stack([part.flatten(1).double().sum(0) for part in images.split(chunk)]).sum(0) / len(images) / 255
        covariance = torch.zeros(len(mean), len(mean), dtype=torch.float64)
        for part in images.split(chunk):
            centred = part.flatten(1).double() / 255 - mean
            covariance += centred.T @ centred
        values, basis = torch.linalg.eigh(covariance / (len(images) - 1))
        dtype = torch.get_default_dtype()
        return cls(mean.to(dtype), basis.to(dtype), values.to(dtype), eps)

    def __call__(self, images: Tensor) -> Tensor:
        flat = images.flatten(1) - self.mean.to(images)
        return (flat @ self._matrix.to(images)).view(images.shape)

    def inverse(self, inputs: Tensor) -> Tensor:
        flat = inputs.flatten(1) @ self._inverse.to(inputs) + self.mean.to(inputs)
        return flat.view(inputs.shape)

    def tensors(self) -> dict[str, Tensor]:
        """What the transform is rebuilt from, together with `eps`."""
        return {"mean": self.mean, "basis": self.basis, "values": self.values}
