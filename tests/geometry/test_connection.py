"""Connection and curvature of metrics against closed forms; both routes against each other."""

import math

import pytest
import torch
from torch import nn

from pythae_geometric.geometry.connection import metric_scalar_curvature, ricci
from pythae_geometric.geometry.manifolds import Sphere, Torus
from pythae_geometric.geometry.metric import DegenerateMetricError, Metric
from pythae_geometric.geometry.pullback import PullbackMetric, StochasticPullbackMetric


def christoffel(metric, z):
    return metric.christoffel(z)


def geodesic_acceleration(metric, z, v):
    return metric.geodesic_acceleration(z, v)


def brownian_drift(metric, z):
    return metric.brownian_drift(z)


class Hyperbolic(Metric):
    """The upper half space, |dz|² / y² with y the last coordinate."""

    def forward(self, z):
        return torch.diag_embed(z[:, -1:].expand_as(z) ** -2)


class Abstract(Metric):
    """Hides where a metric comes from, so that only its tensor is known."""

    def __init__(self, metric):
        super().__init__()
        self.metric = metric

    def forward(self, z):
        return self.metric(z)


def polar(z):
    return z[:, :1] * torch.cat([z[:, 1:].cos(), z[:, 1:].sin()], dim=1)


def random_points(n=5, d=2, dtype=torch.float64, seed=0):
    """Away from the borders of every chart below: coordinates in (0.5, 1.5)."""
    return torch.rand(n, d, dtype=dtype, generator=torch.Generator().manual_seed(seed)) + 0.5


def decoder(d, out=20):
    torch.manual_seed(d)
    return nn.Sequential(
        nn.Linear(d, 16), nn.BatchNorm1d(16), nn.Softplus(), nn.Linear(16, out), nn.Sigmoid()
    ).double()


ROUTES = pytest.mark.parametrize(
    "route", [lambda f: PullbackMetric(f), lambda f: Abstract(PullbackMetric(f))],
    ids=["immersion", "tensor"],
)  # fmt: skip


def test_christoffel_of_the_hyperbolic_plane():
    z = random_points()
    expected = torch.zeros(5, 2, 2, 2, dtype=z.dtype)
    expected[:, 0, 0, 1] = expected[:, 0, 1, 0] = expected[:, 1, 1, 1] = -1 / z[:, 1]
    expected[:, 1, 0, 0] = 1 / z[:, 1]
    torch.testing.assert_close(christoffel(Hyperbolic(), z), expected)


@ROUTES
def test_christoffel_of_polar_coordinates(route):
    z = random_points()
    expected = torch.zeros(5, 2, 2, 2, dtype=z.dtype)
    expected[:, 0, 1, 1] = -z[:, 0]
    expected[:, 1, 0, 1] = expected[:, 1, 1, 0] = 1 / z[:, 0]
    torch.testing.assert_close(christoffel(route(polar), z), expected)


@ROUTES
def test_straight_lines_are_geodesics_in_polar_coordinates(route):
    """x(t) = x_0 + t w has r'' = r θ'² and θ'' = -2 r' θ' / r."""
    z, v = random_points(), random_points(seed=1) - 1
    expected = torch.stack([z[:, 0] * v[:, 1] ** 2, -2 * v[:, 0] * v[:, 1] / z[:, 0]], dim=1)
    torch.testing.assert_close(geodesic_acceleration(route(polar), z, v), expected)


@ROUTES
def test_drift_is_half_the_laplacian_of_the_coordinates(route):
    z = random_points()
    zero = torch.zeros_like(z[:, 0])
    flat = torch.stack([0.5 / z[:, 0], zero], dim=1)  # Δr = 1/r, Δθ = 0
    round_ = torch.stack([0.5 / z[:, 0].tan(), zero], dim=1)  # Δu_1 = cot u_1
    torch.testing.assert_close(brownian_drift(route(polar), z), flat)
    torch.testing.assert_close(brownian_drift(route(Sphere(2).immersion), z), round_)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_hyperbolic_space(n):
    """Δ = y² Σ∂² - (n - 2) y ∂_y; Ric = -(n - 1) g."""
    metric, z = Hyperbolic(), random_points(d=n)
    drift = torch.zeros_like(z)
    drift[:, -1] = -0.5 * (n - 2) * z[:, -1]
    torch.testing.assert_close(brownian_drift(metric, z), drift)
    torch.testing.assert_close(ricci(metric, z), -(n - 1) * metric(z), rtol=1e-9, atol=1e-9)
    expected = torch.full((5,), -n * (n - 1.0), dtype=z.dtype)
    torch.testing.assert_close(metric_scalar_curvature(metric, z), expected, rtol=1e-9, atol=1e-9)


@ROUTES
@pytest.mark.parametrize("n", [2, 3, 4])
def test_ricci_of_spheres_and_flat_tori(n, route):
    """On S^n of radius r, Ric = (n - 1) g / r² and R = n (n - 1) / r²."""
    r, z = 1.7, random_points(d=n)
    metric = route(lambda y: r * Sphere(n).immersion(y))
    torch.testing.assert_close(ricci(metric, z), (n - 1) / r**2 * metric(z), rtol=1e-8, atol=1e-9)
    expected = torch.full((5,), n * (n - 1) / r**2, dtype=z.dtype)
    torch.testing.assert_close(metric_scalar_curvature(metric, z), expected, rtol=1e-8, atol=1e-8)
    flat = ricci(route(Torus(n).immersion), z)
    torch.testing.assert_close(flat, torch.zeros_like(flat), rtol=0, atol=1e-10)


