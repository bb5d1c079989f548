"""DD: learn images and step sizes such that a fresh network that takes these very steps does well on real images.

    repeat:
        θ_0 ← a fresh network;  B ← a batch of real images
        for k = 1 … K:   θ_k ← θ_{k−1} − η_k ∇_θ loss(S_k; θ_{k−1})
        step S and η by Adam down  loss(B; θ_K)

The images are split over `distill_steps` steps. They are taken `distill_epochs` times, each time at rates of their
own.

Source: DD (Wang et al. 2018), algorithm 1; its code for the parametrisation of the rates and all settings.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from dream_core import networks
from dream_core.computing import PLAIN
from dream_core.datasets import Dataset
from dream_core.errors import Diverged
from dream_core.images import Normalize
from dream_core.methods import Progress
from dream_core.methods.unrolling import Batch, Unroller
from dream_core.randomness import Shuffle, derive, stream
from dream_core.recipes import UnrolledRecipe
from dream_core.subject import Replay, TrainingSet
from dream_core.synthetic import SyntheticSet
from dream_core.timing import Stopwatch
from dream_core.training import fetcher, saved

_MARGIN = 4


class Unrolled:
    """The loop above, one iteration at a time."""

    computing = PLAIN

    def __init__(
        self,
        recipe: UnrolledRecipe,
        dataset: Dataset,
        device: torch.device,
        state: dict[str, Tensor] | None = None,
        synchronize: bool = False,
        cache: Path | None = None,
    ):
        self.recipe, self.dataset, self.device = recipe, dataset, device
        self.normalize, self.watch = Normalize(dataset.mean, dataset.std), Stopwatch(device, synchronize)
        self.step_number, self.classes = 0, len(dataset.class_names)
        shape = (recipe.ipc * self.classes, *dataset.train.images.shape[1:])
        images = torch.randn(shape, generator=stream(recipe.seed, "init")).to(device)
        self.synthetic = SyntheticSet(images, self.classes, recipe.ipc, space=self.normalize)
        self.order = step_order(self.classes, recipe.ipc, recipe.distill_steps, recipe.distill_epochs)
        start = recipe.lr_steps + torch.tensor(-recipe.lr_steps).expm1().neg().log()  # the inverse of softplus
        self.raw_rates = start.expand(len(self.order)).clone().to(device)
        self.adam = torch.optim.Adam([images, self.raw_rates], recipe.lr, betas=(recipe.beta1, recipe.beta2))
        self.real = Shuffle(len(dataset.train), recipe.batch_real, recipe.seed, "real", drop_last=False)
        if state is not None:
            self.load_state_dict(state)

    def step(self) -> Progress:
        """One iteration. Raises Diverged where the loss is no longer finite."""
        with self.watch("unrolling"):
            found = [self.gradients(number) for number in range(self.recipe.networks)]
        loss = sum(float(loss) for loss, *_ in found) / len(found)
        images, rates = (torch.stack([of[n] for of in found]).mean(0) for n in (1, 2))
        if not (loss < float("inf") and bool(images.isfinite().all() and rates.isfinite().all())):
            told = f"the loss became {loss}, or its gradient, at step {self.step_number + 1}"
            raise Diverged(f"{told}; lower lr_steps or lr")
        self.synthetic.images.grad, self.raw_rates.grad = images, rates
        decays = self.step_number // self.recipe.decay_every
        self.adam.param_groups[0]["lr"] = self.recipe.lr * self.recipe.decay**decays
        self.adam.step()
        self.step_number += 1
        return Progress(self.step_number, self.recipe.steps, loss, self.watch.take())

    def gradients(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """Of one network: the loss after all steps, and its gradients with respect to the images and the raw rates."""
        network = self.network(number)
        unroller = Unroller(network)
        raw = self.raw_rates.detach().requires_grad_()
        rates = F.softplus(raw)
        steps, values = [self.batch(indices) for indices in self.order], rates.detach().tolist()
        path = unroller.unroll(list(network.parameters()), steps, values)
        last = [p.requires_grad_() for p in path[-1]]
        loss = unroller.loss(last, *self.real_batch())
        by_step, by_rate = unroller.backward(path, steps, values, torch.autograd.grad(loss, last))
        images = torch.zeros_like(self.synthetic.images)
        for indices, gradient in zip(self.order, by_step, strict=True):
            images[indices] += gradient
        (by_raw,) = torch.autograd.grad(rates, raw, torch.stack(by_rate))
        return loss.detach(), images, by_raw

    def batch(self, indices: Tensor) -> Batch:
        """The synthetic images of a step."""

        def images() -> tuple[Tensor, Tensor, Tensor]:
            leaf = self.synthetic.images[indices].detach().requires_grad_()
            return leaf, leaf, self.synthetic.labels[indices].to(self.device)

        return images

    def network(self, number: int) -> networks.Network:
        """The network of this iteration, of several the one of that number."""
        key = ("fixed",) if self.recipe.fixed_init else (self.step_number, number)
        generator = stream(self.recipe.seed, "network", *key)
        channels = self.dataset.train.images.shape[1]
        network = networks.matched_network(
            self.recipe, channels, self.classes, generator, self.device, self.recipe.initialization
        )
        return network.train()

    def real_batch(self) -> tuple[Tensor, Tensor]:
        """The real images of this iteration, normalised, and their labels."""
        images, labels = fetcher(self.dataset.train, self.normalize, self.device)(self.real[self.step_number])
        if self.recipe.crop_and_flip:
            images = crop_and_flip(images, stream(self.recipe.seed, "augment", self.step_number))
        return images, labels

    def training_set(self, images: Tensor | None = None, labels: Tensor | None = None) -> TrainingSet:
        """The images with the steps and rates that they were learned for."""
        if images is None or labels is None:
            images, labels = self.synthetic.decoded()
        seed = derive(self.recipe.seed, "network", "fixed") if self.recipe.fixed_init else None
        replay = Replay(self.order, F.softplus(self.raw_rates).detach().cpu(), self.recipe.initialization, seed)
        return TrainingSet(images, labels, self.normalize, replay=replay)

    def state_dict(self) -> dict[str, Tensor]:
        """All that the next step depends on, as copies."""
        state = {"step": torch.tensor(self.step_number), "images": self.synthetic.images, "raw_rates": self.raw_rates}
        for name, leaf in (("images", self.synthetic.images), ("raw_rates", self.raw_rates)):
            state |= {f"adam.{name}.{key}": value for key, value in self.adam.state[leaf].items()}
        return saved(state)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from `state_dict()` of a run with the same recipe and dataset."""
        self.step_number = int(state["step"])
        for name, leaf in (("images", self.synthetic.images), ("raw_rates", self.raw_rates)):
            leaf.copy_(state[name])
            prefix = f"adam.{name}."
            adam = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
            self.adam.state[leaf] = {  # Adam counts its steps on the CPU, wherever the rest is
                key: value.clone().to("cpu" if key == "step" else leaf.device) for key, value in adam.items()
            }


