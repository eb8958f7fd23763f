"""Fitting a metric to codes: against known distributions, and the codes that users bring."""

import math

import pytest
import torch

from pythae_geometric.geometry import MixtureMetric
from pythae_geometric.samplers.mixture_metric import fit_mixture_metric


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def known(d=4, K=6, seed=0):
    """A mixture of well-shaped components."""
    c, A = 3 * normal(K, d, seed=seed), normal(K, d, d, seed=seed + 1)
    S = A @ A.mT / d + 0.1 * torch.eye(d)
    return MixtureMetric(1 + normal(K, seed=seed + 2).abs(), c, S)


def draws(metric, number, seed):
    return metric.sample(number, torch.Generator().manual_seed(seed))


def test_fresh_codes_are_almost_as_likely_as_under_the_truth():
    """The loss of likelihood is the Kullback-Leibler divergence, about (parameters) / 2N in nats
    for a fit of the true number of components: here 89 / 10,000; four mixtures may cost more."""
    truth = known()
    fitted = fit_mixture_metric(draws(truth, 5000, 1))
    z = draws(truth, 20_000, 2)
    loss = truth.log_volume(z) - fitted.log_volume(z)
    error = float(loss.std()) / len(z) ** 0.5
    assert -4 * error < float(loss.mean()) < 0.1


def test_one_normal_distribution_is_found():
    """The covariance of the draws is the true one, within its standard error from 3,600 codes (and
    shrinkage that counts one code); no likelihood is lost to components that are not there."""
    A = normal(3, 3)
    fitted = fit_mixture_metric(normal(4000, 3, seed=1) @ A.T + 5)
    S, w = A @ A.T, fitted.weights
    mean = w @ fitted.centroids
    y = fitted.centroids - mean
    found = torch.einsum("k,kij->ij", w, fitted.covariances + y[:, :, None] * y[:, None, :])
    scale = S.diagonal().sqrt()
    assert float(((mean - 5) / scale).abs().max()) < 4.5 / 3600**0.5
    relative = (found - S) / scale / scale[:, None]
    assert float(relative.abs().max()) < 1 / 3600 + 4.5 * (2 / 3600) ** 0.5
    truth = MixtureMetric(torch.ones(1), torch.full((1, 3), 5.0), S[None])
    z = draws(truth, 20_000, 2)
    assert float((truth.log_volume(z) - fitted.log_volume(z)).mean()) < 0.02


@pytest.mark.parametrize("unit", [2.0**-20, 2.0**20])
def test_the_unit_of_the_codes_does_not_matter(unit):
    x, z = draws(known(), 2000, 1), draws(known(), 100, 3)
    plain, scaled = fit_mixture_metric(x), fit_mixture_metric(x * unit)
    expected = plain.log_volume(z) - 4 * math.log(unit)
    torch.testing.assert_close(scaled.log_volume(z * unit), expected, rtol=0, atol=0.01)


@pytest.mark.parametrize("number", [1, 3, 7, 50])
def test_a_given_number_of_centroids_is_kept(number):
    found = len(fit_mixture_metric(draws(known(), 500, 1), number).centroids)
    assert 0.9 * number <= found <= number  # components of one code are dropped


def test_a_given_width_scales_every_covariance():
    x = draws(known(), 1000, 1)
    one, two = (fit_mixture_metric(x, 8, width) for width in (1.0, 2.0))
    torch.testing.assert_close(two.covariances, 4 * one.covariances)
    torch.testing.assert_close(two.centroids, one.centroids)


def test_a_seed_makes_fits_agree():
    x = draws(known(), 1000, 1)
    a, b, other = (fit_mixture_metric(x, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(a.covariances, b.covariances)
    assert a.covariances.shape != other.covariances.shape or not torch.equal(
        a.covariances, other.covariances
    )


UNUSUAL = {
    "two points": normal(2, 3),
    "three points in 16 dimensions": normal(3, 16),
    "one dimension": normal(300, 1),
    "128 dimensions": normal(400, 128),
    "fewer points than dimensions": normal(40, 64),
    "every code twice": normal(100, 3).repeat(2, 1),
    "two codes a hundred times": normal(2, 3).repeat(100, 1),
    "a constant coordinate": torch.cat([normal(200, 2), torch.full((200, 1), 7.0)], 1),
    "on a line": normal(200, 1) * torch.tensor([1.0, 2.0, -1.0]),
    "tiny": 1e-12 * normal(200, 2),
    "huge": 1e12 * normal(200, 2),
    "far away": 1e3 + normal(200, 2),
    "an outlier": torch.cat([normal(200, 2), torch.full((1, 2), 1e6)]),
    "two scales": torch.cat([normal(200, 2), 1e-3 * normal(200, 2, seed=1) + 4]),
}


@pytest.mark.parametrize("x", UNUSUAL.values(), ids=UNUSUAL.keys())
def test_unusual_codes(x):
    fitted = fit_mixture_metric(x)
    z = draws(fitted, 200, 0)
    log_volume, grad = fitted.log_volume_and_grad(z)
    assert bool(torch.isfinite(z).all() & torch.isfinite(log_volume).all())
    assert bool(torch.isfinite(grad).all())
    spread = x.std(0, unbiased=False).max()
    assert float((z - x.mean(0)).abs().max()) < 10 * float(spread)


@pytest.mark.parametrize("x", [normal(1, 3), torch.full((50, 3), 2.5)], ids=["one", "constant"])
def test_a_single_code_is_refused(x):
    with pytest.raises(ValueError, match=r"have the same code.*pass more data"):
        fit_mixture_metric(x)


def test_more_centroids_than_codes_are_refused():
    with pytest.raises(ValueError, match="num_centroids is 20, but there are only 5"):
        fit_mixture_metric(normal(5, 3), 20)
