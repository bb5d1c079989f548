"""SRe2L: squeeze the data into a teacher, recover images from it, have it label many views of them.

    squeeze:  train a teacher with batch normalisation on the real images
    recover:  for every image per class:  x ← noise, one image of every class
              step x by Adam down  loss(teacher(A x)) + r Σ_l w_l (‖μ_l(x) − μ̂_l‖ + ‖σ²_l(x) − σ̂²_l‖);  clamp x
    relabel:  for every epoch, store what the teacher says of a view of every image

    μ_l, σ²_l: statistics of the batch before the l-th normalisation; μ̂_l, σ̂²_l: the running ones of the real images.

Source: SRe2L (Yin et al. 2023), section 3; its code for all settings.
"""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dream_core import loader, networks
from dream_core.cache import NetworkCache
from dream_core.computing import PLAIN
from dream_core.datasets import Dataset
from dream_core.errors import Diverged
from dream_core.images import Normalize, to_unit
from dream_core.methods import Progress
from dream_core.randomness import Shuffle, derive, stream
from dream_core.recipes import RecoveryRecipe
from dream_core.subject import SoftLabels, TrainingSet
from dream_core.synthetic import SyntheticSet
from dream_core.timing import Stopwatch
from dream_core.training import (
    Augmentation,
    fetcher,
    load_network_state,
    network_state,
    pretrain_epoch,
    saved,
    sgd,
    warm_cosine,
)

_TEACHER = "teacher"
_DECIDE_TEACHER = {
    "image_size", "network", "depth", "width", "norm", "activation", "pooling", "flip", "squeeze_epochs",
    "squeeze_batch", "squeeze_lr", "squeeze_momentum", "squeeze_weight_decay", "squeeze_warmup", "teacher_seed",
}  # fmt: skip
_BATCH = 256


