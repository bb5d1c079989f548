"""cuML's k-means behind the protocol: CUDA tensors in and out, without a copy through the host."""

import cupy  # pyright: ignore[reportMissingImports]
import torch
from cuml.cluster import KMeans  # pyright: ignore[reportMissingImports]
from torch import Tensor


class CumlKMeans:
    """cuML's k-means, one start; parameters as in TorchKMeans."""

    def __init__(
        self,
        n_clusters: int,
        init: str | Tensor = "random",
        max_iter: int = 100,
        tol: float = 1e-4,
        random_state: int = 0,
    ):
        start = cupy.asarray(init.float().contiguous()) if isinstance(init, Tensor) else init
        self._kmeans = KMeans(
            n_clusters=n_clusters, init=start, n_init=1, max_iter=max_iter, tol=tol,
            random_state=random_state % 2**31, output_type="cupy",
        )  # fmt: skip
        self.n_clusters = n_clusters

    def fit(self, X: Tensor) -> "CumlKMeans":
        """Cluster the rows of X: float32 [n, d] on a CUDA device."""
        if len(X) < self.n_clusters:
            raise ValueError(f"{self.n_clusters} clusters need at least as many rows, not {len(X)}")
        with cupy.cuda.Device(X.device.index or 0):
            self._kmeans.fit(cupy.asarray(X.detach().float().contiguous()))
            self.cluster_centers_ = torch.from_dlpack(self._kmeans.cluster_centers_).to(X)
            self.labels_ = torch.from_dlpack(self._kmeans.labels_).to(torch.int64)
        self.inertia_, self.n_iter_ = float(self._kmeans.inertia_), int(self._kmeans.n_iter_)  # pyright: ignore[reportArgumentType]
        return self
