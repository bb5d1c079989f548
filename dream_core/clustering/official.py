"""k-means with the quirks of the code that DREAM was published with. For comparing with it, and for nothing else."""

import torch
from torch import Tensor


class OfficialKMeans:
    """Lloyd's iterations as in the published code: its faults are kept on purpose.

    Starts from rows drawn with replacement; a cluster that empties gets the zero vector as its centre; stops when the
    centres move by at most 1e-4 in all (squared, whatever the scale of the data), or after 100 iterations.
    """

    def __init__(self, n_clusters: int, max_iter: int = 100, tol: float = 1e-4, random_state: int = 0):
        self.n_clusters, self.max_iter, self.tol, self.random_state = n_clusters, max_iter, tol, random_state

    @torch.no_grad()
    def fit(self, X: Tensor) -> "OfficialKMeans":
        """Cluster the rows of X: float [n, d]. Sets `cluster_centers_` and `n_iter_`."""
        generator = torch.Generator().manual_seed(self.random_state)
        centers = X[torch.randint(len(X), (self.n_clusters,), generator=generator).to(X.device)]
        for iteration in range(1, self.max_iter + 1):
            self.n_iter_ = iteration
            nearest = torch.cdist(X, centers).argmin(1)
            members = torch.nn.functional.one_hot(nearest, self.n_clusters).to(X.dtype)
            moved = torch.nan_to_num(members.T @ X / members.sum(0)[:, None])
            shift = float((moved - centers).square().sum())
            centers = moved
            if shift <= self.tol:
                break
        self.cluster_centers_ = centers
        return self
