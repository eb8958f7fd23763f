"""Pullback metrics against closed forms, and their numerics in float32."""

import math

import pytest
import torch
from spaces import skewed
from torch import nn

from pythae_geometric.geometry.metric import DegenerateMetricError, Metric
from pythae_geometric.geometry.pullback import (
    PullbackMetric,
    StochasticPullbackMetric,
    orthonormal_frame,
)


def sphere(z):
    u, v = z[:, :1], z[:, 1:]
    return torch.cat([u.cos(), u.sin() * v.cos(), u.sin() * v.sin()], dim=1)


def random_points(n, d, dtype=torch.float64, seed=0):
    return torch.rand(n, d, dtype=dtype, generator=torch.Generator().manual_seed(seed)) + 0.5


def network(d=3, out=(2, 5), dtype=torch.float64):
    torch.manual_seed(0)
    size = math.prod(out)
    return nn.Sequential(nn.Linear(d, 16), nn.Tanh(), nn.Linear(16, size), nn.Unflatten(1, out)).to(
        dtype
    )


@pytest.mark.parametrize(("dtype", "tol"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_sphere_in_spherical_coordinates(dtype, tol):
    z = random_points(5, 2, dtype)
    metric, sine = PullbackMetric(sphere), z[:, 0].sin()
    expected = torch.diag_embed(torch.stack([torch.ones_like(sine), sine**2], dim=1))
    torch.testing.assert_close(metric(z), expected, rtol=tol, atol=tol)
    torch.testing.assert_close(metric.log_volume(z), sine.log(), rtol=tol, atol=tol)
    value, grad = metric.log_volume_and_grad(z)
    cotangent = torch.stack([1 / z[:, 0].tan(), torch.zeros_like(sine)], dim=1)
    torch.testing.assert_close(value, sine.log(), rtol=tol, atol=tol)
    torch.testing.assert_close(grad, cotangent, rtol=tol, atol=tol)


def test_image_shaped_output_and_the_shared_vocabulary():
    metric, z = PullbackMetric(network()), random_points(4, 3)
    G, L, S = metric(z), metric.cholesky(z), metric.inverse_sqrt(z)
    J = torch.stack([torch.autograd.functional.jacobian(metric.immersion, p[None]) for p in z])
    J = J.reshape(4, 10, 3)
    eye = torch.eye(3, dtype=z.dtype).expand(4, -1, -1)
    torch.testing.assert_close(G, J.mT @ J)
    torch.testing.assert_close(L @ L.mT, G)
    assert (L.diagonal(dim1=1, dim2=2) > 0).all() and not L.triu(1).any()
    torch.testing.assert_close(S @ G @ S, eye)
    torch.testing.assert_close(metric.log_volume(z), 0.5 * torch.logdet(G))
    torch.testing.assert_close(metric.norm(z, z), torch.einsum("bi,bij,bj->b", z, G, z).sqrt())


def test_stochastic_metric_is_the_mean_of_the_sampled_pullbacks():
    mu, sigma = network(), nn.Sequential(network(), nn.Softplus())
    z = random_points(4, 3)
    metric = StochasticPullbackMetric(lambda y: (mu(y), sigma(y)))
    # For noise that is +1 or -1 everywhere the mean over both is exact.
    up, down = (PullbackMetric(lambda y, e=e: mu(y) + e * sigma(y)) for e in (1, -1))
    torch.testing.assert_close(metric(z), 0.5 * (up(z) + down(z)))
    torch.testing.assert_close(metric(z), PullbackMetric(mu)(z) + PullbackMetric(sigma)(z))
    torch.testing.assert_close(metric.log_volume(z), 0.5 * torch.logdet(metric(z)))


def test_parameters_belong_to_the_metric_and_receive_gradients():
    class Gaussian(nn.Module):
        def __init__(self):
            super().__init__()
            self.mu, self.log_sigma = network(), network()

        def forward(self, z):
            return self.mu(z), self.log_sigma(z).exp()

    for metric in (PullbackMetric(network()), StochasticPullbackMetric(Gaussian())):
        metric.log_volume(random_points(4, 3)).sum().backward()
        gradients = {name: p.grad for name, p in metric.named_parameters()}
        assert gradients
        for name, gradient in gradients.items():
            # A shift of the mean moves the image without a change of shape.
            shift = name.endswith("2.bias") and "sigma" not in name
            assert (gradient is None or not gradient.any()) if shift else gradient.any(), name


def test_gradients_of_the_volume_equal_finite_differences():
    metric = PullbackMetric(network())
    weight = metric.immersion[0].weight
    z = random_points(3, 3).requires_grad_()
    assert torch.autograd.gradcheck(metric.log_volume, z)
    assert torch.autograd.gradgradcheck(metric.log_volume, z)

    def volume(w):
        f = torch.func.functional_call
        return PullbackMetric(lambda y: f(metric.immersion, {"0.weight": w}, (y,))).log_volume(z)

    assert torch.autograd.gradcheck(volume, weight.detach().clone().requires_grad_())


def test_float32_volume_survives_a_badly_scaled_map():
    """J stretches one direction 10,000 times more than another: G has condition 1e8."""
    generator = torch.Generator().manual_seed(0)
    U, _ = torch.linalg.qr(torch.randn(50, 3, dtype=torch.float64, generator=generator))
    V, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=generator))
    A = (U * torch.tensor([1.0, 1e-2, 1e-4], dtype=torch.float64)) @ V.mT
    metric = PullbackMetric(lambda z: z @ A.mT.to(z))
    z = random_points(4, 3, torch.float32)
    exact = math.log(1e-6)
    # cond(J) * eps = 1e4 * 1.2e-7; the Cholesky factor of G would be off by cond(J)² eps > 1.
    assert (metric.log_volume(z) - exact).abs().max() < 5e-3
    with_gram = Metric.cholesky
    try:
        error = with_gram(metric, z).diagonal(dim1=1, dim2=2).log().sum(1).sub(exact).abs().max()
    except DegenerateMetricError:
        return
    assert error > 5e-3


