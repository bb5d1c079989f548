"""DREAM's inner iteration as one would first write it down: what the loop of dream_core is held against.

The network, its losses and its optimiser are those of the tests' reference, operation by operation, in eager float32;
the gradients are taken of every weight, and the last backward goes into the network as well. Which images, which
draws and which network are those of the loop. Only the augmentation and the decoding are shared with it: the
reference's own go pixel by pixel in Python, and would measure Python.
"""

import torch
from torch import Tensor

from dream_core.augmentation import augment, draw_cutmix
from dream_core.datasets import Dataset
from dream_core.images import to_unit
from dream_core.randomness import Shuffle, stream
from dream_core.recipes import MatchingRecipe
from dream_core.synthetic import decode
from dream_core.training import DRAWS, Augmentation
from tests.dream_core.reference import cross_entropy, features, logits, match_distance, network_sgd, normalize

EMBEDDED = 500
"""Images in one forward. All 5,000 of a class in one, as in the published code, are slower and take 7 GB."""


class Plain:
    """The parts of an inner iteration, each a method. Training changes the weights, and nothing else does.

    Args:
        weights: of a ConvNet with instance normalisation, in the order of its parameters.
        images: the stored synthetic images, [classes · ipc, C, H, W].
    """

    def __init__(self, recipe: MatchingRecipe, dataset: Dataset, weights: list[Tensor], images: Tensor):
        self.recipe, self.dataset, self.images = recipe, dataset, images.detach().clone()
        self.device = images.device
        self.weights = [weight.detach().clone().requires_grad_() for weight in weights]
        self.velocity = [torch.zeros_like(weight) for weight in weights]

    def match(self, label: int, chosen: Tensor, outer: int, inner: int) -> tuple[Tensor, Tensor]:
        """The loss of a class, detached, and its gradient with respect to the class's pixels."""
        recipe, key = self.recipe, (outer, inner, label)
        stored = self.images[label * recipe.ipc : (label + 1) * recipe.ipc].clone().requires_grad_()
        synthetic = decode(stored, recipe.factor, recipe.formation)
        if len(synthetic) > recipe.batch_syn_max:
            some = torch.randperm(len(synthetic), generator=stream(recipe.seed, "sample", *key))
            synthetic = synthetic[some[: recipe.batch_syn_max].to(self.device)]
        draws = DRAWS[recipe.composition]
        draw = draws(recipe.augmentation, 1, recipe.image_size, stream(recipe.seed, "augment", *key))
        gradients = []
        for images, keep_graph in (
            (self._pixels(self.dataset.train.of_class(label)[chosen]), False),
            (synthetic, True),
        ):
            inputs = augment(normalize(images, self.dataset.mean, self.dataset.std), draw)
            loss = cross_entropy(logits(self.weights, inputs), [label] * len(inputs))
            gradients.append(list(torch.autograd.grad(loss, self.weights, create_graph=keep_graph)))
        loss = match_distance(recipe.metric, *gradients)
        loss.backward()
        for weight in self.weights:
            weight.grad = None
        assert stored.grad is not None
        return loss.detach(), stored.grad

    def train(self, number: int) -> None:
        """A step of the network on a minibatch of the training set, the `number`-th of the run."""
        recipe, train = self.recipe, self.dataset.train
        batch = Shuffle(len(train), recipe.batch_real, recipe.seed, "train", drop_last=False)[number]
        how = Augmentation(recipe.augmentation_net, recipe.composition, recipe.mix_p_net)
        rates = {"lr": recipe.lr_net, "momentum": recipe.momentum_net, "decay": recipe.weight_decay_net}
        pixels = self._pixels(train.images[batch])
        self._step(pixels, train.labels[batch], how, stream(recipe.seed, "train", number), rates)

    def evaluation_epoch(self) -> None:
        """The work of an evaluation's epoch: a pass over the decoded images. (The network is the one at hand.)"""
        recipe, judged = self.recipe, self.recipe.evaluation
        images = decode(self.images, recipe.factor, recipe.formation)
        labels = torch.arange(len(images)) % len(self.dataset.class_names)  # which label an image has costs nothing
        how = Augmentation(judged.augmentation, judged.composition, judged.mix_p)
        rates = {"lr": recipe.lr_net, "momentum": judged.momentum, "decay": judged.weight_decay}
        generator = stream(recipe.seed, "evaluation")
        for batch in torch.randperm(len(images), generator=generator).split(judged.batch_size):
            self._step(images[batch], labels[batch], how, generator, rates)

    @torch.no_grad()
    def embed(self, label: int) -> Tensor:
        """Features of all images of a class, not normalised: float [n, d]."""
        parts = self.dataset.train.of_class(label).split(EMBEDDED)
        return torch.cat([features(self.weights, self._pixels(part)) for part in parts])

    def _step(
        self, pixels: Tensor, labels: Tensor, how: Augmentation, generator: torch.Generator, rates: dict[str, float]
    ) -> None:
        count, size = len(pixels), pixels.shape[-1]
        inputs = normalize(pixels, self.dataset.mean, self.dataset.std)
        inputs = augment(inputs, DRAWS[how.composition](how.strategy, count, size, generator))
        cutmix = draw_cutmix(count, size, how.mix_p, generator)
        if cutmix is None:
            loss = cross_entropy(logits(self.weights, inputs), labels.tolist())
        else:
            loss = cutmix.loss(logits(self.weights, cutmix.paste(inputs)), labels.to(self.device))
        self.weights, self.velocity = network_sgd(self.weights, self.velocity, loss, **rates)

    def _pixels(self, images: Tensor) -> Tensor:
        return to_unit(images, self.device)


@torch.no_grad()
def kmeans(X: Tensor, k: int, seed: int, max_iter: int = 100, tol: float = 1e-4) -> Tensor:
    """Lloyd's k-means from k distinct random rows of X, float [n, d]; its centres [k, d].

    Stops when no row changes its cluster or the centres move by less than `tol` times the mean variance of the
    columns. An emptied cluster goes to the row farthest from its centre.
    """
    centers = X[torch.randperm(len(X), generator=torch.Generator().manual_seed(seed))[:k].to(X.device)]
    threshold = tol * float(X.var(0, correction=0).mean())
    labels = None
    for _ in range(max_iter):
        previous, (nearest, labels) = labels, torch.cdist(X, centers).min(1)
        if previous is not None and torch.equal(labels, previous):
            break
        members = [X[labels == cluster] for cluster in range(k)]
        far = iter(X[nearest.argsort(descending=True)])
        moved = torch.stack([own.mean(0) if len(own) else next(far) for own in members])
        shift, centers = float((moved - centers).square().sum()), moved
        if shift <= threshold:
            break
    return centers


@torch.no_grad()
def representatives(X: Tensor, centers: Tensor) -> Tensor:
    """The row nearest to every centre that no centre before took: int64 [k]."""
    taken: list[int] = []
    for distance in torch.cdist(centers, X):
        distance[taken] = torch.inf
        taken.append(int(distance.argmin()))
    return torch.tensor(taken)
