"""Load a synthetic dataset with PyTorch alone.

    from load import load
    images, labels = load()                  # network inputs, ready to train on: float32 [M, C, H, W], int64 [M]
    images, labels = load(normalized=False)  # the same as pixels
    stored, labels = load(decoded=False)     # as stored, several images in one where manifest.json says factor > 1

Real test images, in [0, 1], go through `transform()`. `manifest.json` says under `training` how the set was meant to be
used: `train` on it; `replay` its `steps()`; or train on the `soft_epoch(n)`s that a teacher labelled.

This file lies in every downloaded result and needs nothing from the project that made it. The format of the tensors
is safetensors: https://github.com/huggingface/safetensors.
"""

import json
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

HERE = Path(__file__).parent
DTYPES = {"F32": torch.float32, "F64": torch.float64, "F16": torch.float16, "I64": torch.int64, "U8": torch.uint8}


def load(directory: str | Path = HERE, decoded: bool = True, normalized: bool = True) -> tuple[Tensor, Tensor]:
    """Images and labels of the result in a directory.

    Train on them as they come, and put real test images through `transform()`: images that are prepared otherwise
    score far lower.
    """
    tensors = read_safetensors(Path(directory) / ("decoded.safetensors" if decoded else "synthetic.safetensors"))
    images = transform(directory)(tensors["images"]) if normalized else tensors["images"]
    return images, tensors["labels"]


def transform(directory: str | Path = HERE) -> Callable[[Tensor], Tensor]:
    """What makes network inputs of images in [0, 1], float [N, C, H, W]: normalisation, or whitening (ZCA)."""
    preparation = json.loads((Path(directory) / "manifest.json").read_text(encoding="utf-8"))["preprocessing"]
    if preparation["zca"]:
        zca = read_safetensors(Path(directory) / preparation["zca"]["file"])
        deviation = (zca["values"].double().clamp_min(0) + preparation["zca"]["eps"]).sqrt()
        matrix = (zca["basis"].double() / deviation @ zca["basis"].double().T).float()
        return lambda images: ((images.flatten(1) - zca["mean"]) @ matrix).view(images.shape)
    mean, std = (torch.tensor(preparation[name]).view(1, -1, 1, 1) for name in ("mean", "std"))
    return lambda images: (images - mean) / std


def steps(directory: str | Path = HERE) -> list[tuple[Tensor, Tensor, float]]:
    """Inputs, labels and rate of every gradient step, in order, of a set that is to be replayed."""
    images, labels = load(directory)
    plan = read_safetensors(Path(directory) / "steps.safetensors")
    return [
        (images[indices], labels[indices], float(rate))
        for indices, rate in zip(plan["order"], plan["rates"], strict=True)
    ]


def soft_epoch(epoch: int, directory: str | Path = HERE) -> tuple[Tensor, Tensor]:
    """Inputs [M, C, H, W] of an epoch, counted from 0, and the teacher's logits for them, float32 [M, classes]."""
    manifest = json.loads((Path(directory) / "manifest.json").read_text(encoding="utf-8"))
    soft = read_safetensors(Path(directory) / "soft_labels.safetensors")
    images, _ = load(directory)
    epoch %= len(soft["seeds"])
    return views(images, soft["seeds"][epoch], **manifest["training"]["view"]), soft["logits"][epoch].float()


def read_safetensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, by name. No code in the file is run: there is none."""
    raw = bytearray(Path(path).read_bytes())
    start = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:start])
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = (start + offset for offset in entry["data_offsets"])
            flat = torch.frombuffer(raw[begin:end], dtype=DTYPES[entry["dtype"]])
            tensors[name] = flat.reshape(entry["shape"])
    return tensors


# ---------------------------------------------------------------- views: what a seed makes of an image


def views(inputs: Tensor, seeds: Tensor, view: str, flip: bool, mixing: str, alpha: float) -> Tensor:
    """Inputs [M, C, H, W] as their seeds, int64 [M], vary them, each mixed with the view of another image.

    `mixing` is `none`, `mixup` (a share of both, Beta(alpha, alpha)) or `cutmix` (a box of the other).
    """
    seen = varied(inputs, seeds, view, flip)
    if mixing == "none":
        return seen
    side = inputs.shape[-1]
    mixed = seen.clone()
    for image, seed in enumerate(seeds.tolist()):
        generator = torch.Generator().manual_seed(seed ^ 1)  # another stream than that of `varied`
        other = seen[int(torch.randint(len(seen), (1,), generator=generator))]
        if mixing == "mixup":
            share = beta(alpha, generator)
            mixed[image] = share * seen[image] + (1 - share) * other
        else:
            half = int(side * float(torch.rand(1, generator=generator)) ** 0.5) // 2
            row, column = torch.randint(side, (2,), generator=generator).tolist()
            rows, columns = (slice(max(at - half, 0), at + half) for at in (row, column))
            mixed[image, :, rows, columns] = other[:, rows, columns]
    return mixed


def varied(inputs: Tensor, seeds: Tensor, view: str, flip: bool) -> Tensor:
    """Inputs [M, C, H, W] shifted by up to an eighth (`shift`) or cropped and resized (`resized`), and mirrored.

    A seed for every image, int64 [M], or one for all, [1]. A shift lets zeros in, the mean colour.
    """
    thetas = []
    for seed in seeds.tolist():
        u = torch.rand(5, generator=torch.Generator().manual_seed(seed)).tolist()
        if view == "shift":
            reach, side = int(inputs.shape[-1] * 0.125 + 0.5), inputs.shape[-1]
            width = height = 1.0
            x, y = (2 * (int(share * (2 * reach + 1)) - reach) / side for share in u[2:4])
        else:
            area, ratio = 0.08 + 0.92 * u[0], (3 / 4) * (16 / 9) ** u[1]
            width, height = min(1.0, (area * ratio) ** 0.5), min(1.0, (area / ratio) ** 0.5)
            x, y = (2 * u[2] - 1) * (1 - width), (2 * u[3] - 1) * (1 - height)
        mirror = -1.0 if flip and u[4] < 0.5 else 1.0
        thetas.append([[mirror * width, 0.0, x], [0.0, height, y]])
    theta = torch.tensor(thetas, dtype=inputs.dtype, device=inputs.device).expand(len(inputs), 2, 3)
    grid = F.affine_grid(theta, list(inputs.shape), align_corners=False)
    # beyond the image there is nothing to shift in but zeros; a crop lies within it, but for half a pixel at its edge
    beyond = "zeros" if view == "shift" else "border"
    return F.grid_sample(inputs, grid, padding_mode=beyond, align_corners=False)


def beta(alpha: float, generator: torch.Generator) -> float:
    """A draw of Beta(alpha, alpha), by Jöhnk's method."""
    while True:
        x, y = (torch.rand(2, generator=generator, dtype=torch.float64) ** (1 / alpha)).tolist()
        if 0 < x + y <= 1:
            return x / (x + y)
