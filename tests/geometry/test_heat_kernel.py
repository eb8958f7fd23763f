"""The heat kernel against Gaussians, the wrapped Gaussian and the series of the sphere."""

import math

import numpy as np
import pytest
import torch
from scipy.special import eval_legendre
from spaces import circle, sphere

from pythae_geometric.geometry.heat_kernel import heat_kernel_log_prob
from pythae_geometric.geometry.metric import Metric
from pythae_geometric.geometry.pullback import PullbackMetric


class Constant(Metric):
    def __init__(self, G):
        super().__init__()
        self.register_buffer("G", G)

    def forward(self, z):
        return self.G.expand(len(z), -1, -1)


def points(d=2):
    z, mean = torch.randn(2, 9, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    time = torch.linspace(0.2, 3, 9, dtype=torch.float64)
    return z, mean, time


@pytest.mark.parametrize("d", [1, 3])
def test_flat_space(d):
    z, mean, time = points(d)
    gaussian = torch.distributions.Normal(mean, time.sqrt().unsqueeze(-1))
    expected = gaussian.log_prob(z).sum(-1)
    torch.testing.assert_close(heat_kernel_log_prob(lambda z: z, z, mean, time), expected)


def test_constant_metric():
    """N(mu, t G^-1) in coordinates, once the volume at the centre is put back."""
    z, mean, time = points(2)
    A = torch.tensor([[2.0, 0.0], [1.0, 0.5], [0.0, 1.0]], dtype=torch.float64)
    precision = A.T @ A
    expected = torch.distributions.MultivariateNormal(
        mean, precision_matrix=precision / time[:, None, None]
    ).log_prob(z)
    for metric in (Constant(precision), PullbackMetric(lambda z: z @ A.T)):
        log_prob = heat_kernel_log_prob(metric, z, mean, time)
        torch.testing.assert_close(log_prob + metric.log_volume(mean), expected)


def test_is_normalised_in_one_dimension():
    """On the circle the kernel is exact up to windings, in any chart: it integrates to 1."""
    u = torch.linspace(1.0 - math.pi, 1.0 + math.pi, 2001, dtype=torch.float64).unsqueeze(-1)
    mean = torch.ones_like(u)
    log_prob = heat_kernel_log_prob(circle, u, mean, 0.1, steps=32)
    density = (log_prob + PullbackMetric(circle).log_volume(mean)).exp()
    assert abs(torch.trapezoid(density, u.squeeze(-1)).item() - 1) < 1e-3


def test_sphere():
    """Against Σ (2l + 1) / 4π exp(-l (l + 1) t / 2) P_l(cos r), the density for the volume."""
    for t, tolerance in ((0.1, 0.05), (0.025, 0.0125)):
        r = torch.linspace(0, 2 * t**0.5, 9, dtype=torch.float64)
        mean = torch.tensor([[0.8, 0.3]], dtype=torch.float64).expand(9, -1)
        metric = PullbackMetric(sphere)
        # Along the ray through the pole of the chart, coordinates are arc length.
        z = mean - r[:, None] * mean / mean.norm(dim=-1, keepdim=True)
        log_prob = heat_kernel_log_prob(metric, z, mean, t, steps=32)
        log_prob = log_prob + metric.log_volume(mean) - metric.log_volume(z)
        ell = np.arange(400)[:, None]
        series = (2 * ell + 1) / (4 * math.pi) * np.exp(-ell * (ell + 1) * t / 2)
        exact = (series * eval_legendre(ell, np.cos(r.numpy()))).sum(0)
        # The terms left out: sqrt(r / sin r) = 1 + r²/12 + ..., and the factor 1 + t/6 + ... .
        ratio = np.exp(log_prob.numpy()) / exact
        assert np.abs(ratio - 1).max() < tolerance


def test_gradients_by_differences():
    z, mean, time = points(2)
    z, mean = 0.3 * z + 0.5, 0.3 * mean + 0.5
    inputs = [a.requires_grad_() for a in (z, mean, time)]
    radius = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)

    def log_prob(z, mean, time, radius):
        return heat_kernel_log_prob(
            lambda y: radius * sphere(y), z, mean, time, steps=32, tolerance=1e-7
        )

    assert torch.autograd.gradcheck(log_prob, (*inputs, radius), eps=1e-5, atol=1e-4)


def test_at_the_centre():
    mean = torch.tensor([[0.3, 0.4]], requires_grad=True)
    log_prob = heat_kernel_log_prob(sphere, mean.detach().clone(), mean, 0.5)
    torch.testing.assert_close(log_prob, torch.tensor([-math.log(math.pi)]))
    log_prob.sum().backward()
    assert torch.isfinite(mean.grad).all()


@pytest.mark.parametrize("time", [0.0, -1.0, math.inf])
def test_bad_time(time):
    with pytest.raises(ValueError, match="positive"):
        heat_kernel_log_prob(sphere, torch.zeros(2, 2), torch.ones(2, 2), time)
