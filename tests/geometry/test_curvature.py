"""Scalar curvature and Perelman's functionals on manifolds where both are known."""

import math
import warnings

import numpy as np
import pytest
import torch
from spaces import skewed
from torch import nn

from pythae_geometric.geometry.connection import metric_scalar_curvature
from pythae_geometric.geometry.curvature import (
    curvature_and_cholesky,
    gradient_norm_squared,
    normalize_potential,
    perelman_f,
    perelman_w,
    scalar_curvature,
    total_squared_curvature,
)
from pythae_geometric.geometry.manifolds import Product, Sphere, Torus
from pythae_geometric.geometry.metric import DegenerateMetricError, Metric
from pythae_geometric.geometry.pullback import Concatenation, PullbackMetric

PRECISIONS = pytest.mark.parametrize(
    ("dtype", "tol"), [(torch.float64, 1e-8), (torch.float32, 1e-3)]
)


def random_points(n, d, dtype=torch.float64, seed=0):
    """Away from the poles of every chart below: coordinates in (0.5, 2)."""
    generator = torch.Generator().manual_seed(seed)
    return (1.5 * torch.rand(n, d, dtype=torch.float64, generator=generator) + 0.5).to(dtype)


def sphere(n, r):
    return lambda z: r * Sphere(n).immersion(z)


def doughnut(R=2.0, r=0.7):
    """The torus of revolution: r the radius of the tube, R that of its centre line."""

    def immersion(z):
        a, b = z.unbind(1)
        w = R + r * a.cos()
        return torch.stack([w * b.cos(), w * b.sin(), r * a.sin()], dim=1)

    return immersion


def decoder(d, D=30, width=24, dtype=torch.float64, activation=nn.Tanh):
    torch.manual_seed(d)
    layers = [nn.Linear(d, width), activation(), nn.BatchNorm1d(width), nn.Linear(width, width)]
    return nn.Sequential(*layers, activation(), nn.Linear(width, D)).to(dtype)


# -- pointwise ---------------------------------------------------------------------------------


@PRECISIONS
@pytest.mark.parametrize("r", [0.5, 1.0, 30.0])
@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_spheres(n, r, dtype, tol):
    R = scalar_curvature(sphere(n, r), random_points(20, n, dtype))
    assert R.dtype == dtype
    assert (R * r**2 - n * (n - 1)).abs().max() < tol * n * (n - 1)


@PRECISIONS
def test_torus_of_revolution_point_by_point(dtype, tol):
    z = 4 * random_points(50, 2, dtype)  # all around: both signs of the curvature
    cosine = z[:, 0].cos()
    expected = 2 * cosine / (0.7 * (2.0 + 0.7 * cosine))
    assert expected.min() < -0.5 and expected.max() > 0.5
    assert (scalar_curvature(doughnut(), z) - expected).abs().max() < tol


@PRECISIONS
@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_flat_torus(n, dtype, tol):
    assert scalar_curvature(Torus(n).immersion, random_points(20, n, dtype)).abs().max() < tol


@PRECISIONS
def test_curvatures_of_a_product_add_up(dtype, tol):
    product = Product(Sphere(2), Torus(1), Sphere(3))
    R = scalar_curvature(product.immersion, random_points(20, 6, dtype))
    assert (R - (2 + 0 + 6)).abs().max() < 10 * tol


@PRECISIONS
def test_a_surface_in_many_dimensions_has_the_curvature_of_its_shape(dtype, tol):
    """An isometry into R^784 and image-shaped output change nothing."""
    generator = torch.Generator().manual_seed(0)
    U = torch.linalg.qr(torch.randn(784, 3, dtype=torch.float64, generator=generator))[0].to(dtype)
    f, z = doughnut(), random_points(20, 2, dtype)
    high = scalar_curvature(lambda y: (f(y) @ U.T).view(-1, 1, 28, 28), z)
    assert (high - scalar_curvature(f, z.double())).abs().max() < tol


