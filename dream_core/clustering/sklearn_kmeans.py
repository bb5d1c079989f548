"""scikit-learn's k-means behind the protocol."""

import warnings

import torch
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits
from torch import Tensor


class SklearnKMeans:
    """scikit-learn's Lloyd k-means, one start; parameters as in TorchKMeans.

    Runs OpenMP on at most two threads: with more, scikit-learn adds their partial sums in the order in which they
    finish, and the same data would not give the same bits.
    """

    def __init__(
        self,
        n_clusters: int,
        init: str | Tensor = "random",
        max_iter: int = 100,
        tol: float = 1e-4,
        random_state: int = 0,
    ):
        self._kmeans = KMeans(
            n_clusters,
            init=init.cpu().numpy() if isinstance(init, Tensor) else init,  # pyright: ignore[reportArgumentType]
            n_init=1,  # pyright: ignore[reportArgumentType] - its annotations forget integers and arrays
            max_iter=max_iter,
            tol=tol,
            random_state=random_state % 2**32,
        )

    def fit(self, X: Tensor) -> "SklearnKMeans":
        """Cluster the rows of X: float [n, d], on any device."""
        with threadpool_limits(min(2, torch.get_num_threads()), user_api="openmp"), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a class of identical images is no reason to worry
            self._kmeans.fit(X.detach().cpu().numpy())
        self.cluster_centers_ = torch.from_numpy(self._kmeans.cluster_centers_).to(X)
        self.labels_ = torch.from_numpy(self._kmeans.labels_).to(X.device, torch.int64)
        self.inertia_, self.n_iter_ = float(self._kmeans.inertia_), int(self._kmeans.n_iter_)  # pyright: ignore[reportArgumentType]
        return self
