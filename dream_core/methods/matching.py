"""DC, DSA, DM, IDC, DREAM and DREAM+: learn images that a network cannot tell from real ones by what it learns of them.

    for outer in range(outer_iterations):
        θ ← a fresh network  [DREAM+: trained on the real images once];  [IDC: S ← clamp(S, 0, 1)]
        for inner in range(inner_iterations):
            for every class c:
                R ← real images of c: random, or representatives by k-means every `interval` (DREAM)
                S_c ← the synthetic images of c  [IDC: decoded]
                ω ← one augmentation for both  [DC: none]
                g_c ← the gradient, with respect to the pixels, of
                    distance(∇_θ loss(A_ω R), ∇_θ loss(A_ω S_c))   DC, DSA, IDC
                    distance(mean φ_θ(A_ω R), mean φ_θ(A_ω S_c))   DM;  DREAM+: the sum of both
            step the pixels down g
            train θ on real images (IDC), on S (DC, DSA), or not at all (DM)

DREAM is a choice of R and of what S starts from, and goes with each of the others.

Source: algorithm 1 of DC (Zhao et al. 2021), DM (Zhao & Bilen 2023), IDC (Kim et al. 2022) and DREAM (Liu et al.
2023); their codes for everything else.
"""

from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from dream_core import networks
from dream_core.augmentation import Draw, augment
from dream_core.clustering import choose_engine
from dream_core.computing import choose_computing
from dream_core.datasets import Dataset, random_of_each
from dream_core.errors import Diverged
from dream_core.images import Normalize, to_unit
from dream_core.methods import Progress
from dream_core.methods.initialisation import initial_images
from dream_core.methods.pixel_sgd import PixelSGD
from dream_core.objectives import Matching
from dream_core.randomness import Shuffle, stream
from dream_core.ranks import ALONE, Ranks
from dream_core.recipes import MatchingRecipe
from dream_core.selection import Representatives, make_selection
from dream_core.subject import TrainingSet
from dream_core.synthetic import SyntheticSet
from dream_core.timing import Stopwatch
from dream_core.training import (
    DRAWS,
    Augmentation,
    fetcher,
    load_network_state,
    network_state,
    saved,
    sgd,
    train_epoch,
    training_step,
    under,
)

_CALIBRATION = 16
"""Real images of each class that set the statistics of batch normalisation (DC)."""


