"""Random streams by name: every draw of a distillation comes from a generator keyed by what it is for.

A key such as `("augment", outer, inner, class)` always gives the same numbers, whatever was drawn before it and
in whatever order. Resuming, sharding over classes and skipping work therefore need no saved generator state.
All streams live on the CPU, so the same seed draws the same numbers on every device.
"""

import hashlib
import json

import torch


def derive(seed: int, *key: str | int) -> int:
    """A 63-bit seed for the stream named by `key` under `seed`."""
    digest = hashlib.blake2b(json.dumps([seed, *key]).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def stream(seed: int, *key: str | int) -> torch.Generator:
    """A fresh CPU generator for the stream named by `key` under `seed`."""
    return torch.Generator().manual_seed(derive(seed, *key))


class Shuffle:
    """An endless shuffled walk through `size` items in batches: the batch is a pure function of its number.

    Each pass is a new permutation. With `drop_last` every batch is full and the remainder of a pass is left out;
    otherwise the last batch of a pass is short. A `batch` larger than `size` is cut to it.
    """

    def __init__(self, size: int, batch: int, seed: int, *key: str | int, drop_last: bool):
        self.size, self.batch, self.seed, self.key = size, min(batch, size), seed, key
        self.per_pass = size // self.batch if drop_last else -(-size // self.batch)
        self._pass, self._order = -1, torch.empty(0, dtype=torch.int64)

    def __getitem__(self, number: int) -> torch.Tensor:
        """Indices of batch `number`, counted from 0 over all passes: int64, at most [batch]."""
        current, position = divmod(number, self.per_pass)
        if current != self._pass:
            generator = stream(self.seed, *self.key, current)
            self._pass, self._order = current, torch.randperm(self.size, generator=generator)
        return self._order[position * self.batch : (position + 1) * self.batch]
