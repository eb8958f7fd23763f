"""The metric whose uniform distribution is a mixture, against closed forms and quadrature."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import chi2, multivariate_normal

from pythae_geometric.geometry import MixtureMetric, hmc

DTYPES = [torch.float32, torch.float64]


def mixture(K, d, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    weights = torch.rand(K, generator=generator, dtype=torch.float64) + 0.1
    c = 2 * torch.randn(K, d, generator=generator, dtype=torch.float64)
    A = torch.randn(K, d, d, generator=generator, dtype=torch.float64)
    S = A @ A.mT / d + 0.2 * torch.eye(d, dtype=torch.float64)
    return weights.to(dtype), c.to(dtype), S.to(dtype)


def points(B, d, dtype=torch.float64, seed=1):
    return 2 * torch.randn(B, d, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("d", [1, 2, 5])
def test_volume_is_the_density_of_the_mixture(d):
    weights, c, S = mixture(4, d)
    metric, z = MixtureMetric(weights, c, S), points(20, d)
    p = sum(
        float(w) * multivariate_normal(m.numpy(), cov.numpy()).pdf(z.numpy())
        for w, m, cov in zip(weights / weights.sum(), c, S, strict=True)
    )
    np.testing.assert_allclose(metric.log_volume(z), np.log(p), rtol=1e-10)
    # The determinant of the tensor itself says the same.
    np.testing.assert_allclose(torch.linalg.det(metric(z)).sqrt(), p, rtol=1e-9)


def test_volume_of_the_plane_is_1():
    weights, c, S = mixture(3, 2)
    axis = torch.linspace(-15, 15, 1201, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    total = (
        MixtureMetric(weights, c, S).log_volume(grid).exp().sum() * float(axis[1] - axis[0]) ** 2
    )
    assert float(total) == pytest.approx(1.0, abs=1e-6)


def test_shape_is_that_of_the_mean_precision():
    weights, c, S = mixture(3, 3)
    metric, z = MixtureMetric(weights, c, S), points(5, 3)
    r = metric.shares(z)
    torch.testing.assert_close(r.sum(1), torch.ones(5, dtype=torch.float64))
    mean = torch.einsum("bk,kij->bij", r, torch.linalg.inv(S))
    G = metric(z)
    ratio = G / mean
    torch.testing.assert_close(ratio, ratio[:, :1, :1].expand_as(ratio))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d", [1, 2, 16])
def test_gradient_is_that_of_autograd(d, dtype):
    weights, c, S = mixture(6, d)
    z = points(30, d).requires_grad_()
    (expected,) = torch.autograd.grad(MixtureMetric(weights, c, S).log_volume(z).sum(), z)
    metric = MixtureMetric(weights.to(dtype), c.to(dtype), S.to(dtype))
    log_volume, grad = metric.log_volume_and_grad(z.detach().to(dtype))
    tolerance = 1e-9 if dtype == torch.float64 else 2e-4
    scale = float(expected.abs().max())
    assert float((grad.double() - expected).abs().max()) < tolerance * scale
    torch.testing.assert_close(log_volume, metric.log_volume(z.detach().to(dtype)))


def test_far_away_the_density_is_exact_where_it_underflows():
    """One standard normal component: log p = -|z|²/2 - log 2π, 1,000 deviations away too."""
    metric = MixtureMetric(torch.ones(1), torch.zeros(1, 2), torch.eye(2)[None])
    z = torch.tensor([[1000.0, 0.0], [0.0, 3e4]])
    log_volume, grad = metric.log_volume_and_grad(z)
    torch.testing.assert_close(log_volume, -0.5 * z.square().sum(1) - math.log(2 * math.pi))
    torch.testing.assert_close(grad, -z)


def test_translation_far_from_the_origin_keeps_float32_exact():
    weights, c, S = mixture(5, 4, torch.float32)
    far = 1000.0
    z = c + 0.5
    here = MixtureMetric(weights, c, S).log_volume(z)
    there = MixtureMetric(weights, c + far, S).log_volume(z + far)
    torch.testing.assert_close(here, there, rtol=0, atol=5e-3)  # rounding of c + 1000 is 6e-5


def test_draws_have_the_moments_of_the_mixture():
    weights, c, S = mixture(3, 2)
    z = MixtureMetric(weights, c, S).sample(40_000, torch.Generator().manual_seed(0))
    w = weights / weights.sum()
    mean = w @ c
    second = torch.einsum("k,kij->ij", w, S + c[:, :, None] * c[:, None, :])
    for found, expected in ((z, mean), (z[:, :, None] * z[:, None, :], second)):
        error = found.std(0) / len(z) ** 0.5
        assert bool(((found.mean(0) - expected).abs() < 4.5 * error).all())


def cells(points):
    edges = torch.tensor([-1.5, 0.0, 1.5], dtype=points.dtype)
    x, y = (torch.bucketize(points[:, i].contiguous(), edges) for i in (0, 1))
    return 4 * x + y


@pytest.mark.parametrize("how", ["direct", "chains"])
def test_uniform_distribution_by_quadrature(how):
    """Box probabilities of the volume element, by quadrature; chains start in one corner."""
    weights, c, S = mixture(4, 2, seed=3)
    metric = MixtureMetric(weights, 0.5 * c, S)
    axis = torch.linspace(-12, 12, 1201, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    p = metric.log_volume(grid).exp()
    expected = torch.zeros(16, dtype=torch.float64).index_add(0, cells(grid), p / p.sum())
    generator = torch.Generator().manual_seed(0)
    if how == "direct":
        z = metric.sample(4000, generator)
    else:
        start = torch.full((4000, 2), 2.0, dtype=torch.float64)
        z = hmc(
            metric.log_volume_and_grad, start, 60, 8, 0.25, keep_chains=0, generator=generator
        ).position
    observed = torch.bincount(cells(z), minlength=16) / len(z)
    statistic = float(((observed - expected) ** 2 / expected).sum() * len(z))
    assert statistic < chi2(15).ppf(1 - 1e-4), (observed, expected)


def test_one_component_is_flat_in_direction():
    """One component: G = p^(2/d) Σ⁻¹ / det^(1/d), and Brownian drift is that of the base class."""
    _, c, S = mixture(1, 3)
    metric, z = MixtureMetric(torch.ones(1, dtype=torch.float64), c, S), points(4, 3)
    P = torch.linalg.inv(S[0])
    expected = (
        metric.log_volume(z).mul(2 / 3).exp()[:, None, None] * P / torch.linalg.det(P) ** (1 / 3)
    )
    torch.testing.assert_close(metric(z), expected)


def test_state_makes_the_same_metric_and_dtype_follows():
    metric = MixtureMetric(*mixture(3, 2))
    again = MixtureMetric(**metric.state_dict())
    z = points(5, 2)
    assert torch.equal(again.log_volume(z), metric.log_volume(z))
    assert MixtureMetric(*mixture(3, 2)).float().log_volume(z.float()).dtype == torch.float32


BAD = {
    "list": (lambda w, c, S: (w.tolist(), c, S), TypeError, "weights must be a torch.Tensor"),
    "integers": (lambda w, c, S: (w.long(), c.long(), S.long()), TypeError, "float32 or"),
    "mixed": (lambda w, c, S: (w.float(), c, S), TypeError, "use one dtype"),
    "nan": (lambda w, c, S: (w, c * math.nan, S), ValueError, "centroids contain NaN"),
    "shape": (lambda w, c, S: (w, c, S[:, :1]), ValueError, r"covariances \[3, 2, 2\]"),
    "none": (lambda w, c, S: (w[:0], c[:0], S[:0]), ValueError, "K, d >= 1"),
    "negative": (lambda w, c, S: (-w, c, S), ValueError, "weights must be positive"),
    "asymmetric": (lambda w, c, S: (w, c, S + S.triu(1)), ValueError, "symmetric"),
    "indefinite": (lambda w, c, S: (w, c, -S), ValueError, "number 0 is not"),
}


@pytest.mark.parametrize("spoil, error, message", BAD.values(), ids=BAD.keys())
def test_bad_arguments(spoil, error, message):
    with pytest.raises(error, match=message):
        MixtureMetric(*spoil(*mixture(3, 2)))


def test_bad_points():
    metric = MixtureMetric(*mixture(3, 2))
    with pytest.raises(ValueError, match=r"shape \[B, 2\]"):
        metric.log_volume(points(3, 4))
    with pytest.raises(TypeError, match="convert one"):
        metric.log_volume(points(3, 2, torch.float32))