@PRECISIONS
@pytest.mark.parametrize("f", [sphere(2, 1.5), doughnut(), decoder(2)], ids=["S2", "T2", "net"])
def test_does_not_depend_on_the_chart(f, dtype, tol):
    def chart(w):
        return torch.stack([w[:, 0] + 0.3 * w[:, 1].sin(), 2 * w[:, 1] + 0.1 * w[:, 0] ** 2], dim=1)

    f = f.to(dtype).eval() if isinstance(f, nn.Module) else f
    w = random_points(20, 2, dtype)
    R = scalar_curvature(f, chart(w))
    scale = R.abs().max().clamp(min=1)
    assert (scalar_curvature(lambda y: f(chart(y)), w) - R).abs().max() < tol * scale


@pytest.mark.parametrize("d", [2, 3, 4])
def test_equal_to_the_curvature_of_the_levi_civita_connection(d):
    f, z = decoder(d), random_points(5, d)
    expected = metric_scalar_curvature(PullbackMetric(f), z)
    assert expected.abs().min() > 1e-3
    torch.testing.assert_close(scalar_curvature(f, z), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("d", [2, 8, 16])
def test_float32_with_an_ill_conditioned_decoder_of_images(d):
    """Condition number above 30, latent axes that are not its singular directions."""
    f = decoder(d, D=784, width=64, dtype=torch.float64).eval()
    generator = torch.Generator().manual_seed(0)
    U, V = (torch.linalg.qr(torch.randn(d, d, generator=generator).double())[0] for _ in range(2))
    A = (U * torch.logspace(0, -1.5, d, dtype=torch.float64)) @ V
    z = random_points(8, d, torch.float32)
    exact = scalar_curvature(lambda y: f(y @ A), z.double())
    f.float()
    error = (scalar_curvature(lambda y: f(y @ A.float()), z) - exact).abs()
    assert (error / exact.abs().max()).max() < 1e-3


@pytest.mark.parametrize("condition", [30.0, 90.0, 2e3, 2e4, 9e4])
@pytest.mark.parametrize("d", [2, 5])
def test_spheres_in_skewed_coordinates_in_float32(d, condition):
    A = skewed(d, condition).float()
    y = random_points(20, d)
    z = torch.linalg.solve(A.double(), y.mT).mT.float()
    z = torch.cat([z, z]).requires_grad_()
    R, L = curvature_and_cholesky(lambda z: Sphere(d).immersion(z @ A.mT), z)
    assert (R / (d * (d - 1)) - 1).abs().max() < 1e-3
    volume = L.diagonal(dim1=1, dim2=2).log().sum(1).double()
    image = z.detach().double() @ A.double().mT
    exact = PullbackMetric(Sphere(d).immersion).log_volume(image) + torch.linalg.slogdet(A)[1]
    torch.testing.assert_close(volume, exact.double(), rtol=0, atol=1e-6 * condition)


def test_gradients_where_coordinates_are_skewed_equal_those_where_they_are_not():
    """Of the curvature of a decoder, in z and in the parameters."""
    f, A = decoder(2).eval(), skewed(2, 1e3)
    y = random_points(5, 2)
    gradients = []
    for dtype, scale in ((torch.float64, torch.eye(2).double()), (torch.float32, A)):
        f.to(dtype).zero_grad()
        z = torch.linalg.solve(scale, y.mT).mT.to(dtype).requires_grad_()
        R = scalar_curvature(lambda z: f(z @ scale.to(dtype).mT), z)  # noqa: B023
        R.square().sum().backward()
        in_y = torch.linalg.solve(scale.mT, z.grad.double().mT).mT
        gradients.append([in_y, *(p.grad.double() for p in f.parameters() if p.grad is not None)])
    for exact, got in zip(*gradients, strict=True):
        assert (exact - got).abs().max() < 1e-2 * exact.abs().max()


def test_curvature_of_any_metric_warns_where_coordinates_are_too_skewed():
    """From the point at which the error passes a percent."""
    for condition in (10.0, 30.0, 100.0, 300.0):
        A = skewed(2, condition).float()
        known = PullbackMetric(lambda z: Sphere(2).immersion(z @ A.mT))  # noqa: B023
        z = torch.linalg.solve(A.double(), random_points(20, 2).mT).mT.float()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            error = (scalar_curvature(Hidden(known), z) / 2 - 1).abs().max()
        assert caught if error > 0.01 else not caught or error > 1e-4, (condition, error, caught)
    assert "too skewed for torch.float32" in str(caught[0].message)
    assert caught[0].filename == __file__


class Hidden(Metric):
    """Hides where a metric comes from, so that only its tensor is known."""

    def __init__(self, metric):
        super().__init__()
        self.metric = metric

    def forward(self, z):
        return self.metric(z)


def test_curvature_and_cholesky_come_from_one_metric():
    f, z = decoder(3), random_points(5, 3)
    R, L = curvature_and_cholesky(f, z)
    torch.testing.assert_close(R, scalar_curvature(f, z))
    torch.testing.assert_close(L @ L.mT, PullbackMetric(f)(z))
    assert not L.triu(1).any() and (L.diagonal(dim1=1, dim2=2) > 0).all()


def test_mean_and_deviation_of_a_random_decoder():
    f, z = decoder(2).eval(), random_points(5, 2)
    joint = Concatenation(lambda y: (f(y), f(y).exp()))
    expected = metric_scalar_curvature(PullbackMetric(joint), z)
    torch.testing.assert_close(scalar_curvature(joint, z), expected, rtol=1e-8, atol=1e-8)


# -- gradients ---------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [2, 3])
def test_parameter_gradients_equal_finite_differences(d):
    f, z = decoder(d).train(), random_points(5, d)

    def loss():
        return scalar_curvature(f, z).square().mean()

    loss().backward()
    assert f.training
    generator, h = torch.Generator().manual_seed(0), 1e-6
    for name, parameter in f.named_parameters():
        direction = torch.randn(parameter.shape, dtype=torch.float64, generator=generator)
        with torch.no_grad():
            parameter += h * direction
            above = loss()
            parameter -= 2 * h * direction
            below = loss()
            parameter += h * direction
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        difference = (above - below) / (2 * h)
        expected = (gradient * direction).sum()
        assert (difference - expected).abs() < 1e-6 * (1 + expected.abs()), name


def test_point_gradients_of_the_doughnut():
    z = random_points(20, 2).requires_grad_()
    (gradient,) = torch.autograd.grad(scalar_curvature(doughnut(), z).sum(), z)
    w = 2.0 + 0.7 * z[:, 0].cos()
    expected = -2 * 2.0 * z[:, 0].sin() / (0.7 * w**2)  # d/da of 2 cos a / (r (R + r cos a))
    torch.testing.assert_close(gradient[:, 0], expected)
    assert gradient[:, 1].abs().max() < 1e-8


def test_no_graph_without_gradients():
    f = decoder(2)
    with torch.no_grad():
        assert not scalar_curvature(f, random_points(5, 2)).requires_grad


# -- integrals ---------------------------------------------------------------------------------


def quadrature(domain, periodic, nodes=40):
    """Gauss-Legendre nodes where the chart ends, equidistant ones where it closes up."""
    rules = []
    for (low, high), closes in zip(domain, periodic, strict=True):
        if closes:
            x, w = (
                np.linspace(low, high, nodes, endpoint=False),
                np.full(nodes, (high - low) / nodes),
            )
        else:
            x, w = np.polynomial.legendre.leggauss(nodes)
            x, w = low + (x + 1) * (high - low) / 2, w * (high - low) / 2
        rules.append((torch.from_numpy(x), torch.from_numpy(w)))
    z = torch.cartesian_prod(*(x for x, _ in rules))
    log_weights = torch.cartesian_prod(*(w for _, w in rules)).log().sum(1)
    return z, log_weights


def geometry(f, z):
    R, L = curvature_and_cholesky(f, z)
    return R, L, L.diagonal(dim1=1, dim2=2).log().sum(1)


TURN = (0.0, 2 * math.pi)


def round_sphere(r):
    z, log_weights = quadrature(Sphere(2).domain, (False, True))
    return z, log_weights, *geometry(sphere(2, r), z)


def round_doughnut():
    z, log_weights = quadrature((TURN, TURN), (True, True))
    return z, log_weights, *geometry(doughnut(), z)


def test_gauss_bonnet():
    """∫ R dμ = 4π χ: 8π on any sphere, 0 on any torus."""
    for r in (0.5, 3.0):
        _, log_weights, R, _, log_volume = round_sphere(r)
        total = (R * (log_weights + log_volume).exp()).sum()
        assert abs(total - 8 * math.pi) < 1e-8
    _, log_weights, R, _, log_volume = round_doughnut()
    measure = (log_weights + log_volume).exp()
    assert (R.abs() * measure).sum() > 10
    assert (R * measure).sum().abs() < 1e-8


@pytest.mark.parametrize("r", [0.5, 3.0])
def test_total_squared_curvature_of_the_sphere(r):
    """(2 / r²)² 4π r²."""
    _, log_weights, R, _, log_volume = round_sphere(r)
    value = total_squared_curvature(R, log_volume, log_weights)
    assert abs(value / (16 * math.pi / r**2) - 1) < 1e-8


def test_total_squared_curvature_of_the_doughnut():
    """∫ (2 cos a / (r w))² r w da db = (8π / r) ∫ cos²a / (R + r cos a) da, in closed form."""
    _, log_weights, R, _, log_volume = round_doughnut()
    big, r = 2.0, 0.7
    root = math.sqrt(big**2 - r**2)
    # cos²a / (R + r cos a) = cos a / r - R / r² + (R² / r²) / (R + r cos a)
    integral = 2 * math.pi * (-big / r**2 + big**2 / r**2 / root)
    value = total_squared_curvature(R, log_volume, log_weights)
    assert abs(value / (8 * math.pi / r * integral) - 1) < 1e-8


def test_default_weights_are_the_mean_and_a_region_scales_it():
    generator = torch.Generator().manual_seed(0)
    n = 20_000
    z = 2 * math.pi * torch.rand(n, 2, dtype=torch.float64, generator=generator)
    R, _, log_volume = geometry(doughnut(), z)
    _, log_weights, R_nodes, _, log_volume_nodes = round_doughnut()
    exact = total_squared_curvature(R_nodes, log_volume_nodes, log_weights)
    region = 4 * math.pi**2
    per_point = region * R.square() * log_volume.exp()
    error = total_squared_curvature(R, log_volume, math.log(region / n)) - exact
    assert error.abs() < 4 * per_point.std() / math.sqrt(n)
    torch.testing.assert_close(total_squared_curvature(R, log_volume), per_point.mean() / region)


@pytest.mark.parametrize("shift", [0.0, -800.0, 800.0])
def test_normalised_potentials_are_probabilities(shift):
    z, log_weights, _, _, log_volume = round_sphere(1.3)
    f = z.sin().sum(1) + shift  # exp(±800) is beyond float64
    measure = log_weights + log_volume
    g = normalize_potential(f, log_volume, log_weights=log_weights)
    assert abs((measure - g).exp().sum() - 1) < 1e-10
    tau = 0.3
    g = normalize_potential(f, log_volume, tau, 2, log_weights=log_weights)
    assert abs((measure - g).exp().sum() / (4 * math.pi * tau) - 1) < 1e-10
    torch.testing.assert_close(g - g[0], f - f[0], rtol=0, atol=1e-11)


@pytest.mark.parametrize("r", [0.5, 3.0])
def test_perelman_with_constant_potential_on_spheres(r):
    """Then F = R = 2 / r² and W = τ R + log vol - (n/2) log 4πτ - n."""
    _, log_weights, R, _, log_volume = round_sphere(r)
    zero, tau, n = torch.zeros_like(R), 0.8, 2
    f = normalize_potential(zero + 5, log_volume, log_weights=log_weights)
    assert abs(perelman_f(R, zero, f, log_volume, log_weights) - 2 / r**2) < 1e-8
    f = normalize_potential(zero + 5, log_volume, tau, n, log_weights)
    expected = tau * 2 / r**2 + math.log(4 * math.pi * r**2) - math.log(4 * math.pi * tau) - n
    assert abs(perelman_w(R, zero, f, log_volume, tau, n, log_weights) - expected) < 1e-8


def test_perelman_with_constant_potential_on_the_doughnut():
    """F is the mean of R, which Gauss and Bonnet make 0; vol = 4π² R r."""
    _, log_weights, R, _, log_volume = round_doughnut()
    zero, tau, n = torch.zeros_like(R), 0.8, 2
    f = normalize_potential(zero, log_volume, log_weights=log_weights)
    assert perelman_f(R, zero, f, log_volume, log_weights).abs() < 1e-8
    f = normalize_potential(zero, log_volume, tau, n, log_weights)
    expected = math.log(4 * math.pi**2 * 2.0 * 0.7) - math.log(4 * math.pi * tau) - n
    assert abs(perelman_w(R, zero, f, log_volume, tau, n, log_weights) - expected) < 1e-8


def test_perelman_with_a_potential_on_the_sphere():
    """f = c cos u_1 on the unit sphere, where all integrals are those of e^{-c x} on [-1, 1].

    |∇f|² = c² (1 - x²), so F - 2 = c² E(1 - x²) = 2 c E(x) by parts, E(x) = 1/c - coth c.
    """
    c = 1.4
    z, log_weights, R, L, log_volume = round_sphere(1.0)

    def potential(y):
        return c * y[:, :1].cos()

    grad_f_sq = gradient_norm_squared(potential, z, L)
    torch.testing.assert_close(grad_f_sq, c**2 * z[:, 0].sin() ** 2)
    f = normalize_potential(potential(z).squeeze(1), log_volume, log_weights=log_weights)
    value = perelman_f(R, grad_f_sq, f, log_volume, log_weights)
    mean_x = 1 / c - 1 / math.tanh(c)
    mean_gradient = -2 * c * mean_x
    assert abs(value - (2 + mean_gradient)) < 1e-8

    tau, n = 0.6, 2
    f = normalize_potential(potential(z).squeeze(1), log_volume, tau, n, log_weights)
    constant = math.log(2 * math.pi * 2 * math.sinh(c) / c) - math.log(4 * math.pi * tau)
    expected = tau * (mean_gradient + 2) + c * mean_x + constant - n
    assert abs(perelman_w(R, grad_f_sq, f, log_volume, tau, n, log_weights) - expected) < 1e-8


@pytest.mark.parametrize("scale", [0.25, 9.0])
def test_w_is_unchanged_when_metric_and_tau_scale_together(scale):
    tau, n, values = 0.6, 2, []
    z, log_weights = quadrature((TURN, TURN), (True, True))
    for c in (1.0, scale):
        R, L, log_volume = geometry(lambda y, c=c: math.sqrt(c) * doughnut()(y), z)

        def potential(y):
            return y[:, 0].sin() + (y[:, 0] - 2 * y[:, 1]).cos()

        grad_f_sq = gradient_norm_squared(potential, z, L)
        f = normalize_potential(potential(z), log_volume, c * tau, n, log_weights)
        values.append(perelman_w(R, grad_f_sq, f, log_volume, c * tau, n, log_weights))
    torch.testing.assert_close(values[0], values[1], rtol=1e-9, atol=1e-9)


def test_w_of_a_gaussian_on_flat_space_is_zero():
    """Equality in the logarithmic Sobolev inequality: f = |x|² / 4τ."""
    tau, nodes = 0.5, 80
    z, log_weights = quadrature(((-12.0, 12.0), (-12.0, 12.0)), (False, False), nodes)
    R, L, log_volume = geometry(lambda y: y.clone(), z)

    def potential(y):
        return y.square().sum(1) / (4 * tau)

    f = normalize_potential(potential(z), log_volume, tau, 2, log_weights)
    torch.testing.assert_close(f, potential(z), rtol=0, atol=1e-8)
    W = perelman_w(R, gradient_norm_squared(potential, z, L), f, log_volume, tau, 2, log_weights)
    assert W.abs() < 1e-8


# -- what is refused or reported ---------------------------------------------------------------


@pytest.mark.parametrize("activation", [nn.ReLU, nn.LeakyReLU, nn.Hardtanh])
def test_piecewise_linear_decoders_are_reported(activation):
    f = decoder(2, activation=activation)
    with pytest.warns(UserWarning, match=rf"{activation.__name__}.*GELU, SiLU, softplus or tanh"):
        R = scalar_curvature(f, random_points(5, 2))
    assert not R.any()


def test_the_report_comes_once():
    f, z = decoder(2, activation=nn.ReLU), random_points(5, 2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            scalar_curvature(f, z)
    assert len(caught) == 1


@pytest.mark.parametrize("activation", [nn.GELU, nn.SiLU, nn.Softplus, nn.Tanh])
def test_smooth_and_linear_decoders_are_not_reported(activation):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert scalar_curvature(decoder(2, activation=activation), random_points(5, 2)).any()
        assert not scalar_curvature(nn.Linear(2, 5).double(), random_points(5, 2)).any()


def test_a_collapsed_latent_is_refused():
    f = decoder(3)
    with torch.no_grad():
        f[0].weight[:, 2] = 0
    with pytest.raises(DegenerateMetricError, match="collapsed a latent direction"):
        scalar_curvature(f, random_points(5, 3))
    with pytest.raises(DegenerateMetricError, match="at least the dimension"):
        scalar_curvature(nn.Linear(3, 2).double(), random_points(5, 3))


def test_values_that_are_not_finite_are_refused():
    f = decoder(2)
    with torch.no_grad():
        f[-1].weight[0, 0] = math.nan
    with pytest.raises(ValueError, match="not finite at 5 of the 5 points"):
        scalar_curvature(f, random_points(5, 2))
    z = random_points(5, 2)
    z[3, 1] = math.inf
    with pytest.raises(ValueError, match="not finite at 1 of the 5 points, the first at index 3"):
        scalar_curvature(decoder(2), z)


def test_wrong_shapes_are_refused():
    R = torch.zeros(4)
    with pytest.raises(ValueError, match="unsqueeze"):
        scalar_curvature(decoder(2), torch.zeros(2))
    with pytest.raises(ValueError, match="grad_f_sq must have the shape of log_volume"):
        perelman_f(R, R[:3], R, R)
    with pytest.raises(ValueError, match="R must have the shape"):
        total_squared_curvature(R.unsqueeze(1), R)
    with pytest.raises(ValueError, match=r"log_volume must have shape \[B\]"):
        total_squared_curvature(R.unsqueeze(1), R.unsqueeze(1))
    with pytest.raises(ValueError, match="log_weights must be a number or have shape"):
        total_squared_curvature(R, R, R[:3])
    with pytest.raises(ValueError, match="one number for each of the 4 points"):
        gradient_norm_squared(torch.sin, torch.zeros(4, 2), torch.eye(2).expand(4, 2, 2))
    with pytest.raises(ValueError, match=r"shape \[4, 2, 2\]"):
        gradient_norm_squared(lambda z: z.sum(1), torch.zeros(4, 2), torch.eye(2))
    for tau in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="tau"):
            perelman_w(R, R, R, R, tau, 2)
    with pytest.raises(ValueError, match="both tau and n"):
        normalize_potential(R, R, tau=1.0)
