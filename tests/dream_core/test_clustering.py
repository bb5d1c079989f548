"""k-means: one contract for every engine, and the official quirks against the reference."""

import numpy as np
import pytest
import torch

from dream_core.clustering import OfficialKMeans, choose_engine, cuml_available, make_kmeans
from dream_core.errors import InvalidRecipe
from tests.dream_core import reference

ENGINES = ["torch", "sklearn", pytest.param("cuml", marks=pytest.mark.gpu)]
every_engine = pytest.mark.parametrize("engine", ENGINES)
every_init = pytest.mark.parametrize("init", ["random", "k-means++"])


def device(engine):
    if engine == "cuml" and not cuml_available():
        pytest.skip("cuML or its GPU is not here")
    return torch.device("cuda" if engine == "cuml" else "cpu")


def blobs(k=5, per_blob=20, d=6, spread=0.05, seed=0):
    generator = torch.Generator().manual_seed(seed)
    centers = torch.randn(k, d, generator=generator) * 5
    return centers, (
        centers.repeat_interleave(per_blob, 0) + spread * torch.randn(k * per_blob, d, generator=generator)
    )


def cloud(n=200, d=8, seed=1):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def inertia(X, centers):
    return float(torch.cdist(X.double().cpu(), centers.double().cpu()).min(1).values.square().sum())


def fit(engine, X, k, init: str | torch.Tensor = "k-means++", seed=0, max_iter=100):
    return make_kmeans(engine, k, init, max_iter, random_state=seed).fit(X.to(device(engine)))


@every_engine
def test_separate_blobs_are_found(engine):
    centers, X = blobs()
    found = fit(engine, X, 5).cluster_centers_.cpu()
    assert torch.cdist(centers, found).min(1).values.max() < 0.1


@every_engine
@every_init
def test_centres_are_as_good_as_scikit_learns(engine, init):
    from sklearn.cluster import KMeans

    X = cloud()
    ours = min(inertia(X, fit(engine, X, 12, init, seed).cluster_centers_) for seed in range(4))
    theirs = min(KMeans(12, init=init, n_init=1, random_state=seed).fit(X.numpy()).inertia_ for seed in range(4))
    assert ours < 1.05 * theirs


@every_engine
@every_init
def test_same_seed_same_bits(engine, init):
    X = cloud(500, 32)
    first, again = (fit(engine, X, 20, init, seed=7).cluster_centers_ for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, fit(engine, X, 20, init, seed=8).cluster_centers_)


@every_engine
def test_centres_are_the_means_of_their_rows(engine):
    X = cloud()
    centers = fit(engine, X, 10, max_iter=300).cluster_centers_.cpu()
    labels = torch.cdist(X, centers).argmin(1)
    means = torch.stack([X[labels == c].mean(0) for c in range(10)])
    torch.testing.assert_close(centers, means, rtol=0, atol=0.02)


@every_engine
@every_init
def test_as_many_clusters_as_rows(engine, init):
    X = cloud(9)
    centers = fit(engine, X, 9, init).cluster_centers_.cpu()
    assert torch.cdist(X, centers).min(1).values.max() < 1e-3


@every_engine
def test_one_cluster_is_the_mean(engine):
    X = cloud()
    torch.testing.assert_close(fit(engine, X, 1).cluster_centers_.cpu(), X.mean(0, keepdim=True), rtol=0, atol=1e-5)


@every_engine
def test_fewer_rows_than_clusters_is_an_error(engine):
    X = cloud(3).to(device(engine))
    with pytest.raises(ValueError, match="4"):
        make_kmeans(engine, 4, "random", 10, random_state=0).fit(X)


@every_engine
@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
def test_identical_rows_do_no_harm(engine):
    X = torch.cat([torch.zeros(10, 4), torch.ones(10, 4)])
    for init in ("random", "k-means++"):
        centers = fit(engine, X, 4, init).cluster_centers_
        assert centers.isfinite().all()
        assert inertia(X, centers) < 1e-9


@every_engine
def test_far_from_the_origin_no_digits_are_lost(engine):
    centers, X = blobs(spread=0.01)
    found = fit(engine, X + 300, 5).cluster_centers_.cpu() - 300
    assert torch.cdist(centers, found).min(1).values.max() < 0.05


@every_engine
def test_data_and_global_generators_are_left_alone(engine):
    X = cloud().to(device(engine))
    before, state, numpy_state = X.clone(), torch.get_rng_state(), np.random.get_state()[1].copy()
    make_kmeans(engine, 5, "random", 10, random_state=0).fit(X)
    assert torch.equal(X, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert (np.random.get_state()[1] == numpy_state).all()


@every_engine
def test_large_seeds_are_taken(engine):
    assert fit(engine, cloud(), 4, seed=2**63 - 1).cluster_centers_.shape == (4, 8)


@every_engine
def test_centres_that_are_given_are_where_it_starts(engine):
    X = cloud(400, 16)
    cold = fit(engine, X, 20, "random")
    start = cold.cluster_centers_.clone()
    warm = fit(engine, X, 20, start)
    assert warm.n_iter_ < cold.n_iter_
    assert inertia(X, warm.cluster_centers_) <= inertia(X, start) * (1 + 1e-6)
    assert torch.equal(start, cold.cluster_centers_)
    # the seed has nothing left to decide
    assert torch.equal(warm.cluster_centers_, fit(engine, X, 20, start, seed=1).cluster_centers_)


def test_torch_leaves_no_cluster_empty():
    """Random starts on heavily repeated rows: an empty cluster moves to the farthest row, not to zero."""
    X = torch.cat([torch.zeros(50, 3) + 10, cloud(14, 3) + 10])
    for seed in range(20):
        kmeans = make_kmeans("torch", 12, "random", 100, random_state=seed).fit(X)
        assert kmeans.cluster_centers_.norm(dim=1).min() > 1
        distinct = {tuple(row.tolist()) for row in kmeans.cluster_centers_}
        assert len(distinct) == 12


# ---- the published code's k-means


@pytest.mark.parametrize("seed", range(6))
def test_official_equals_the_reference(seed):
    """Starts with replacement; the stop is absolute; an emptied cluster is at zero."""
    X = cloud(60, 5).double()
    start = torch.randint(60, (15,), generator=torch.Generator().manual_seed(seed))
    ours = OfficialKMeans(15, random_state=seed).fit(X).cluster_centers_
    torch.testing.assert_close(ours, reference.kmeans_lloyd(X, start.tolist()), rtol=0, atol=1e-9)


def test_official_leaves_empty_clusters_at_zero():
    X = cloud(20, 5) + 50
    centers = OfficialKMeans(15, random_state=0).fit(X).cluster_centers_
    assert (centers.norm(dim=1) == 0).any()
    assert (torch.randint(20, (15,), generator=torch.Generator().manual_seed(0)).unique().numel()) < 15


# ---- choosing an engine


def test_auto_is_torch_on_a_cpu():
    assert choose_engine("auto", torch.device("cpu")) == "torch"
    assert choose_engine("sklearn", torch.device("cpu")) == "sklearn"


def test_cuml_by_name_where_it_cannot_run_is_an_error_at_once():
    if cuml_available():
        pytest.skip("cuML is here")
    with pytest.raises(InvalidRecipe, match="cuML needs an NVIDIA GPU"):
        choose_engine("cuml", torch.device("cpu"))


def test_unknown_names():
    with pytest.raises(ValueError, match="unknown init 'best'"):
        make_kmeans("torch", 2, "best", 10, 0)
    with pytest.raises(ValueError, match="unknown clustering engine 'abacus'"):
        make_kmeans("abacus", 2, "random", 10, 0)
