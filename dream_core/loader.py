"""Load a synthetic dataset with PyTorch alone.

    from load import load
    images, labels = load()                  # normalised, ready to train on: float32 [M, C, H, W], int64 [M]
    images, labels = load(normalized=False)  # the same in [0, 1]
    stored, labels = load(decoded=False)     # as stored, several images in one where manifest.json says factor > 1

This file lies in every downloaded result and needs nothing from the project that made it. The format of the tensors
is safetensors: https://github.com/huggingface/safetensors.
"""

import json
from pathlib import Path

import torch

DTYPES = {"F32": torch.float32, "F16": torch.float16, "I64": torch.int64, "U8": torch.uint8}


def load(
    directory: str | Path = Path(__file__).parent, decoded: bool = True, normalized: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and labels of the result in a directory.

    Train on them as they come and normalise real test images with the same `mean` and `std`, which
    `manifest.json` holds under `preprocessing`: images that are normalised otherwise score far lower.
    """
    directory = Path(directory)
    manifest = json.loads((directory / "manifest.json").read_text(encoding="utf-8"))
    tensors = read_safetensors(directory / ("decoded.safetensors" if decoded else "synthetic.safetensors"))
    images, labels = tensors["images"], tensors["labels"]
    if normalized:
        mean, std = (torch.tensor(manifest["preprocessing"][name]).view(1, -1, 1, 1) for name in ("mean", "std"))
        images = (images - mean) / std
    return images, labels


def read_safetensors(path: str | Path) -> dict[str, torch.Tensor]:
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
