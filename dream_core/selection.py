"""Which real images a step sees: DREAM's question. Random ones, or representatives of their class.

Source: DREAM (Liu et al. 2023), section 3.3; its code for k-means over the raw class and the images taken.
"""

from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor

from dream_core.clustering import Clusterer, OfficialKMeans, make_kmeans
from dream_core.computing import PLAIN, Computing, filled_up
from dream_core.datasets import LabeledImages
from dream_core.images import Normalize, to_unit
from dream_core.networks import Embedding
from dream_core.randomness import Shuffle, derive, stream
from dream_core.ranks import Ranks
from dream_core.recipes import ClusteringRecipe, MatchingRecipe
from dream_core.timing import Stopwatch

_ROUNDING = 1e-5


class Selection(Protocol):
    """Chooses the real images of a class that an inner iteration matches."""

    def batch(self, label: int, network: Embedding, outer: int, inner: int) -> Tensor:
        """Indices within the class: int64, at most [batch_real]."""
        ...

    def share(self, ranks: Ranks, outer: int, inner: int) -> None:
        """Know what other ranks chose for their classes in this inner iteration, where later ones depend on it."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """What must be saved besides the iteration's number."""
        ...

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take a saved state back."""
        ...


def make_selection(recipe: MatchingRecipe, train: LabeledImages, representatives: "Representatives") -> Selection:
    """The selection that a recipe asks for."""
    if recipe.selection == "representative":
        return RepresentativeSelection(recipe, train, representatives)
    return RandomWalks(recipe, train) if recipe.real_order == "cycle" else RandomDraws(recipe, train)


class _Stateless:
    def share(self, ranks: Ranks, outer: int, inner: int) -> None:
        pass

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        pass


class RandomWalks(_Stateless):
    """Every class is walked through in a shuffled order of its own, batch by batch; a remainder is left out (IDC)."""

    def __init__(self, recipe: MatchingRecipe, train: LabeledImages):
        self.per_outer = recipe.inner_iterations
        self.walks = [
            Shuffle(count, recipe.batch_real, recipe.seed, "real", label, drop_last=True)
            for label, count in enumerate(train.counts)
        ]

    def batch(self, label: int, network: Embedding, outer: int, inner: int) -> Tensor:
        return self.walks[label][outer * self.per_outer + inner]


class RandomDraws(_Stateless):
    """Every batch is drawn anew, without repetition inside it (DC, DSA, DM)."""

    def __init__(self, recipe: MatchingRecipe, train: LabeledImages):
        self.seed, self.size, self.counts = recipe.seed, recipe.batch_real, train.counts

    def batch(self, label: int, network: Embedding, outer: int, inner: int) -> Tensor:
        generator = stream(self.seed, "real", label, outer, inner)
        return torch.randperm(self.counts[label], generator=generator)[: self.size]


class RepresentativeSelection:
    """Every `interval` inner iterations the class is clustered anew; until then its representatives stay.

    The interval is counted from every fresh network; where networks live shorter than that, or the classes are
    staggered, over all iterations, and the representatives outlive the network that chose them.
    """

    def __init__(self, recipe: MatchingRecipe, train: LabeledImages, representatives: "Representatives"):
        self.recipe, self.train, self.representatives = recipe, train, representatives
        self.chosen: dict[int, Tensor] = {}

    def batch(self, label: int, network: Embedding, outer: int, inner: int) -> Tensor:
        if self.due(label, outer, inner):
            # a fresh network starts anew, so that no choice is handed down for ever
            warm = self.recipe.warm_start and inner >= self.recipe.interval
            last = self.chosen[label] if warm else torch.empty(0, dtype=torch.int64)
            self.chosen[label] = self.cluster(label, network, ("cluster", outer, inner, label), last)
        return self.chosen[label]

    def share(self, ranks: Ranks, outer: int, inner: int) -> None:
        classes = self.train.classes
        if any(self.due(label, outer, inner) for label in range(classes)):
            mine = [self.chosen[label] for label in ranks.own(classes)]
            self.chosen = dict(enumerate(ranks.gather(mine, classes)))

    def due(self, label: int, outer: int, inner: int) -> bool:
        """Whether the class is clustered in an inner iteration: at the very first, then when it is its turn."""
        recipe = self.recipe
        passed = outer * recipe.inner_iterations + inner if recipe.interval_runs_on else inner
        turn = label * recipe.interval // self.train.classes if recipe.staggered else 0
        return passed == 0 or passed % recipe.interval == turn

    def cluster(self, label: int, network: Embedding, key: tuple[str | int, ...], last: Tensor) -> Tensor:
        """Representatives of the class, or of a pool that is drawn of it; k-means starts from the `last`, if any."""
        images, size = self.train.of_class(label), self.recipe.pool
        if not 0 < size < len(images):
            return self.representatives(images, network, self.recipe.batch_real, key, start=last)
        drawn = torch.randperm(len(images), generator=stream(self.recipe.seed, "pool", *key))
        pool = torch.cat([last, drawn[~torch.isin(drawn, last)]])[:size].sort().values
        start = torch.searchsorted(pool, last)
        return pool[self.representatives(images[pool], network, self.recipe.batch_real, key, start=start)]

    def state_dict(self) -> dict[str, Tensor]:
        return {str(label): indices for label, indices in self.chosen.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.chosen = {int(label): indices for label, indices in state.items()}


class Representatives:
    """Cluster a class in feature space; return the images nearest to the centres."""

    def __init__(
        self,
        recipe: ClusteringRecipe,
        engine: str,
        normalize: Normalize,
        device: torch.device,
        watch: Stopwatch,
        computing: Computing = PLAIN,
    ):
        self.recipe, self.engine, self.device, self.watch, self.computing = recipe, engine, device, watch, computing
        self.normalize = normalize if recipe.normalize_for_selection else None

    def __call__(
        self,
        images: Tensor,
        network: Embedding,
        count: int,
        key: tuple[str | int, ...],
        per_cluster: int | None = None,
        start: Tensor | None = None,
    ) -> Tensor:
        """`count` indices into the images of one class (uint8 [n, C, H, W]), or all n where there are no more.

        `count / per_cluster` clusters give their `per_cluster` nearest images each. Indices are unique, unless the
        recipe asks for the official behaviour. `start`, where it is not empty, are the indices of an earlier choice:
        the first that each cluster gave is its centre to start from, where this network now puts it.
        """
        by_distance = isinstance(self.recipe, MatchingRecipe) and self.recipe.ranking == "closest"
        per_cluster = 1 if by_distance else per_cluster or self.recipe.per_cluster
        if len(images) <= count and not self.recipe.official:
            return torch.arange(len(images))
        with self.watch("embedding"):
            chunk = self.recipe.embedding_chunk
            features = embed(network, images, chunk, self.device, self.normalize, self.computing)
        with self.watch("kmeans"):
            clusters = min(-(-count // per_cluster), len(images))
            init = self.recipe.clustering_init
            if start is not None and len(start) > 0:
                init = features[start[::per_cluster].to(features.device)]
            centers = self._kmeans(clusters, init, derive(self.recipe.seed, *key)).fit(features).cluster_centers_
            if by_distance:
                return closest(features, centers, count)
            return nearest(features, centers, per_cluster, unique=not self.recipe.official)[:count]

    def _kmeans(self, clusters: int, init: str | Tensor, seed: int) -> Clusterer:
        if self.recipe.official:
            return OfficialKMeans(clusters, random_state=seed)
        return make_kmeans(self.engine, clusters, init, self.recipe.clustering_iterations, random_state=seed)


@torch.no_grad()
def embed(
    network: Embedding,
    images: Tensor,
    chunk: int,
    device: torch.device,
    normalize: Normalize | None,
    computing: Computing = PLAIN,
) -> Tensor:
    """Features [n, d] of uint8 images [n, C, H, W], `chunk` at a time: memory is bounded by one chunk. They are float32
    at least, whatever the network computes in.

    Images are embedded as they are, in [0, 1], unless `normalize` is given.
    """

    def features() -> Iterable[Tensor]:
        for part in images.split(chunk):
            x = to_unit(part, device)
            x = normalize(x) if normalize else x
            yield computing.embed(network, filled_up(x, chunk) if computing.compiled else x)[: len(x)]

    return torch.cat(list(features()))


@torch.no_grad()
def nearest(features: Tensor, centers: Tensor, per_center: int = 1, unique: bool = True) -> Tensor:
    """Rows of features [n, d] nearest to the centers [k, d], `per_center` to each: int64 [k · per_center].

    Searches all rows, not only a cluster's own. With `unique` a row that another center took is passed over for the
    next nearest, center by center; without, rows may repeat.
    """
    mean = features.mean(0)
    features, centers = features - mean, centers - mean
    norms = features.square().sum(1)
    rank = _rank(centers.square().sum(1)[:, None] + norms - 2 * centers @ features.T, norms)
    if not unique:
        return rank.topk(per_center, dim=1, largest=False).indices.flatten()
    chosen: list[int] = []
    for row in rank:
        row[chosen] = torch.inf
        chosen += row.topk(min(per_center, len(row) - len(chosen)), largest=False).indices.tolist()
    return torch.tensor(chosen, dtype=torch.int64)


@torch.no_grad()
def closest(features: Tensor, centers: Tensor, count: int) -> Tensor:
    """The rows of features [n, d] with the smallest distance to their own, nearest, center [k, d]: int64 [count].

    Not one for each center: a dense cluster gives several (DREAM+ on TinyImageNet).
    """
    own = torch.cdist(features, centers).min(1).values.square()
    return _rank(own, (features - features.mean(0)).square().sum(1)).topk(count, largest=False).indices


def _rank(distance: Tensor, norms: Tensor) -> Tensor:
    """What squared distances [..., n] are ordered by, those that only rounding tells apart by their index: float64.

    The two images of a cluster of two are equally far from its centre. Which of them is taken must not depend on the
    order in which a processor adds. `norms` [n] are the rows' squared lengths, with which the rounding grows.
    """
    step = _ROUNDING * float(norms.mean())
    coarse = (distance.double().cpu() / step).round() if step > 0 else torch.zeros(distance.shape, dtype=torch.float64)
    return coarse + torch.arange(distance.shape[-1], dtype=torch.float64) / (2 * distance.shape[-1])
