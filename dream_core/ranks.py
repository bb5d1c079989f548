"""Several processes, a device each, for one distillation: every rank has classes of its own, and all have the result.

Between two updates of the network nothing of a class depends on another (random streams are keyed by class, the pixels'
momentum is a closed form of the class's number), so that a rank matches its own classes and takes from the others what
they found for theirs. Networks are trained by every rank alike. Whatever the number of ranks, the bytes are the same.

    with joined(rank, count, meeting, device) as ranks:     # or, under torchrun, Ranks.current()
        Distillation(recipe, dataset, device, ranks=ranks)
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from dream_core.errors import DreamError

_PATIENCE = timedelta(days=1)
"""For a rank that is late: whoever watches the run knows better how long a step may take."""
_LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"


class RankLost(RuntimeError):
    """Another rank is gone, and the run cannot go on."""


@dataclass(frozen=True)
class Ranks:
    """Which of the processes that share a run this one is; without arguments, the only one."""

    rank: int = 0
    count: int = 1

    @classmethod
    def current(cls) -> "Ranks":
        """Those of torch.distributed's process group where there is one, as under torchrun; else one rank alone.

        The group must have a backend for tensors on CPUs besides that for its devices: `cpu:gloo,cuda:nccl`.
        """
        return cls(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else cls()

    def own(self, classes: int) -> range:
        """The classes of this rank."""
        return range(self.rank, classes, self.count)

    def gather(self, mine: Sequence[Tensor], classes: int) -> list[Tensor]:
        """What all ranks have, one tensor a class in the order of classes; `mine` are those of this rank's own.

        They may differ in their first dimension alone. To be called by all ranks. Raises RankLost.
        """
        if self.count == 1:
            return list(mine)
        first, most = mine[0], len(range(0, classes, self.count))
        sizes = self._all(torch.tensor([len(tensor.flatten()) for tensor in mine] + [0] * (most - len(mine))))
        packed = first.new_zeros(most, int(sizes.max()))
        for row, tensor in zip(packed, mine, strict=False):
            row[: tensor.numel()] = tensor.flatten()
        theirs, shape = self._all(packed), (-1, *first.shape[1:]) if first.dim() else ()
        places = [(label % self.count, label // self.count) for label in range(classes)]
        return [theirs[place][: int(sizes[place])].reshape(shape) for place in places]

    def meet(self, step: int) -> None:
        """Wait for the others. Raises DreamError where one of them is at another step, RankLost where one is gone."""
        if self.count > 1 and (steps := self._all(torch.tensor(step)).unique()).numel() > 1:
            raise DreamError(f"the ranks begin at different steps, {steps.tolist()}; give all of them the same state")

    def _all(self, mine: Tensor) -> Tensor:
        """A tensor of every rank, stacked. They have the same shape."""
        theirs = [torch.empty_like(mine) for _ in range(self.count)]
        try:
            dist.all_gather(theirs, mine)
        except RuntimeError as error:
            raise RankLost(f"rank {self.rank} of {self.count} has lost another: {error}") from error
        return torch.stack(theirs)


ALONE = Ranks()


@contextmanager
def joined(rank: int, count: int, meeting: Path, device: torch.device) -> Iterator[Ranks]:
    """Take part as one of `count` processes of this machine. They find each other by `meeting`, a file that does not
    exist yet, and talk over the loopback interface: none of it can be reached from elsewhere."""
    for backend in ("GLOO", "NCCL"):
        os.environ.setdefault(f"{backend}_SOCKET_IFNAME", _LOOPBACK)
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(device)
    backends = "cpu:gloo,cuda:nccl" if on_gpu else "gloo"
    store = dist.FileStore(str(meeting), count)  # pyright: ignore[reportPrivateImportUsage]
    dist.init_process_group(backends, store=store, rank=rank, world_size=count, timeout=_PATIENCE)
    try:
        yield Ranks(rank, count)
    finally:
        dist.destroy_process_group()
