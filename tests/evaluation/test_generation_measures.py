"""Measures of generation on cases with known answers."""

import math
import sys
import types

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from scipy.spatial import KDTree

from pythae_geometric import evaluation
from pythae_geometric.evaluation import (
    density_and_coverage,
    frechet_distance,
    inception_features,
    nearest_distances,
    prd_curve,
    prd_curve_of_histograms,
    prd_scores,
    train_feature_network,
)


def cloud_with(mean, covariance, count, seed):
    """Points whose sample mean and unbiased sample covariance are exactly these."""
    d = len(mean)
    x = torch.randn(count, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = x - x.mean(0)
    whiten = torch.linalg.inv(torch.linalg.cholesky(torch.cov(x.T)))
    return x @ whiten.T @ torch.linalg.cholesky(covariance).T + mean


def random_covariance(d, seed):
    a = torch.randn(d, d + 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return a @ a.T


@pytest.mark.parametrize("d", [2, 5, 16])
def test_frechet_of_gaussians_is_the_closed_form(d):
    m = torch.linspace(-1, 2, d, dtype=torch.float64)
    ca, cb = random_covariance(d, 0), random_covariance(d, 1)
    a, b = cloud_with(0 * m, ca, 100, 2), cloud_with(m, cb, 77, 3)
    expected = float(m.square().sum() + torch.trace(ca + cb))
    expected -= 2 * np.trace(sqrtm((ca @ cb).numpy())).real
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-9)


def test_fewer_points_than_features_are_named():
    """Of the same distribution, the distance is large: the covariances have other kernels."""
    x = torch.randn(2, 20, 30, generator=torch.Generator().manual_seed(0))
    with pytest.warns(UserWarning, match="20 and 20 points with 30 features"):
        assert frechet_distance(*x) > 10


def test_statistics_of_batches_are_those_of_the_whole():
    x = torch.randn(2, 500, 6, generator=torch.Generator().manual_seed(0)).double()
    x[0] = 100 + 0.01 * x[0]  # sums of squares would cancel
    a, b = evaluation.FrechetStatistics(), evaluation.FrechetStatistics()
    for batch in x[0].split(77):
        a.add(batch)
    b.add(x[1])
    assert torch.allclose(a.scatter / 499, x[0].T.cov(), rtol=1e-9)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(*x), rel=1e-9)
    assert frechet_distance(a, x[0]) < 1e-9
    with pytest.raises(ValueError, match="6 dimensions"):
        a.add(x[0][:, :3])
    with pytest.raises(ValueError, match="at least 2 points"):
        frechet_distance(evaluation.FrechetStatistics(), x[0])


def test_frechet_of_commuting_gaussians():
    a = cloud_with(torch.zeros(3), torch.diag(torch.tensor([1.0, 4, 9]).double()), 50, 0)
    b = cloud_with(torch.zeros(3), torch.diag(torch.tensor([4.0, 1, 9]).double()), 60, 1)
    assert frechet_distance(a, b) == pytest.approx(2, rel=1e-9)  # Σ (σ_a - σ_b)²


def test_frechet_of_singular_covariances():
    """More dimensions than points, where roots of the product fail."""
    x = torch.randn(5, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(x, x + 1) == pytest.approx(40, rel=1e-9)
    assert frechet_distance(x, 3 * (x - x.mean(0)) + x.mean(0)) == pytest.approx(
        4 * float(x.var(0).sum()), rel=1e-9
    )


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.floats(0.01, 1), min_size=2, max_size=8),
    st.lists(st.floats(0.01, 1), min_size=2, max_size=8),
)
def test_prd_curve_is_within_its_bounds(p, q):
    n = min(len(p), len(q))
    p, q = np.array(p[:n]) / sum(p[:n]), np.array(q[:n]) / sum(q[:n])
    precision, recall = prd_curve_of_histograms(p, q)
    # A slope of 1 (the middle of 1001) gives one minus the total variation distance.
    overlap = 1 - 0.5 * np.abs(p - q).sum()
    assert precision[500] == pytest.approx(overlap) and recall[500] == pytest.approx(overlap)
    assert (precision <= 1 + 1e-12).all() and (recall <= 1 + 1e-12).all()
    assert (np.diff(precision) >= -1e-12).all() and (np.diff(recall) <= 1e-12).all()
    # p and q exchange precision and recall.
    other = prd_curve_of_histograms(q, p)
    np.testing.assert_allclose(other[0], recall[::-1], atol=1e-12)


