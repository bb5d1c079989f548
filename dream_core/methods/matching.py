"""IDC and DREAM: learn images whose loss gradients match those of real images.

    for outer in range(outer_iterations):
        θ ← a fresh network;  S ← clamp(S, 0, 1)
        for inner in range(inner_iterations):
            for every class c:
                R ← real images of c: random (IDC), or representatives by k-means every `interval` (DREAM)
                S_c ← the decoded synthetic images of c
                ω ← one augmentation for both
                step the pixels of S_c down  distance(∇_θ loss(A_ω R), ∇_θ loss(A_ω S_c))
            train θ on `n_data` random real images

Source: IDC (Kim et al. 2022), algorithm 1; DREAM (Liu et al. 2023), algorithm 1; both codes for everything else.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from dream_core import networks
from dream_core.augmentation import augment, draw_stack
from dream_core.clustering import choose_engine
from dream_core.datasets import Dataset, LabeledImages
from dream_core.errors import Diverged
from dream_core.images import Normalize, to_unit
from dream_core.objectives import GradientMatching
from dream_core.randomness import Shuffle, stream
from dream_core.recipes.schema import Recipe
from dream_core.selection import RandomSelection, Representatives, RepresentativeSelection, Selection
from dream_core.synthetic import SyntheticSet, noise, tile
from dream_core.timing import Stopwatch
from dream_core.training import sgd, training_step


@dataclass(frozen=True)
class Progress:
    """What one inner iteration did: its number from 1, the matching loss per class, where its seconds went."""

    step: int
    steps: int
    loss: float
    seconds: dict[str, float]


class MatchingLoop:
    """The loop above, one inner iteration at a time."""

    def __init__(
        self,
        recipe: Recipe,
        dataset: Dataset,
        device: torch.device,
        state: dict[str, Tensor] | None = None,
        synchronize: bool = False,
    ):
        self.recipe, self.dataset, self.device = recipe, dataset, device
        self.classes, self.channels = len(dataset.class_names), dataset.train.images.shape[1]
        self.normalize = Normalize(dataset.mean, dataset.std)
        self.watch = Stopwatch(device, synchronize)
        self.step_number = 0
        engine = choose_engine(recipe.clustering, device)
        representatives = Representatives(recipe, engine, self.normalize, device, self.watch)
        self.selection: Selection = (
            RandomSelection(recipe, dataset.train)
            if recipe.selection == "random"
            else RepresentativeSelection(recipe, dataset.train, representatives)
        )
        self.batches = Shuffle(len(dataset.train), recipe.batch_real, recipe.seed, "train", drop_last=False)
        self.batches_taken = 0
        self.new_network()
        images = (
            initial_images(recipe, dataset.train, representatives, self.network).to(device)
            if state is None
            else torch.empty_like(state["images"], device=device)
        )
        self.synthetic = SyntheticSet(images, self.classes, recipe.ipc, recipe.factor, recipe.formation)
        self.image_sgd = ClassSGD(self.synthetic, recipe.lr_img, recipe.momentum_img)
        if state is not None:
            self.load_state_dict(state)
        self.watch.take()  # the steps' seconds are the steps' own

    # ------------------------------------------------------------ the algorithm

    def step(self) -> Progress:
        """One inner iteration. Raises Diverged where the loss is no longer finite."""
        outer, inner = divmod(self.step_number, self.recipe.inner_iterations)
        if inner == 0:
            if outer > 0:  # outer iteration 0 keeps the network that chose the initial images
                self.new_network()
            self.synthetic.images.clamp_(0, 1)
        losses = [self.match_class(label, outer, inner) for label in range(self.classes)]
        with self.watch("network"):
            self.train_network()
        loss = float(torch.stack(losses).mean())
        if not loss < float("inf"):
            raise Diverged(f"the matching loss became {loss} at step {self.step_number + 1}; lower lr_img or lr_net")
        self.step_number += 1
        return Progress(self.step_number, self.recipe.steps, loss, self.watch.take())

    def match_class(self, label: int, outer: int, inner: int) -> Tensor:
        """Step the pixels of one class towards its real images' gradients; return the loss, detached."""
        recipe, key = self.recipe, (outer, inner, label)
        chosen = self.selection.batch(label, self.network, outer, inner)
        with self.watch("matching"):
            real = to_unit(self.dataset.train.of_class(label)[chosen], self.device)
            stored = self.image_sgd.open(label)
            synthetic = self.synthetic.decode(stored)
            if len(synthetic) > recipe.batch_syn_max:
                some = torch.randperm(len(synthetic), generator=stream(recipe.seed, "sample", *key))
                synthetic = synthetic[some[: recipe.batch_syn_max].to(self.device)]
            draw = draw_stack(recipe.augmentation, 1, recipe.image_size, stream(recipe.seed, "augment", *key))
            real, synthetic = (augment(self.normalize(images), draw) for images in (real, synthetic))
            loss = self.objective.loss(real, synthetic, label)
            (gradient,) = torch.autograd.grad(loss, stored)
            self.image_sgd.close(label, gradient)
        return loss.detach()

    def train_network(self) -> None:
        """Train θ on at least `n_data` further images of the shuffled training set."""
        seen = 0
        while seen < self.recipe.n_data:
            batch = self.batches[self.batches_taken]
            images = self.normalize(to_unit(self.dataset.train.images[batch], self.device))
            labels = self.dataset.train.labels[batch].to(self.device)
            generator = stream(self.recipe.seed, "train", self.batches_taken)
            how = (self.recipe.augmentation_net, self.recipe.mix_p_net)
            training_step(self.network, self.network_sgd, images, labels, *how, generator)
            seen += len(batch)
            self.batches_taken += 1

    def new_network(self) -> None:
        """A fresh θ with a fresh optimiser, for the outer iteration that begins."""
        outer = self.step_number // self.recipe.inner_iterations
        generator = stream(self.recipe.seed, "network", outer)
        self.network = networks.matched_network(self.recipe, self.channels, self.classes, generator, self.device)
        self.network.train()
        self.network_sgd = sgd(self.network, self.recipe.lr_net, self.recipe.momentum_net, self.recipe.weight_decay_net)
        self.objective = GradientMatching(self.network, self.recipe.metric)

    # ------------------------------------------------------------ saving and resuming

    def state_dict(self) -> dict[str, Tensor]:
        """All that the next step depends on, as copies. Random streams are keyed by the step and need no saving."""
        state = {
            "step": torch.tensor(self.step_number),
            "batches_taken": torch.tensor(self.batches_taken),
            "images": self.synthetic.images,
            "images_momentum": self.image_sgd.momentum_buffer,
        }
        state |= {f"network.{name}": value for name, value in self.network.state_dict().items()}
        for name, parameter in self.network.named_parameters():
            if (buffer := self.network_sgd.state[parameter].get("momentum_buffer")) is not None:
                state[f"network_momentum.{name}"] = buffer
        state |= {f"selection.{name}": value for name, value in self.selection.state_dict().items()}
        return {
            name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in state.items()
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from `state_dict()` of a loop with the same recipe and dataset."""
        self.step_number, self.batches_taken = int(state["step"]), int(state["batches_taken"])
        self.synthetic.images.copy_(state["images"])
        self.image_sgd.momentum_buffer.copy_(state["images_momentum"])
        self.new_network()
        self.network.load_state_dict(_under("network.", state))
        momentum = _under("network_momentum.", state)
        for name, parameter in self.network.named_parameters():
            if name in momentum:
                buffer = torch.empty_like(parameter.detach()).copy_(momentum[name])
                self.network_sgd.state[parameter]["momentum_buffer"] = buffer
        self.selection.load_state_dict(_under("selection.", state))


def initial_images(
    recipe: Recipe, train: LabeledImages, representatives: Representatives, network: networks.ConvNet
) -> Tensor:
    """What the pixels start from: float [classes · ipc, C, H, W] in [0, 1], real ones tiled into the factor's grid.

    `representative` takes the k-means representatives, in the features of the untrained network of outer iteration 0.
    """
    count = recipe.ipc * recipe.factor**2
    if recipe.init == "noise":
        return noise(recipe.ipc * len(train.counts), train.images.shape[1:], stream(recipe.seed, "init"))
    grids = []
    for label in range(len(train.counts)):
        images = train.of_class(label)
        match recipe.init:
            case "first":
                chosen = torch.arange(count)
            case "random":
                chosen = torch.randperm(len(images), generator=stream(recipe.seed, "init", label))[:count]
            case _:
                chosen = representatives(images, network, count, ("init", label), per_cluster=1)
        grids.append(tile(to_unit(images[chosen]), recipe.factor))
    return torch.cat(grids)


class ClassSGD:
    """SGD with momentum on the pixels, class by class, as the published code's one optimiser would do it.

    That code steps the whole tensor after every class, so that each class's pixels also coast by their momentum
    while the others take their turns: C − 1 steps with zero gradient between two of its own. Those steps are a
    geometric sum, taken here at once: `open` does the ones before the class's own turn, `close` those after it.
    The result is the sequential loop's, and classes do not touch each other.
    """

    def __init__(self, synthetic: SyntheticSet, lr: float, momentum: float):
        self.synthetic, self.lr, self.momentum = synthetic, lr, momentum
        self.momentum_buffer = torch.zeros_like(synthetic.images)

    def open(self, label: int) -> Tensor:
        """Bring a class's pixels to its turn; return them as a leaf to take the gradient of."""
        self._coast(label, steps=label)
        return self.synthetic.of_class(label).detach().clone().requires_grad_()

    def close(self, label: int, gradient: Tensor) -> None:
        """Step a class by its gradient and let it coast through the turns of the classes after it."""
        buffer = self._buffer(label).mul_(self.momentum).add_(gradient)
        self.synthetic.of_class(label).sub_(buffer, alpha=self.lr)
        self._coast(label, steps=self.synthetic.classes - 1 - label)

    def _coast(self, label: int, steps: int) -> None:
        buffer = self._buffer(label)
        distance = sum(self.momentum**n for n in range(1, steps + 1))
        self.synthetic.of_class(label).sub_(buffer, alpha=self.lr * distance)
        buffer.mul_(self.momentum**steps)

    def _buffer(self, label: int) -> Tensor:
        ipc = self.synthetic.ipc
        return self.momentum_buffer[label * ipc : (label + 1) * ipc]


def _under(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
