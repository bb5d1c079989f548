"""MTT: learn images on which a network walks the way that experts walked on real ones.

    experts: networks trained on the real images, their parameters θ* kept after every epoch
    repeat:
        t ← an epoch below `max_start_epoch` of an expert;  θ_0 ← θ*_t
        for n = 1 … N:   θ_n ← θ_{n−1} − α ∇_θ loss(A(S); θ_{n−1})
        step S and α down  ‖θ_N − θ*_{t+M}‖² / ‖θ*_t − θ*_{t+M}‖²

Source: MTT (Cazenavette et al. 2022), algorithm 1; its code for all settings. The step size α is kept positive.
"""

from pathlib import Path

import torch
from torch import Tensor

from dream_core.augmentation import augment, draw_one
from dream_core.computing import PLAIN
from dream_core.datasets import Dataset, random_of_each
from dream_core.errors import Diverged
from dream_core.images import Normalize, Transform, Zca, to_unit
from dream_core.methods import Progress
from dream_core.methods.experts import Experts
from dream_core.methods.unrolling import Batch, Unroller, sum_of_products
from dream_core.randomness import Shuffle, stream
from dream_core.recipes import TrajectoryRecipe
from dream_core.subject import TrainingSet
from dream_core.synthetic import SyntheticSet
from dream_core.timing import Stopwatch
from dream_core.training import saved, under

_LEAST_STEP_SIZE = 1e-6


