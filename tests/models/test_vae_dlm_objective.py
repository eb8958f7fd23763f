"""VAE_DLM's objective: the flow of a metric, on moving surfaces with closed forms and as an
ordinary equation, and the likelihood."""

import math

import pytest
import torch
from scipy.linalg import expm
from torchdiffeq import odeint

from pythae_geometric.geometry import directional_derivative, value_and_jacobian
from pythae_geometric.models.vae_dlm.objective import (
    divergence,
    draw,
    eigenvalue_penalty,
    euclidean_metric,
    flow_residual,
    log_weight,
    rank,
    sphere_metric,
)

ALPHA = 2.0
TIMES = torch.linspace(0, 1, 21, dtype=torch.float64)


def positive(seed, d=4, count=3):
    A = torch.randn(count, d, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return A.mT @ A + 0.1 * torch.eye(d, dtype=torch.float64)


def commuting(seed, d=4, count=3):
    """Three positive matrices with the same eigenvectors, and those with their eigenvalues."""
    generator = torch.Generator().manual_seed(seed)
    Q = torch.linalg.qr(torch.randn(count, d, d, dtype=torch.float64, generator=generator)).Q
    eigenvalues = 0.1 + 2 * torch.rand(3, count, d, dtype=torch.float64, generator=generator)
    return [Q @ torch.diag_embed(e) @ Q.mT for e in eigenvalues]


def flow(g0, Lambda, Sigma, alpha=ALPHA):
    def velocity(t, g):
        return -flow_residual(torch.zeros_like(g), g, Lambda, alpha, Sigma)

    return odeint(velocity, g0, TIMES, rtol=1e-10, atol=1e-12)


def flow_functional(g, Lambda, alpha, Sigma):
    """½ <(Λ + α I) g, g> - α <Σ, g>, which falls along the flow (Gracyk 2024, theorem 1)."""
    quadratic = ((Lambda @ g + alpha * g) * g).sum((-2, -1))
    return 0.5 * quadratic - alpha * (Sigma * g).sum((-2, -1))


# Moving surfaces


def sphere_points(u, radius):
    """Angles of the d-sphere to points of R^(d+1)."""
    sines = torch.cat([torch.ones_like(u[:, :1]), u.sin().cumprod(1)], dim=1)
    cosines = torch.cat([u.cos(), torch.ones_like(u[:, :1])], dim=1)
    return radius * sines * cosines


@pytest.mark.parametrize("d", [1, 2, 5])
def test_the_sphere_metric_is_that_of_the_sphere(d):
    u = torch.rand(7, d, dtype=torch.float64, generator=torch.Generator().manual_seed(d)) * 3
    J = value_and_jacobian(lambda v: sphere_points(v, math.sqrt(2.5)), u)[1]
    torch.testing.assert_close(sphere_metric(u, 2.5), J.mT @ J)


def test_the_residual_of_a_shrinking_sphere():
    """Radius r(t) = √10 e^{-t}: ∂_t g = -2 g, so with Λ = c I the residual is
    (c + α - 2) g - α Σ, with g = e^{-2t} Σ."""
    u = torch.rand(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 3
    t = torch.linspace(0.1, 0.9, 6, dtype=torch.float64).unsqueeze(1)

    def metric(s):
        J = value_and_jacobian(lambda v: sphere_points(v, math.sqrt(10.0)) * (-s).exp(), u)[1]
        return J.mT @ J

    g, dg = directional_derivative(metric, t, torch.ones_like(t))
    Sigma = sphere_metric(u)
    decay = (-2 * t).exp().unsqueeze(2)
    torch.testing.assert_close(g, decay * Sigma)
    c = 0.7
    Lambda = c * torch.eye(3, dtype=torch.float64).expand(6, 3, 3)
    exact = ((c + ALPHA - 2) * decay - ALPHA) * Sigma
    torch.testing.assert_close(flow_residual(dg, g, Lambda, ALPHA, Sigma), exact)


def test_the_euclidean_metric():
    u = torch.randn(3, 2)
    torch.testing.assert_close(euclidean_metric(u, 4.0), 4 * torch.eye(2).expand(3, 2, 2))


# The flow


def test_without_operator_the_metric_decays_to_the_steady_one_at_the_rate():
    g0, Sigma = positive(0), positive(1)
    g = flow(g0, torch.zeros_like(g0), Sigma)
    decay = (-ALPHA * TIMES).exp().view(-1, 1, 1, 1)
    torch.testing.assert_close(g, Sigma + decay * (g0 - Sigma), rtol=1e-8, atol=1e-8)


def test_a_commuting_operator_gives_the_closed_form_and_keeps_the_metric_positive():
    g0, Sigma, Lambda = commuting(2)
    g = flow(g0, Lambda, Sigma)
    decayed = Lambda + ALPHA * torch.eye(4, dtype=torch.float64)
    limit = ALPHA * torch.linalg.solve(decayed, Sigma)
    for t, gt in zip(TIMES, g, strict=True):
        exact = limit + torch.from_numpy(expm((-decayed * t).numpy())) @ (g0 - limit)
        torch.testing.assert_close(gt, exact, rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(gt, gt.mT)
        assert torch.linalg.eigvalsh(gt).min() > 0


def test_another_operator_takes_the_flow_out_of_the_symmetric_matrices():
    """The antisymmetric part of the residual is half the commutator, whatever ∂_t g."""
    g, Lambda, Sigma, dg = (positive(seed) for seed in range(4))
    residual = flow_residual(dg, g, Lambda, ALPHA, Sigma)
    commutator = Lambda @ g - g @ Lambda
    assert commutator.abs().max() > 0.1
    torch.testing.assert_close(residual - residual.mT, commutator)
    after = flow(g, Lambda, Sigma)[-1]
    assert (after - after.mT).abs().max() > 1e-3


@pytest.mark.parametrize("seed", range(3))
def test_the_flow_is_the_gradient_flow_of_the_functional(seed):
    """Theorem 1: its gradient is minus the velocity, and dF/dt = -|∂_t g|²."""
    g0, Lambda, Sigma = (positive(3 * seed + k) for k in range(3))
    g = g0.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(flow_functional(g, Lambda, ALPHA, Sigma).sum(), g)
    velocity = -flow_residual(torch.zeros_like(g0), g0, Lambda, ALPHA, Sigma)
    torch.testing.assert_close(gradient, -velocity)

    path = flow(g0, Lambda, Sigma)
    F = torch.stack([flow_functional(gt, Lambda, ALPHA, Sigma) for gt in path])
    assert (F.diff(dim=0) < 0).all()
    speed = torch.stack(
        [flow_residual(torch.zeros_like(gt), gt, Lambda, ALPHA, Sigma) for gt in path]
    )
    # The loss of F from the start on is the integral of the squared speed; trapezoids on a grid
    # of h miss it by h² / 12 times the change of the slope of the integrand.
    integrand, h = speed.square().sum((-2, -1)), float(TIMES[1])
    loss = torch.trapezoid(integrand, TIMES, dim=0)
    steepest = (integrand.diff(dim=0) / h).abs().amax(0)
    assert ((F[0] - F[-1] - loss).abs() < h**2 / 12 * 3 * steepest).all()


def test_the_eigenvalue_penalty_is_zero_only_where_the_metric_is_large_enough():
    Sigma = positive(0)
    assert (eigenvalue_penalty(Sigma + positive(1), Sigma) == 0).all()
    g = Sigma - torch.diag_embed(torch.tensor([0.0, 1.0, -2.0, 3.0], dtype=torch.float64))
    exact = torch.tensor([9.0, 1.0, 0.0, 0.0], dtype=torch.float64).expand(3, 4)
    torch.testing.assert_close(eigenvalue_penalty(g, Sigma), exact)


def test_rank_counts_metrics_that_are_singular_up_to_rounding():
    """J has a column that is a multiple of another at two points, a small one at a third."""
    J = torch.randn(5, 6, 3, generator=torch.Generator().manual_seed(0))
    J[:2, :, 2] = 3 * J[:2, :, 0]
    J[2, :, 2] *= 0.05
    g = J.mT @ J
    smallest, lost = rank(g)
    exact = torch.linalg.svdvals(J.double())[:, -1].square()
    assert lost == 2
    assert abs(float(smallest)) < 1e-5 < float(exact[2:].min())
    torch.testing.assert_close(float(rank(g[2:])[0]), float(exact[2:].min()), rtol=1e-3, atol=0)


# Posterior and likelihood


def posteriors(n=6, d=3):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, n, d, dtype=torch.float64, generator=generator)


def test_the_divergence_is_twice_that_of_two_gaussians():
    mean, log_variance = posteriors()
    q = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    p = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    exact = 2 * torch.distributions.kl_divergence(q, p).sum(1)
    torch.testing.assert_close(divergence(mean, log_variance), exact)


def test_the_weight_of_a_draw_is_that_of_the_densities():
    mean, log_variance = posteriors()
    u, noise = draw(mean, log_variance)
    x, recon_x = torch.randn(2, 6, 2, 5, dtype=torch.float64)
    normal = torch.distributions.Normal
    deviation = (0.5 * log_variance).exp()
    exact = (
        normal(recon_x, 0.3**0.5).log_prob(x).sum((1, 2))
        + normal(torch.zeros_like(u), 1.0).log_prob(u).sum(1)
        - normal(mean, deviation).log_prob(u).sum(1)
    )
    torch.testing.assert_close(log_weight(x, recon_x, 0.3, u, noise, log_variance), exact)


def test_draws_have_the_moments_of_the_posterior():
    n, mean, log_variance = 100_000, torch.tensor([[1.0, -2.0]]), torch.tensor([[0.5, -1.0]])
    torch.manual_seed(0)
    u, _ = draw(mean.expand(n, 2), log_variance.expand(n, 2))
    variance = log_variance[0].exp()
    # Five deviations of a mean, and of a variance.
    assert ((u.mean(0) - mean[0]).abs() < 5 * (variance / n).sqrt()).all()
    assert ((u.var(0) - variance).abs() < 5 * variance * (2 / n) ** 0.5).all()