class Recovery:
    """The three stages above: an epoch of the teacher, a step of one image per class, an epoch of labels at a time."""

    computing = PLAIN

    def __init__(
        self,
        recipe: RecoveryRecipe,
        dataset: Dataset,
        device: torch.device,
        state: dict[str, Tensor] | None = None,
        synchronize: bool = False,
        cache: Path | None = None,
    ):
        self.recipe, self.dataset, self.device = recipe, dataset, device
        self.normalize, self.watch = Normalize(dataset.mean, dataset.std), Stopwatch(device, synchronize)
        self.step_number, self.classes, self.channels = 0, len(dataset.class_names), dataset.train.images.shape[1]
        shape = (recipe.ipc * self.classes, *dataset.train.images.shape[1:])
        images = torch.randn(shape, generator=stream(recipe.seed, "init")).to(device)
        self.synthetic = SyntheticSet(images, self.classes, recipe.ipc, space=self.normalize, bounded=True)
        self.adam = {"exp_avg": torch.zeros_like(images), "exp_avg_sq": torch.zeros_like(images)}
        self.logits: list[Tensor] = []
        about = recipe.model_dump(include=_DECIDE_TEACHER)
        about |= {"dataset": dataset.fingerprint, "kind": _TEACHER, "device": device.type}
        self.cache = NetworkCache(cache, about)
        self.teacher = networks.matched_network(
            recipe, self.channels, self.classes, stream(recipe.teacher_seed, _TEACHER), device
        )
        self.teacher_sgd = sgd(self.teacher, recipe.squeeze_lr, recipe.squeeze_momentum, recipe.squeeze_weight_decay)
        if state is not None:
            self.load_state_dict(state)

    def step(self) -> Progress:
        """One step of the stage at hand. Raises Diverged where a loss is no longer finite."""
        recipe, number = self.recipe, self.step_number
        recovered = recipe.squeeze_epochs + recipe.ipc * recipe.iterations
        if number < recipe.squeeze_epochs:
            phase, loss = "pretraining", self.squeeze(number)
        elif number < recovered:
            index, iteration = divmod(number - recipe.squeeze_epochs, recipe.iterations)
            phase, loss = "distilling", self.recover(index, iteration)
        else:
            phase, loss = "relabelling", self.relabel(number - recovered)
        self.step_number += 1
        return Progress(self.step_number, recipe.steps, loss, self.watch.take(), phase)

    # ------------------------------------------------------------ squeeze

    def squeeze(self, epoch: int) -> float:
        """Train the teacher for an epoch. One that the cache has is taken from there, all epochs in one step."""
        recipe, train = self.recipe, self.dataset.train
        if epoch == 0 and (kept := self.cache.load(_TEACHER)):
            self.teacher.load_state_dict(kept)
            self.step_number = recipe.squeeze_epochs - 1
            return 0.0
        fetch = fetcher(train, self.normalize, self.device)
        teacher, seed = (self.teacher, self.teacher_sgd), recipe.teacher_seed
        self.teacher_sgd.param_groups[0]["lr"] = squeeze_rate(recipe, epoch)
        batches = Shuffle(len(train), recipe.squeeze_batch, seed, _TEACHER, "epochs", "order", drop_last=False)
        how = Augmentation("crop_flip" if recipe.flip else "crop", "stack")
        self.teacher.train()
        with self.watch("squeeze"):
            told = "the teacher reached a loss of {loss}; lower squeeze_lr"
            loss = pretrain_epoch(*teacher, batches, epoch, fetch, how, seed, (_TEACHER, "epochs"), told)
        if epoch + 1 == recipe.squeeze_epochs:
            self.cache.save(_TEACHER, self.teacher.state_dict())
            self.teacher_sgd.state.clear()  # it learns no more
        return loss

    # ------------------------------------------------------------ recover

    def recover(self, index: int, iteration: int) -> float:
        """One Adam step for the `index`-th image of every class, `batch_syn` classes together."""
        recipe = self.recipe
        rate = recipe.lr_img * warm_cosine(iteration, recipe.iterations)
        low, high = (self.normalize(torch.full((1, self.channels, 1, 1), edge)).to(self.device) for edge in (0.0, 1.0))
        losses, updates = [], []
        with self.watch("recover"):
            for classes in torch.arange(self.classes).split(recipe.batch_syn):
                which = classes * recipe.ipc + index
                x = self.synthetic.images[which].requires_grad_()
                seen = self.views(x, stream(recipe.seed, "recover", index, iteration, int(classes[0])))
                loss = self.recovery_loss(seen, classes.to(self.device))
                losses.append(float(loss.detach()))
                updates.append((which, *torch.autograd.grad(loss, x)))
        mean = sum(losses) / len(losses)
        if not (mean < float("inf") and all(bool(gradient.isfinite().all()) for _, gradient in updates)):
            raise Diverged(f"the loss became {mean}, or its gradient, at step {self.step_number + 1}; lower r_bn")
        for which, gradient in updates:
            moved = self.synthetic.images[which] - rate * self.adam_direction(which, gradient, iteration + 1)
            self.synthetic.images[which] = torch.maximum(torch.minimum(moved, high), low)
        return mean

    def recovery_loss(self, x: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of the frozen teacher, and how far the batch's statistics are from the running ones."""
        self.teacher.eval()
        distances: list[Tensor] = []

        def compare(norm: nn.BatchNorm2d, inputs: tuple[Tensor, ...]) -> None:
            variance, mean = torch.var_mean(inputs[0], (0, 2, 3), correction=0)
            assert norm.running_mean is not None
            assert norm.running_var is not None
            distances.append((mean - norm.running_mean).norm() + (variance - norm.running_var).norm())

        hooks = [m.register_forward_pre_hook(compare) for m in self.teacher.modules() if isinstance(m, nn.BatchNorm2d)]
        try:
            loss = F.cross_entropy(self.teacher(x), labels)
        finally:
            for hook in hooks:
                hook.remove()
        distances[0] = distances[0] * self.recipe.first_bn
        return loss + self.recipe.r_bn * torch.stack(distances).sum()

    def views(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """The batch as the teacher sees it in a step: cropped and mirrored where the recipe says so, and rolled."""
        if self.recipe.crop_and_flip:
            seed = int(torch.randint(2**62, (1,), generator=generator))
            x = loader.varied(x, torch.tensor([seed]), "resized", True)
        least = -self.recipe.roll if self.recipe.roll_back else 0
        down, right = torch.randint(least, self.recipe.roll + 1, (2,), generator=generator).tolist()
        return x.roll((down, right), (2, 3))

    def adam_direction(self, which: Tensor, gradient: Tensor, count: int) -> Tensor:
        """Adam's step for some images at rate 1, betas 0.5 and 0.9; `count` is their number of steps with this one."""
        first, second = self.adam["exp_avg"], self.adam["exp_avg_sq"]
        first[which] = first[which].lerp(gradient, 0.5)
        second[which] = second[which].lerp(gradient.square(), 0.1)
        return first[which] / (1 - 0.5**count) / ((second[which] / (1 - 0.9**count)).sqrt() + 1e-8)

    # ------------------------------------------------------------ relabel

    def relabel(self, epoch: int) -> float:
        """Store what the teacher says of one view of every image; return the mean entropy of it."""
        with self.watch("relabel"):
            logits = self.labels_of(self.synthetic.decoded()[0], epoch)
            self.logits.append(logits)
        return float(torch.distributions.Categorical(logits=logits.float()).entropy().mean())

    @torch.no_grad()
    def labels_of(self, images: Tensor, epoch: int) -> Tensor:
        """The teacher's logits of an epoch's views of images in pixels: float16 [M, classes]."""
        self.teacher.eval()
        seen = loader.views(self.normalize(to_unit(images)), self.seeds(len(images), epoch), **self.view)
        return torch.cat([self.teacher(part.to(self.device)).half().cpu() for part in seen.split(_BATCH)])

    def seeds(self, count: int, epoch: int) -> Tensor:
        """The seeds of an epoch's views, one for every image: int64 [count]."""
        return torch.tensor([derive(self.recipe.seed, "view", epoch, image) for image in range(count)])

    @property
    def view(self) -> dict[str, Any]:
        """How seeds become views: the keywords of `loader.views`."""
        recipe = self.recipe
        return {"view": recipe.view, "flip": recipe.flip, "mixing": recipe.mixing, "alpha": recipe.mixup_alpha}

    # ------------------------------------------------------------ the result, saving and resuming

    def training_set(self, images: Tensor | None = None, labels: Tensor | None = None) -> TrainingSet:
        """The images with the teacher's labels of all epochs; other images are labelled here and now."""
        if images is None or labels is None:
            images, labels = self.synthetic.decoded()
            logits = self.logits
        else:
            logits = [self.labels_of(images, epoch) for epoch in range(self.recipe.label_epochs)]
        if not logits:  # not yet relabelled
            return TrainingSet(images, labels, self.normalize)
        seeds = torch.stack([self.seeds(len(images), epoch) for epoch in range(len(logits))])
        soft = SoftLabels(seeds, torch.stack(logits), self.view)
        return TrainingSet(images, labels, self.normalize, soft=soft)

    def state_dict(self) -> dict[str, Tensor]:
        """All that the next step depends on, as copies."""
        state = {"step": torch.tensor(self.step_number), "images": self.synthetic.images}
        state |= {f"adam.{name}": value for name, value in self.adam.items()}
        state |= {f"logits.{epoch}": value for epoch, value in enumerate(self.logits)}
        return saved(state | network_state(self.teacher, self.teacher_sgd))

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from `state_dict()` of a run with the same recipe and dataset."""
        self.step_number = int(state["step"])
        self.synthetic.images.copy_(state["images"])
        for name, value in self.adam.items():
            value.copy_(state[f"adam.{name}"])
        count = sum(name.startswith("logits.") for name in state)
        self.logits = [state[f"logits.{epoch}"].clone() for epoch in range(count)]
        load_network_state(self.teacher, self.teacher_sgd, state)


def squeeze_rate(recipe: RecoveryRecipe, epoch: int) -> float:
    """The teacher's learning rate."""
    return recipe.squeeze_lr * warm_cosine(
        epoch, recipe.squeeze_epochs, min(recipe.squeeze_warmup, recipe.squeeze_epochs - 1)
    )