@pytest.mark.parametrize("dtype_tol", [(torch.float64, 1e-8), (torch.float32, 1e-3)])
def test_hyperbolic_plane_has_curvature_minus_two(dtype_tol):
    dtype, tol = dtype_tol
    R = metric_scalar_curvature(Hyperbolic(), random_points(50, dtype=dtype))
    assert R.dtype == dtype
    assert (R + 2).abs().max() < tol


@pytest.mark.parametrize("d", [1, 2, 3])
def test_both_routes_agree_on_a_random_decoder(d):
    f = decoder(d)
    z, v = random_points(d=d), random_points(d=d, seed=1)
    known, hidden = PullbackMetric(f), Abstract(PullbackMetric(f))
    close = {"rtol": 1e-7, "atol": 1e-9}
    torch.testing.assert_close(christoffel(known, z), christoffel(hidden, z), **close)
    torch.testing.assert_close(brownian_drift(known, z), brownian_drift(hidden, z), **close)
    torch.testing.assert_close(ricci(known, z), ricci(hidden, z), **close)
    for metric in (known, hidden):
        gamma = christoffel(metric, z)
        torch.testing.assert_close(gamma, gamma.mT)
        inverse = torch.linalg.inv(metric(z))
        torch.testing.assert_close(
            geodesic_acceleration(metric, z, v),
            -torch.einsum("bijk,bj,bk->bi", gamma, v, v),
            **close,
        )
        torch.testing.assert_close(
            brownian_drift(metric, z), -0.5 * torch.einsum("bijk,bjk->bi", gamma, inverse), **close
        )


def test_stochastic_metric_uses_the_short_route_too():
    f, z = decoder(2).eval(), random_points()
    metric = StochasticPullbackMetric(lambda y: (f(y), f(y).square()))
    torch.testing.assert_close(christoffel(metric, z), christoffel(Abstract(metric), z))


def test_the_connection_is_compatible_with_the_metric():
    """∂_k g_ij = Γ_{i,jk} + Γ_{j,ik}, by finite differences of the tensor."""
    metric, z, h = PullbackMetric(decoder(3)), random_points(d=3), 1e-5
    lowered = torch.einsum("bil,bljk->bijk", metric(z), christoffel(metric, z))
    for k, e in enumerate(torch.eye(3, dtype=z.dtype)):
        difference = (metric(z + h * e) - metric(z - h * e)) / (2 * h)
        sum_ = lowered[..., k] + lowered[..., k].mT
        torch.testing.assert_close(sum_, difference, rtol=1e-6, atol=1e-8)


def test_great_circles_keep_their_speed_and_close():
    """The geodesic equation, integrated by Runge-Kutta, returns to its start after 2π."""
    metric = PullbackMetric(Sphere(2).immersion)
    z = torch.tensor([[1.2, 0.3]], dtype=torch.float64)
    v = torch.tensor([[0.3, 1.0]], dtype=torch.float64)
    v = v / metric.norm(z, v).unsqueeze(1)
    start, steps = Sphere(2).immersion(z), 200
    h = 2 * math.pi / steps

    def field(z, v):
        return v, geodesic_acceleration(metric, z, v)

    for _ in range(steps):
        k1 = field(z, v)
        k2 = field(z + h / 2 * k1[0], v + h / 2 * k1[1])
        k3 = field(z + h / 2 * k2[0], v + h / 2 * k2[1])
        k4 = field(z + h * k3[0], v + h * k3[1])
        z, v = (
            x + h / 6 * (a + 2 * b + 2 * c + d)
            for x, a, b, c, d in zip((z, v), k1, k2, k3, k4, strict=True)
        )
    torch.testing.assert_close(Sphere(2).immersion(z), start, rtol=0, atol=1e-6)
    torch.testing.assert_close(metric.norm(z, v), torch.ones(1, dtype=z.dtype))


@ROUTES
@pytest.mark.parametrize("quantity", [christoffel, brownian_drift, metric_scalar_curvature])
def test_gradients_in_points_and_parameters(route, quantity):
    f = decoder(2, out=6).eval()
    metric, z = route(f), random_points(2).requires_grad_()
    assert torch.autograd.gradcheck(lambda y: quantity(metric, y), z, atol=1e-4, rtol=1e-3)
    weight = f[0].weight

    def of_weight(w):
        moved = lambda y: torch.func.functional_call(f, {"0.weight": w}, (y,))  # noqa: E731
        return quantity(route(moved), z.detach())

    w = weight.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(of_weight, w, atol=1e-4, rtol=1e-3, fast_mode=True)


@pytest.mark.parametrize("quantity", [christoffel, brownian_drift, ricci, metric_scalar_curvature])
def test_a_degenerate_metric_is_refused(quantity):
    class Zero(Metric):
        def forward(self, z):
            return z.unsqueeze(-1) * z.unsqueeze(-2)  # rank one

    with pytest.raises(DegenerateMetricError):
        quantity(Zero(), random_points())
