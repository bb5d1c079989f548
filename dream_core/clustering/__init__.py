"""k-means: one protocol, three engines (cuML on NVIDIA GPUs, PyTorch anywhere, scikit-learn on CPUs)."""

from typing import Protocol

import torch
from torch import Tensor

from dream_core.clustering.official import OfficialKMeans
from dream_core.clustering.torch_kmeans import TorchKMeans
from dream_core.errors import InvalidRecipe

__all__ = ["Clusterer", "OfficialKMeans", "TorchKMeans", "choose_engine", "make_kmeans"]


class Clusterer(Protocol):
    """scikit-learn's contract: parameters in the constructor, data in `fit`, results in names that end in `_`."""

    cluster_centers_: Tensor
    """float [n_clusters, d], on the device of the data."""
    n_iter_: int

    def fit(self, X: Tensor) -> "Clusterer":
        """Cluster the rows of X: float [n, d] with n ≥ n_clusters. Raises ValueError where there are fewer."""
        ...


def choose_engine(engine: str, device: torch.device) -> str:
    """The engine that `auto` means on a device: cuML where it is installed and has the GPU, else PyTorch.

    Raises InvalidRecipe where `cuml` is asked for by name and cannot run here.
    """
    if engine == "auto":
        return "cuml" if device.type == "cuda" and cuml_available() else "torch"
    if engine == "cuml" and not cuml_available():
        message = "cuML needs an NVIDIA GPU and the `gpu` extra; use clustering=auto, torch or sklearn here"
        raise InvalidRecipe([("params.clustering", message)])
    return engine


def cuml_available() -> bool:
    """Whether cuML is installed and sees a GPU. (Importing cuML succeeds without one.)"""
    try:
        import cuml  # noqa: F401  # pyright: ignore[reportMissingImports]
        import cupy  # pyright: ignore[reportMissingImports]
    except ImportError:
        return False
    return bool(cupy.cuda.is_available())


def make_kmeans(engine: str, n_clusters: int, init: str | Tensor, max_iter: int, random_state: int) -> Clusterer:
    """k-means by engine name: `torch`, `sklearn` or `cuml`.

    `init` is `k-means++`, `random` (distinct rows), or the starting centres: float [n_clusters, d], where the data are.
    """
    if isinstance(init, str) and init not in ("k-means++", "random"):
        raise ValueError(f"unknown init {init!r}; use k-means++ or random")
    match engine:
        case "torch":
            return TorchKMeans(n_clusters, init, max_iter, random_state=random_state)
        case "sklearn":
            from dream_core.clustering.sklearn_kmeans import SklearnKMeans

            return SklearnKMeans(n_clusters, init, max_iter, random_state=random_state)
        case "cuml":
            from dream_core.clustering.cuml_kmeans import CumlKMeans

            return CumlKMeans(n_clusters, init, max_iter, random_state=random_state)
    raise ValueError(f"unknown clustering engine {engine!r}; use auto, cuml, torch or sklearn")