def test_units_of_the_latent_coordinates_do_not_matter():
    scale = torch.tensor([1e8, 1e-8], dtype=torch.float64)
    z = random_points(3, 2)
    volume = PullbackMetric(lambda y: sphere(y * scale)).log_volume(z / scale)
    torch.testing.assert_close(volume, z[:, 0].sin().log())


COLLAPSED = {
    "constant": lambda z: torch.ones(len(z), 4, dtype=z.dtype) + 0 * z[:, :1],
    "one direction": lambda z: (z[:, :1] + z[:, 1:]).sin() * torch.arange(1, 5).to(z),
    "few outputs": lambda z: z[:, :1],
    "not finite": lambda z: (z * float("nan")).repeat(1, 2),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", COLLAPSED)
def test_a_collapsed_map_is_refused(name, dtype):
    metric, z = PullbackMetric(COLLAPSED[name]), random_points(3, 2, dtype)
    for quantity in (metric.log_volume, metric.cholesky, metric.christoffel, metric.brownian_drift):
        with pytest.raises(DegenerateMetricError, match=r"collapsed|at least the dimension"):
            quantity(z)


def test_the_error_names_the_first_bad_point():
    J = torch.eye(3, 2).repeat(5, 1, 1)
    J[3, :, 1] = 2 * J[3, :, 0]
    with pytest.raises(DegenerateMetricError, match=r"1 of the 5 points, the first at index 3"):
        orthonormal_frame(J)


def test_bad_immersions_are_refused():
    with pytest.raises(TypeError, match="module or a function"):
        PullbackMetric(torch.zeros(3))
    with pytest.raises(TypeError, match="tuple of tensors"):
        StochasticPullbackMetric(torch.sin)(torch.zeros(2, 2))
    with pytest.raises(TypeError, match="one tensor"):
        PullbackMetric(lambda z: (z, z))(torch.zeros(2, 2))


@pytest.mark.parametrize("condition", [1e2, 1e4])
def test_norms_and_roots_in_skewed_coordinates_in_float32(condition):
    """Where the products of J, whose condition number is the square, leave no digit."""
    A = skewed(3, condition).float()
    metric = PullbackMetric(lambda z: z @ A.mT)
    z = random_points(4, 3, torch.float32)
    _, S, Vh = torch.linalg.svd(A.double())
    shortest = Vh[-1].float().expand_as(z)
    size = (shortest.double() @ A.double().mT).norm(dim=1)
    close = {"rtol": 4e-7 * condition, "atol": 0}
    torch.testing.assert_close(metric.norm(z, shortest).double(), size, **close)
    torch.testing.assert_close(metric.inner(z, shortest, shortest).double(), size**2, **close)
    root = (Vh.mT / S) @ Vh
    got = metric.inverse_sqrt(z).double()
    assert ((got - root).norm(dim=(1, 2)) / root.norm()).max() < 4e-7 * condition


def test_norms_and_roots_are_those_of_the_tensor():
    metric, z = PullbackMetric(sphere), random_points(5, 2)
    u, v = torch.randn(2, 5, 2, dtype=z.dtype, generator=torch.Generator().manual_seed(0))
    G = metric(z)
    torch.testing.assert_close(metric.inner(z, u, v), torch.einsum("bi,bij,bj->b", u, G, v))
    torch.testing.assert_close(metric.norm(z, u), torch.einsum("bi,bij,bj->b", u, G, u).sqrt())
    root = metric.inverse_sqrt(z)
    torch.testing.assert_close(root @ G @ root, torch.eye(2, dtype=z.dtype).expand_as(G))
    torch.testing.assert_close(root, root.mT)


def test_a_decoder_of_pythae_is_an_immersion():
    """It returns a mapping with the key "reconstruction", here of images."""

    def decoder(z):
        return {"reconstruction": sphere(z).unflatten(1, (1, 3)), "other": None}

    z = random_points(5, 2)
    torch.testing.assert_close(PullbackMetric(decoder)(z), PullbackMetric(sphere)(z))
    torch.testing.assert_close(PullbackMetric(decoder).image(z), sphere(z))


def test_the_volume_of_a_linear_map_is_constant():
    """By a pure function, whose volume has no graph, and by a layer, whose volume has one of its
    weights."""
    A = torch.randn(5, 2, dtype=torch.float64)
    layer = nn.Linear(2, 5).double()
    z = torch.randn(4, 2, dtype=torch.float64)
    for f, J in ((lambda y: y @ A.T, A), (layer, layer.weight.detach())):
        value, grad = PullbackMetric(f).log_volume_and_grad(z)
        assert torch.allclose(value, 0.5 * torch.logdet(J.T @ J).expand(4))
        assert torch.equal(grad, torch.zeros_like(z))
