"""The networks that judge a set, trained one after another and as one batched model: seconds of a gradient of them all.

    python benchmarks/networks_at_once.py                    # compiling included: two minutes on two cores
    python benchmarks/networks_at_once.py --device cuda

Three ConvNets of the published size, each on its own 256 images of CIFAR-10's shape: a minibatch of an evaluation.
`torch.func.vmap` makes one network of them, whose convolutions are grouped ones. The fastest of five counts. Both ways
give the same gradients, which is checked, and a table with the machine is kept in results/networks_at_once.
"""

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # as a script, only this file's folder is searched

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call, grad, stack_module_state, vmap

from benchmarks.inner_iteration.clock import fastest
from benchmarks.machine import processor
from dream_core.computing import Computing
from dream_core.distillation import choose_device
from dream_core.networks import Network, build_network
from dream_core.randomness import stream

RESULTS = Path(__file__).parent / "results" / "networks_at_once"
SIZE, CLASSES = 32, 10
Gradients = list[dict[str, Tensor]]
"""By parameter, of each network."""
WAYS = {
    "as written": Computing(),
    "compiled": Computing(compiled=True),
    "compiled, in bfloat16": Computing(compiled=True, bfloat16=True),
}


def loss(network: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, bfloat16: bool) -> Tensor:
    """Cross-entropy of network inputs [N, C, H, W]."""
    with torch.autocast(images.device.type, torch.bfloat16, enabled=bfloat16):
        logits = network(images)
    return F.cross_entropy(logits.float(), labels)


def batched_gradients(structure: Network, parameters: dict[str, Tensor], images: Tensor, labels: Tensor,
                      bfloat16: bool) -> dict[str, Tensor]:  # fmt: skip
    """Gradients of stacked parameters [K, ...] on images [K, N, C, H, W]."""

    def of_one(parameters: dict[str, Tensor], images: Tensor, labels: Tensor) -> Tensor:
        return loss(partial(functional_call, structure, parameters), images, labels, bfloat16)

    return vmap(grad(of_one))(parameters, images, labels)


class AtOnce:
    """Networks and a minibatch for each, and the two ways to the gradients of all."""

    def __init__(self, count: int, images: int, width: int, device: torch.device):
        draws = stream(0, "networks at once")
        build = partial(build_network, "convnet", 3, CLASSES, SIZE, draws, device, width=width)
        self.networks = [build() for _ in range(count)]
        self.images = torch.randn(count, images, 3, SIZE, SIZE, generator=draws).to(device)
        self.labels = torch.randint(CLASSES, (count, images), generator=draws).to(device)
        stacked, _ = stack_module_state(list(self.networks))
        self.stacked = {name: value.detach() for name, value in stacked.items()}

    def one_after_another(self, computing: Computing) -> Gradients:
        """As evaluations are done."""
        found: Gradients = []
        for network, images, labels in zip(self.networks, self.images, self.labels, strict=True):
            named = dict(network.named_parameters())
            value = F.cross_entropy(computing.logits(network, images), labels)
            found.append(dict(zip(named, torch.autograd.grad(value, list(named.values())), strict=True)))
        return found

    def as_one(self, computing: Computing) -> Gradients:
        """Batched over the networks."""
        about = (self.networks[0], self.stacked, self.images, self.labels, computing.bfloat16)
        found = computing.run(batched_gradients, *about)
        return [{name: value[k] for name, value in found.items()} for k in range(len(self.networks))]


def measure(count: int, images: int, width: int, device: torch.device, repeats: int = 5) -> dict[str, list[float]]:
    """Seconds of both by how they are computed. Raises AssertionError where their gradients differ in float32."""
    seconds = {}
    for name, computing in WAYS.items():
        both = AtOnce(count, images, width, device)
        if not computing.bfloat16:
            torch.testing.assert_close(both.as_one(computing), both.one_after_another(computing), rtol=1e-3, atol=1e-4)
        ways = (both.one_after_another, both.as_one)
        seconds[name] = [fastest(partial(way, computing), device, repeats) for way in ways]
    return seconds


def table(found: dict[str, list[float]], machine: str, count: int, images: int) -> str:
    """Markdown."""
    head = f"| {count} networks, {images} images each | one after another, s | as one batched model, s | ratio |"
    rows = [f"| {name} | {apart:.2f} | {batched:.2f} | {apart / batched:.2f} |"
            for name, (apart, batched) in found.items()]  # fmt: skip
    return "\n".join([f"# Networks at once\n\n{machine}\n", head, "| --- | --: | --: | --: |", *rows, ""])


def main(arguments: list[str] | None = None) -> int:
    """Measure, print and keep; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=3)
    parser.add_argument("--images", type=int, default=256, help="of each network's minibatch")
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--no-keep", action="store_true")
    given = parser.parse_args(arguments)
    device = choose_device(given.device)
    found = measure(given.networks, given.images, given.width, device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    machine = f"{name}, {torch.get_num_threads()} threads, PyTorch {torch.__version__}."
    shown = table(found, machine, given.networks, given.images)
    sys.stdout.write(shown)
    if not given.no_keep:
        RESULTS.mkdir(parents=True, exist_ok=True)
        kept = {"machine": machine, "networks": given.networks, "images": given.images, "seconds": found}
        path = RESULTS / f"{device.type}.json"
        path.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
        path.with_suffix(".md").write_text(shown, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