def test_prd_of_a_subset_of_modes():
    """All samples on one of two equal modes: precision 1 with recall ½."""
    precision, recall = prd_curve_of_histograms([1, 1], [1, 0])
    slopes = np.tan(np.linspace(0, np.pi / 2, 1003)[1:-1])
    np.testing.assert_allclose(precision, np.minimum(slopes / 2, 1))
    np.testing.assert_allclose(recall, np.minimum(0.5, 1 / slopes))


def clusters(which, each=60):
    centres = 20 * torch.eye(4, dtype=torch.float64)[list(which)]
    noise = torch.randn(len(which), each, 4, generator=torch.Generator().manual_seed(sum(which)))
    return (centres[:, None] + 0.1 * noise).flatten(0, 1)


def test_prd_scores_tell_lost_modes_from_wrong_ones():
    both, one = clusters([0, 1]), clusters([0], 120)
    lost, wrong = prd_scores(both, one, 0, clusters=2), prd_scores(one, both, 0, clusters=2)
    # precision 1, recall ½ at slope 2: F8 and F1/8 of these.
    low, high = 65 * 0.5 / 64.5, 65 / 64 * 0.5 / (1 / 64 + 0.5)
    assert lost.recall == pytest.approx(low, abs=2e-3)
    assert lost.precision == pytest.approx(high, abs=2e-3)
    assert wrong.recall == pytest.approx(high, abs=2e-3)
    assert wrong.precision == pytest.approx(low, abs=2e-3)


def test_prd_of_the_same_and_of_disjoint_sets():
    x = clusters([0, 1, 2])
    same = prd_scores(x, x, 0)
    assert same.recall == pytest.approx(1) and same.precision == pytest.approx(1)
    assert prd_scores(clusters([0]), clusters([3]), 0, clusters=2) == (0, 0)
    assert prd_curve(x, x.flip(0), 1)[0].max() == pytest.approx(1)


def test_density_and_coverage_on_a_line():
    real = torch.arange(10.0).unsqueeze(1)  # radius 1 inside, for k = 1 at the ends too
    fake = torch.tensor([[2.5], [2.4], [100.0]])
    # 2.5 and 2.4 are within the balls of 2 and 3, 100 in none.
    density, coverage = density_and_coverage(real, fake, k=1)
    assert density == pytest.approx(4 / 3) and coverage == pytest.approx(0.2)


def test_density_and_coverage_of_one_distribution():
    """1 in expectation, and the closed form of the paper's lemma."""
    n, m, k, runs = 200, 150, 5, 60
    generator = torch.Generator().manual_seed(0)
    scores = np.array(
        [
            density_and_coverage(
                torch.randn(n, 3, generator=generator), torch.randn(m, 3, generator=generator), k
            )
            for _ in range(runs)
        ]
    )
    expected = 1 - math.prod((n - 1 - i) / (m + n - 1 - i) for i in range(k))
    error = scores.std(0, ddof=1) / runs**0.5
    assert abs(scores[:, 0].mean() - 1) < 4 * error[0]
    assert abs(scores[:, 1].mean() - expected) < 4 * error[1]
    assert error[0] < 0.02 and error[1] < 0.01  # the two lines above can fail


def test_density_and_coverage_in_batches():
    generator = torch.Generator().manual_seed(0)
    real, fake = (torch.randn(n, 4, generator=generator) for n in (50, 40))
    assert density_and_coverage(real, fake, 3, batch_size=7) == density_and_coverage(real, fake, 3)
    assert density_and_coverage(real, real, 3).coverage == 1
    assert density_and_coverage(real, fake + 100, 3) == (0, 0)


def test_nearest_distances_are_those_of_a_tree():
    generator = torch.Generator().manual_seed(0)
    train, x = (torch.rand(n, 1, 3, 2, generator=generator) for n in (70, 30))
    distances, indices = nearest_distances(x, train, batch_size=8)
    expected = KDTree(train.flatten(1)).query(x.flatten(1))
    np.testing.assert_allclose(distances, expected[0], rtol=1e-6)
    np.testing.assert_array_equal(indices, expected[1])
    assert float(nearest_distances(train[:5], train)[0].max()) == pytest.approx(0, abs=1e-7)