class TrajectoryMatching:
    """The loop above: an epoch of an expert at a time, then an iteration at a time."""

    computing = PLAIN

    def __init__(
        self,
        recipe: TrajectoryRecipe,
        dataset: Dataset,
        device: torch.device,
        state: dict[str, Tensor] | None = None,
        synchronize: bool = False,
        cache: Path | None = None,
    ):
        self.recipe, self.dataset, self.device = recipe, dataset, device
        self.step_number, self.classes = 0, len(dataset.class_names)
        self.watch = Stopwatch(device, synchronize)
        normalize = Normalize(dataset.mean, dataset.std)
        self.space: Transform = Zca.fit(dataset.train.images, recipe.zca_eps) if recipe.zca else normalize
        self.experts = Experts(recipe, dataset, self.space, device, cache)
        self.unroller = Unroller(self.experts.fresh_network(0))
        self.synthetic = SyntheticSet(self.initial_images().to(device), self.classes, recipe.ipc, space=self.space)
        self.step_size = torch.tensor(recipe.lr_student, device=device)
        self.images_momentum = torch.zeros_like(self.synthetic.images)
        self.step_size_momentum = torch.zeros_like(self.step_size)
        if state is not None:
            self.load_state_dict(state)

    def step(self) -> Progress:
        """An epoch of an expert, or an iteration. Raises Diverged where the loss is no longer finite."""
        if self.step_number < self.experts.epochs:
            with self.watch("experts"):
                loss, self.step_number = self.experts.step(self.step_number)
            return Progress(self.step_number, self.recipe.steps, loss, self.watch.take(), "pretraining")
        with self.watch("matching"):
            loss = self.iterate(self.step_number - self.experts.epochs)
        self.step_number += 1
        return Progress(self.step_number, self.recipe.steps, loss, self.watch.take())

    # ------------------------------------------------------------ the algorithm

    def iterate(self, iteration: int) -> float:
        """Let a student walk, and step the images and the step size towards where the expert went."""
        recipe = self.recipe
        start, target = self.experts.stretch(iteration)
        batches = [self.batch(iteration, n) for n in range(recipe.student_steps)]
        rates = [float(self.step_size)] * recipe.student_steps
        path = self.unroller.unroll(start, batches, rates)
        missed = [a - b for a, b in zip(path[-1], target, strict=True)]
        away = [a - b for a, b in zip(start, target, strict=True)]
        walked = sum_of_products(away, away)
        loss = float(sum_of_products(missed, missed) / walked)
        if not loss < float("inf"):
            raise Diverged(f"the loss became {loss} at step {self.step_number + 1}; lower lr_img, lr_student or lr_lr")
        final = [(2 * m / walked).detach() for m in missed]
        by_step, by_rate = self.unroller.backward(path, batches, rates, final)
        images = torch.zeros_like(self.synthetic.images)
        for n, gradient in enumerate(by_step):
            images.index_add_(0, self.chunk(iteration, n), gradient)
        self.descend(images, torch.stack(by_rate).sum())
        return loss

    def descend(self, images: Tensor, step_size: Tensor) -> None:
        """SGD with momentum on the pixels and on α. Raises Diverged, changing nothing, for gradients without end."""
        if not bool(images.isfinite().all() and step_size.isfinite()):
            raise Diverged(f"a gradient is not finite at step {self.step_number + 1}; lower lr_img or student_steps")
        momentum = self.recipe.momentum_img
        self.images_momentum.mul_(momentum).add_(images)
        self.step_size_momentum.mul_(momentum).add_(step_size)
        self.synthetic.images.sub_(self.images_momentum, alpha=self.recipe.lr_img)
        self.step_size.sub_(self.step_size_momentum, alpha=self.recipe.lr_lr).clamp_min_(_LEAST_STEP_SIZE)

    def chunk(self, iteration: int, n: int) -> Tensor:
        """Which synthetic images the student sees in its n-th step: passes over all of them, each newly shuffled."""
        size = self.recipe.batch_syn or len(self.synthetic.images)
        walk = Shuffle(len(self.synthetic.images), size, self.recipe.seed, "chunk", iteration, drop_last=False)
        return walk[n].to(self.device)

    def batch(self, iteration: int, n: int) -> Batch:
        """The synthetic images of a student's step, augmented alike whenever they are asked for."""
        recipe, chosen = self.recipe, self.chunk(iteration, n)

        def images() -> tuple[Tensor, Tensor, Tensor]:
            leaf = self.synthetic.images[chosen].detach().requires_grad_()
            generator = stream(recipe.seed, "augment", iteration, n)
            draw = draw_one(recipe.augmentation, len(leaf), recipe.image_size, generator)
            return leaf, augment(leaf, draw), self.synthetic.labels.to(self.device)[chosen]

        return images

    def initial_images(self) -> Tensor:
        """Random real images of every class, or noise, in the network's space."""
        recipe, train = self.recipe, self.dataset.train
        if recipe.init == "noise":
            shape = (recipe.ipc * self.classes, *train.images.shape[1:])
            return torch.randn(shape, generator=stream(recipe.seed, "init"))
        return self.space(to_unit(train.images[random_of_each(train, recipe.ipc, recipe.seed, "init")]))

    # ------------------------------------------------------------ the result, saving and resuming

    def training_set(self, images: Tensor | None = None, labels: Tensor | None = None) -> TrainingSet:
        """The images, whitened or normalised for training, with the step size that was learned."""
        if images is None or labels is None:
            images, labels = self.synthetic.decoded()
        return TrainingSet(images, labels, self.space, lr=float(self.step_size))

    def state_dict(self) -> dict[str, Tensor]:
        """All that the next step depends on, as copies. Finished experts are in the cache, or are trained again."""
        state = {
            "step": torch.tensor(self.step_number),
            "images": self.synthetic.images,
            "images_momentum": self.images_momentum,
            "step_size": self.step_size,
            "step_size_momentum": self.step_size_momentum,
        }
        return saved(state | {f"expert.{name}": value for name, value in self.experts.state_dict().items()})

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from `state_dict()` of a run with the same recipe and dataset."""
        self.step_number = int(state["step"])
        self.synthetic.images.copy_(state["images"])
        self.images_momentum.copy_(state["images_momentum"])
        self.step_size.copy_(state["step_size"])
        self.step_size_momentum.copy_(state["step_size_momentum"])
        self.experts.load_state_dict(under("expert.", state))
