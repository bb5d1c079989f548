"""Lloyd's k-means in PyTorch: the engine that runs on every device, and the reference of the others."""

import torch
import torch.nn.functional as F
from torch import Tensor


class TorchKMeans:
    """k-means by Lloyd's iterations, Euclidean.

    Empty clusters are moved to the rows farthest from their centres, each to another row. Stops when no row changes
    its cluster, or when the centres move by less than `tol` times the mean variance of the columns (scikit-learn's
    rule), or after `max_iter` iterations. The rows of a cluster are added in their order, so that the same data give
    the same bits on the same device.

    Args:
        init: `random` starts from distinct rows, `k-means++` from rows drawn by squared distance; or the starting
            centres themselves, float [n_clusters, d].
        random_state: seeds all draws.
    """

    def __init__(
        self,
        n_clusters: int,
        init: str | Tensor = "random",
        max_iter: int = 100,
        tol: float = 1e-4,
        random_state: int = 0,
    ):
        self.n_clusters, self.init, self.max_iter, self.tol = n_clusters, init, max_iter, tol
        self.random_state = random_state

    @torch.no_grad()
    def fit(self, X: Tensor) -> "TorchKMeans":
        """Cluster the rows of X: float [n, d]. Sets `cluster_centers_` and `n_iter_`."""
        if len(X) < self.n_clusters:
            raise ValueError(f"{self.n_clusters} clusters need at least as many rows, not {len(X)}")
        mean = X.mean(0)
        X = X - mean  # distances by inner products lose digits far from the origin
        norms = X.square().sum(1)
        threshold = self.tol * float(norms.mean()) / X.shape[1]
        centers, labels = self.init.to(X) - mean if isinstance(self.init, Tensor) else self._start(X, norms), None
        scores = X.new_empty(len(X), self.n_clusters)
        for iteration in range(1, self.max_iter + 1):
            self.n_iter_ = iteration
            # |x − c|² without |x|², which changes nothing about which centre is nearest
            torch.addmm(centers.square().sum(1), X, centers.T, alpha=-2, out=scores)
            previous, (nearest, labels) = labels, scores.min(1)
            if previous is not None and torch.equal(labels, previous):
                break
            moved = _means(X, labels, (nearest + norms).clamp_(min=0), self.n_clusters)
            shift = float((moved - centers).square().sum())
            centers = moved
            if shift <= threshold:
                break
        self.cluster_centers_ = centers + mean
        return self

    def _start(self, X: Tensor, norms: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(self.random_state)
        if self.init == "random":
            return X[torch.randperm(len(X), generator=generator)[: self.n_clusters].to(X.device)]
        chosen = [int(torch.randint(len(X), (1,), generator=generator))]
        distance = _distances(X, norms, X[chosen])[:, 0]
        while len(chosen) < self.n_clusters:
            weight = distance.double().cumsum(0)
            if float(weight[-1]) > 0:
                threshold = torch.rand(1, generator=generator, dtype=torch.float64).to(X.device) * weight[-1]
                chosen.append(min(int(torch.searchsorted(weight, threshold, right=True)), len(X) - 1))
            else:  # fewer distinct rows than clusters: any will do
                chosen.append(int(torch.randint(len(X), (1,), generator=generator)))
            distance = torch.minimum(distance, _distances(X, norms, X[chosen[-1:]])[:, 0])
        return X[chosen]


def _distances(X: Tensor, norms: Tensor, centers: Tensor) -> Tensor:
    """Squared distances [n, k]."""
    return (norms[:, None] + centers.square().sum(1) - 2 * X @ centers.T).clamp_(min=0)


def _means(X: Tensor, labels: Tensor, nearest: Tensor, k: int) -> Tensor:
    """The mean of every cluster's rows [k, d]. `nearest` are the rows' squared distances from their centres."""
    counts = torch.bincount(labels, minlength=k)
    if bool((counts == 0).any()):
        labels = _relocate(labels, nearest, counts)
        counts = torch.bincount(labels, minlength=k)
    # each bag is added by one thread, row by row; a product with the one-hot labels takes as long as the distances
    return F.embedding_bag(labels.argsort(stable=True), X, counts.cumsum(0) - counts, mode="mean")


def _relocate(labels: Tensor, nearest: Tensor, counts: Tensor) -> Tensor:
    """Give every empty cluster the farthest row that leaves none of its own cluster behind empty."""
    labels, remaining = labels.clone(), counts.tolist()
    farthest = iter(nearest.argsort(descending=True, stable=True).tolist())
    for empty in [cluster for cluster, count in enumerate(remaining) if count == 0]:
        row = next((row for row in farthest if remaining[int(labels[row])] > 1), None)
        if row is None:
            break
        remaining[int(labels[row])] -= 1
        remaining[empty] += 1
        labels[row] = empty
    return labels