def test_feature_network_classifies_and_is_seeded(digits):
    from sklearn.datasets import load_digits

    x, y = torch.as_tensor(digits), torch.as_tensor(load_digits().target)
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    network = train_feature_network(x[:1000], y[:1000], seed=0, epochs=25)
    assert torch.equal(torch.random.get_rng_state(), state)
    accuracy = float((network(x[1000:]).argmax(1) == y[1000:]).float().mean())
    assert accuracy > 0.85
    features = network.features(x[:50], batch_size=20)
    assert features.shape == (50, 32)
    torch.testing.assert_close(network.head(features), network(x[:50]))
    again = train_feature_network(x[:200], y[:200], seed=1, epochs=2)
    one_hot = torch.eye(10)[y[:200]]
    same = train_feature_network(x[:200].numpy(), one_hot, seed=1, epochs=2)
    other = train_feature_network(x[:200], y[:200], seed=2, epochs=2)
    assert torch.equal(again.head.weight, same.head.weight)
    assert not torch.equal(again.head.weight, other.head.weight)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 64, 64)])
def test_feature_network_of_larger_images(shape):
    x = torch.rand(12, *shape, generator=torch.Generator().manual_seed(0))
    network = train_feature_network(x, torch.arange(12) % 3, seed=0, epochs=1)
    assert network.features(x).shape == (12, 64) and network(x).shape == (12, 3)


def test_inception_features_name_the_extra_and_convert_images(monkeypatch):
    images = torch.rand(5, 1, 8, 8)
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    with pytest.raises(ImportError, match=r"pythae-geometric\[fidelity\]"):
        inception_features(images)
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        inception_features(images + 1)

    class Extractor(torch.nn.Module):
        """In place of Inception: the mean of a uint8 image of three channels."""

        def __init__(self, name, features_list):
            super().__init__()
            assert features_list == ["2048"]

        def forward(self, x):
            assert x.dtype == torch.uint8 and x.shape[1:] == (3, 8, 8)
            return (x.double().mean((2, 3)),)

    stub = types.SimpleNamespace(FeatureExtractorInceptionV3=Extractor)
    monkeypatch.setitem(sys.modules, "torch_fidelity", types.ModuleType("torch_fidelity"))
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", stub)
    means = inception_features(images, batch_size=2) / 255
    torch.testing.assert_close(
        means, images.double().mean((2, 3)).expand(-1, 3), atol=0.5 / 255, rtol=0
    )


@pytest.mark.parametrize(
    "measure",
    [
        frechet_distance,
        lambda a, b: density_and_coverage(a, b, k=2),
        nearest_distances,
        lambda a, b: prd_scores(a, b, 0, clusters=3),
    ],
    ids=["frechet", "density", "nearest", "prd"],
)
def test_bad_clouds_are_named(measure):
    x = torch.randn(6, 3)
    with pytest.raises(ValueError, match="one dimension"):
        measure(x, x[:, :2])
    with pytest.raises(ValueError, match="NaN or infinity"):
        measure(x, x * float("nan"))
    with pytest.raises(ValueError, match="has no rows"):
        measure(x, x[:0])
    with pytest.raises(ValueError, match="must be \\[N >= "):
        measure(x[0], x)


def test_bad_numbers_are_named():
    x = torch.randn(6, 3)
    with pytest.raises(ValueError, match="k must be"):
        density_and_coverage(x, x, k=6)
    with pytest.raises(ValueError, match="clusters must be at most the 12 points"):
        prd_scores(x, x, 0, clusters=13)
    with pytest.raises(ValueError, match="repeats"):
        prd_scores(x, x, 0, repeats=0)
    for weights in ([0, 0], [1, -1], [1, 1, 1], [1, np.nan], [1, np.inf]):
        with pytest.raises(ValueError, match="real and fake"):
            prd_curve_of_histograms([1, 1], weights)
    for epochs in (0, -1, 0.5):
        with pytest.raises(ValueError, match="epochs must be a whole number of at least 1"):
            train_feature_network(torch.rand(4, 1, 8, 8), torch.arange(4), 0, epochs)
    with pytest.raises(ValueError, match="too large for float64"):
        frechet_distance(x, 1e300 * x.double())
    network = train_feature_network(torch.rand(4, 1, 8, 8), torch.arange(4), 0, 1)
    with pytest.raises(ValueError, match=r"shape \[N, 1, 8, 8\], of which the network was made"):
        network.features(torch.rand(4, 1, 8, 9))
    with pytest.raises(ValueError, match="two classes"):
        train_feature_network(torch.rand(4, 1, 8, 8), torch.zeros(4, dtype=torch.long), 0)
    with pytest.raises(ValueError, match="images must have shape"):
        train_feature_network(torch.rand(4, 64), torch.arange(4), 0)