class MatchingLoop:
    """The loop above, one inner iteration at a time."""

    def __init__(
        self,
        recipe: MatchingRecipe,
        dataset: Dataset,
        device: torch.device,
        state: dict[str, Tensor] | None = None,
        synchronize: bool = False,
        cache: Path | None = None,
        ranks: Ranks = ALONE,
    ):
        self.recipe, self.dataset, self.device, self.ranks = recipe, dataset, device, ranks
        self.classes, self.channels = len(dataset.class_names), dataset.train.images.shape[1]
        self.normalize = Normalize(dataset.mean, dataset.std)
        self.watch = Stopwatch(device, synchronize)
        self.step_number = 0
        ranks.meet(-1 if state is None else int(state["step"]))
        self.computing = choose_computing(recipe, recipe.worth_compiling, device)
        engine = choose_engine(recipe.clustering, device)
        representatives = Representatives(recipe, engine, self.normalize, device, self.watch, self.computing)
        self.selection = make_selection(recipe, dataset.train, representatives)
        self.augmentation_net = Augmentation(recipe.augmentation_net, recipe.composition, recipe.mix_p_net)
        self.batches = Shuffle(len(dataset.train), recipe.batch_real, recipe.seed, "train", drop_last=False)
        self.batches_taken = 0
        self.new_network(warm=state is None)
        space = self.normalize if recipe.space == "normalized" else None
        images = (
            initial_images(recipe, dataset.train, representatives, self.network, space, ranks).to(device)
            if state is None
            else torch.empty_like(state["images"], device=device)
        )
        self.synthetic = SyntheticSet(images, self.classes, recipe.ipc, recipe.factor, recipe.formation, space)
        self.image_sgd = PixelSGD(self.synthetic, recipe.lr_img, recipe.momentum_img, recipe.image_step == "joint")
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
            if self.synthetic.space is None:
                self.synthetic.images.clamp_(0, 1)
        if self.calibrates:
            self.calibrate(outer, inner)
        if self.mixes_classes:
            losses, gradients = self.match_together(outer, inner)
        else:
            matched = zip(*(self.match_class(c, outer, inner) for c in self.ranks.own(self.classes)), strict=True)
            losses, gradients = (self.ranks.gather(found, self.classes) for found in matched)
            self.selection.share(self.ranks, outer, inner)
        loss = float(torch.stack(losses).mean())
        if not (loss < float("inf") and all(bool(gradient.isfinite().all()) for gradient in gradients)):
            told = f"the matching loss became {loss} at step {self.step_number + 1}"
            raise Diverged(f"{told}; lower lr_img or lr_net")
        for label, gradient in enumerate(gradients):
            self.image_sgd.step(label, gradient)
        with self.watch("network"):
            self.train_network(outer, inner)
        self.step_number += 1
        return Progress(self.step_number, self.recipe.steps, loss, self.watch.take())

    def match_class(self, label: int, outer: int, inner: int) -> tuple[Tensor, Tensor]:
        """The loss of a class, detached, and its gradient with respect to the class's pixels."""
        chosen = self.selection.batch(label, self.network, outer, inner)
        with self.watch("matching"):
            stored = self.image_sgd.at_turn(label)
            real, synthetic = self.inputs(label, chosen, stored, outer, inner)
            loss, pull = self.objective.match(real, synthetic, label)
            (gradient,) = torch.autograd.grad(synthetic, stored, pull)
        return loss, gradient

    def match_together(self, outer: int, inner: int) -> tuple[list[Tensor], list[Tensor]]:
        """The same for all classes in one batch, so that batch normalisation sees them mixed (DM)."""
        chosen = [self.selection.batch(label, self.network, outer, inner) for label in range(self.classes)]
        with self.watch("matching"):
            stored = [self.image_sgd.at_turn(label) for label in range(self.classes)]
            batches = [self.inputs(c, chosen[c], stored[c], outer, inner) for c in range(self.classes)]
            losses = self.objective.loss_together([real for real, _ in batches], [fake for _, fake in batches])
            gradients = torch.autograd.grad(torch.stack(losses).sum(), stored)
        return [loss.detach() for loss in losses], list(gradients)

    def inputs(self, label: int, chosen: Tensor, stored: Tensor, outer: int, inner: int) -> tuple[Tensor, Tensor]:
        """What the network is shown of a class: real images and stored ones, decoded, under one augmentation."""
        recipe, key = self.recipe, (outer, inner, label)
        synthetic = self.decode(stored)
        if len(synthetic) > recipe.batch_syn_max:
            some = torch.randperm(len(synthetic), generator=stream(recipe.seed, "sample", *key))
            synthetic = synthetic[some[: recipe.batch_syn_max].to(self.device)]
        generator = stream(recipe.seed, "augment", *key)
        draw: Draw = DRAWS[recipe.composition](recipe.augmentation, 1, recipe.image_size, generator)
        real = self.normalize(to_unit(self.dataset.train.of_class(label)[chosen], self.device))
        return augment(real, draw), augment(synthetic, draw)

    def train_network(self, outer: int, inner: int) -> None:
        """Train θ between two inner iterations, on what the recipe says."""
        if self.recipe.network_data == "real":
            self.train_on_real(self.recipe.n_data)
        elif self.recipe.network_data == "synthetic" and inner + 1 < self.recipe.inner_iterations:
            self.train_on_synthetic(outer, inner)

    def train_on_real(self, least: int) -> None:
        """At least so many further images of the shuffled training set."""
        seen, fetch = 0, fetcher(self.dataset.train, self.normalize, self.device)
        while seen < least:
            images, labels = fetch(self.batches[self.batches_taken])
            generator = stream(self.recipe.seed, "train", self.batches_taken)
            training_step(self.logits, self.network_sgd, images, labels, self.augmentation_net, generator)
            seen += len(labels)
            self.batches_taken += 1

    @torch.no_grad()
    def synthetic_inputs(self) -> tuple[Tensor, Tensor]:
        """All synthetic images as the network sees them, and their labels."""
        inputs = [self.decode(self.synthetic.of_class(label)) for label in range(self.classes)]
        labels = torch.arange(self.classes, device=self.device).repeat_interleave(len(inputs[0]))
        return torch.cat(inputs), labels

    def train_on_synthetic(self, outer: int, inner: int) -> None:
        """`epochs_net` passes over the synthetic images as they are now."""
        inputs, labels = self.synthetic_inputs()
        key = ("train synthetic", outer, inner)
        batches = Shuffle(len(inputs), self.recipe.batch_net, self.recipe.seed, *key, "order", drop_last=False)
        fetch = lambda batch: (inputs[batch], labels[batch])  # noqa: E731
        self.network.train()
        for epoch in range(self.recipe.epochs_net):
            how = self.augmentation_net
            train_epoch(self.logits, self.network_sgd, batches, epoch, fetch, how, self.recipe.seed, key)

    def new_network(self, warm: bool = True) -> None:
        """A fresh θ with a fresh optimiser, for the outer iteration that begins."""
        recipe, outer = self.recipe, self.step_number // self.recipe.inner_iterations
        generator = stream(recipe.seed, "network", outer)
        self.network = networks.matched_network(recipe, self.channels, self.classes, generator, self.device)
        self.network.train()
        self.network_sgd = sgd(self.network, recipe.lr_net, recipe.momentum_net, recipe.weight_decay_net)
        self.logits = partial(self.computing.logits, self.network)
        self.objective = Matching(self.network, recipe.objective, recipe.metric, recipe.matched, self.computing)
        norms = [module for module in self.network.modules() if isinstance(module, nn.BatchNorm2d)]
        self.mixes_classes = bool(norms) and recipe.objective == "feature"
        self.calibrates = norms if norms and recipe.network_data == "synthetic" else []
        if warm and recipe.warmup_epochs:
            with self.watch("warm-up"):
                self.train_on_real(round(recipe.warmup_epochs * len(self.dataset.train)))

    def calibrate(self, outer: int, inner: int) -> None:
        """Let batch normalisation see real images of all classes, then hold its statistics (DC)."""
        train = self.dataset.train
        some = random_of_each(train, _CALIBRATION, self.recipe.seed, "calibrate", outer, inner)
        self.network.train()
        with torch.no_grad():
            self.network(self.normalize(to_unit(train.images[some], self.device)))
        for norm in self.calibrates:
            norm.eval()

    def decode(self, stored: Tensor) -> Tensor:
        """Network inputs that stored images stand for. They are decoded as pixels, wherever they are learned."""
        space = self.synthetic.space
        if space is None:
            return self.normalize(self.synthetic.decode(stored))
        return stored if self.recipe.factor == 1 else space(self.synthetic.decode(space.inverse(stored)))

    # ------------------------------------------------------------ the result, saving and resuming

    def training_set(self, images: Tensor | None = None, labels: Tensor | None = None) -> TrainingSet:
        """The decoded images, normalised for training."""
        if images is None or labels is None:
            images, labels = self.synthetic.decoded()
        return TrainingSet(images, labels, self.normalize)

    def state_dict(self) -> dict[str, Tensor]:
        """All that the next step depends on, as copies."""
        state = {
            "step": torch.tensor(self.step_number),
            "batches_taken": torch.tensor(self.batches_taken),
            "images": self.synthetic.images,
            "images_momentum": self.image_sgd.momentum_buffer,
        }
        state |= network_state(self.network, self.network_sgd)
        return saved(state | {f"selection.{name}": value for name, value in self.selection.state_dict().items()})

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from `state_dict()` of a loop with the same recipe and dataset."""
        self.step_number, self.batches_taken = int(state["step"]), int(state["batches_taken"])
        self.synthetic.images.copy_(state["images"])
        self.image_sgd.momentum_buffer.copy_(state["images_momentum"])
        self.new_network(warm=False)
        load_network_state(self.network, self.network_sgd, state)
        self.selection.load_state_dict(under("selection.", state))
