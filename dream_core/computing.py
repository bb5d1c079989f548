"""How networks are computed: as they are written, or compiled; in float32, or with convolutions in bfloat16.

Compiling fuses all that lies between two convolutions into one pass over memory. It takes half a minute for every shape
of batch, once on a machine. bfloat16 halves what is moved, and multiplies on units that float32 has not; it is worth
having without a compiler, too. Neither changes what is computed but for rounding. docs/decisions/0013 has the figures.
"""

import functools
import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch._dynamo
import torch.nn.functional as F
from torch import Tensor

from dream_core.errors import DreamError
from dream_core.networks import Embedding, Network
from dream_core.recipes import Computed

log = logging.getLogger(__name__)

R = TypeVar("R")

_SHAPES = 64
"""Batch shapes of one function that are compiled. Further ones are computed as they are written."""


@dataclass(frozen=True)
class Computing:
    """A way to compute.

    Attributes:
        compiled: what is run goes through torch.compile.
        bfloat16: convolutions, and what torch.autocast takes with them, are computed in bfloat16. Weights, features,
            losses and gradients stay float32.
    """

    compiled: bool = False
    bfloat16: bool = False

    def run(self, function: Callable[..., R], *args: Any) -> R:
        """Call a function, compiled where that is on. What is compiled is kept by function, shapes and types, and
        serves every network of the same structure: the function must live as long as the process does, and take all
        that changes as tensors."""
        if not self.compiled:
            return function(*args)
        # a crop leaves strides that hang on its draw, and every other stride would be compiled anew
        args = tuple(arg.contiguous() if isinstance(arg, Tensor) else arg for arg in args)
        with torch._dynamo.config.patch(trace_autograd_ops=True, recompile_limit=_SHAPES):
            return _compiled(function)(*args)

    def embed(self, network: Embedding, images: Tensor) -> Tensor:
        """Features [N, width] of network inputs [N, C, H, W]: float32 at least."""
        return self.run(embed, network, images, self.bfloat16)

    def logits(self, network: Network, images: Tensor) -> Tensor:
        """Logits [N, classes] of network inputs [N, C, H, W]: float32 at least."""
        return self.run(logits, network, images, self.bfloat16)


PLAIN = Computing()


def embed(network: Embedding, images: Tensor, bfloat16: bool) -> Tensor:
    """`Computing.embed` inside of a function that is run."""
    with torch.autocast(images.device.type, torch.bfloat16, enabled=bfloat16):
        features = network.embed(images)
    return features.to(torch.promote_types(features.dtype, torch.float32))


def logits(network: Network, images: Tensor, bfloat16: bool) -> Tensor:
    """`Computing.logits` inside of a function that is run. The last layer costs little: it is never in bfloat16."""
    return network.classifier(embed(network, images, bfloat16)) if bfloat16 else network(images)


def filled_up(images: Tensor, count: int) -> Tensor:
    """Images [N, C, H, W] with black ones after them, to [count, C, H, W]: every further shape is compiled anew."""
    return F.pad(images, (0, 0) * 3 + (0, count - len(images)))


@functools.cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(function, fullgraph=True, dynamic=False)


# ---------------------------------------------------------------- what a recipe gets on a device


def choose_computing(recipe: Computed, worth: bool, device: torch.device) -> Computing:
    """What the recipe asks for; where it leaves that open, what is fastest here and loses no accuracy.

    `worth` says whether there is more to compute than compiling takes. Raises DreamError where the recipe asks for what
    cannot be had here.
    """
    compiled = recipe.compiled == "on" or (recipe.compiled == "auto" and worth)
    bfloat16 = recipe.precision == "bfloat16" or (recipe.precision == "auto" and compiled and has_bfloat16(device))
    if compiled and (missing := lacks_compiler(device.type)):
        if recipe.compiled == "on":
            raise DreamError(f"compiled=on cannot be had here: {missing}; mend that, or use auto or off")
        log.info("networks are not compiled: %s", missing)
        compiled = False
    return Computing(compiled, bfloat16)


@functools.cache
def lacks_compiler(device_type: str) -> str | None:
    """Why torch.compile does not work in this process, in words; None where it does."""
    compiler = os.environ.get("CXX", "g++")
    if not hasattr(torch._dynamo.config, "trace_autograd_ops"):
        return f"PyTorch {torch.__version__} does not compile gradients of gradients"
    if device_type == "cpu" and not shutil.which(compiler):
        return f"there is no C++ compiler {compiler}"
    try:
        _compiled(torch.neg)(torch.ones(2, device=device_type))
    except RuntimeError as error:  # all that TorchDynamo and Inductor raise
        return f"compiling failed ({str(error).strip().splitlines()[0]})"
    return None


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 itself. Elsewhere it is emulated, and many times slower."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