def step_order(classes: int, ipc: int, steps: int, epochs: int) -> list[Tensor]:
    """The images of every gradient step, of a set sorted by class: `ipc / steps` of each class, class by class.

    The steps are repeated `epochs` times.
    """
    per_step = ipc // steps
    of_class = torch.arange(classes)[:, None] * ipc
    once = [(of_class + torch.arange(k * per_step, (k + 1) * per_step)).flatten() for k in range(steps)]
    return once * epochs


def crop_and_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Every image moved by up to 4 pixels over its own reflection, and mirrored half the time."""
    n, _, height, width = images.shape
    down, right = torch.randint(2 * _MARGIN + 1, (2, n), generator=generator).to(images.device)
    mirrored = (torch.rand(n, generator=generator) < 0.5).to(images.device)
    padded = F.pad(images, (_MARGIN,) * 4, mode="reflect")
    rows = (down[:, None] + torch.arange(height, device=images.device))[:, None, :, None]
    columns = (right[:, None] + torch.arange(width, device=images.device))[:, None, None, :]
    every = torch.arange(n, device=images.device)[:, None, None, None]
    channels = torch.arange(images.shape[1], device=images.device)[None, :, None, None]
    cropped = padded[every, channels, rows, columns]
    return torch.where(mirrored[:, None, None, None], cropped.flip(3), cropped)
