"""Estimates of the scalar curvature by random tangents: unbiased, and exact where they must be."""

import math

import pytest
import torch
from torch import nn

from pythae_geometric.geometry import curvature_estimates, scalar_curvature


def sphere(z):
    """The unit sphere, projected from its pole."""
    square = z.square().sum(1, keepdim=True)
    return torch.cat([2 * z, 1 - square], 1) / (1 + square)


class Spheres(nn.Module):
    """S² of radius r times S³ of radius 1: R = 2 / r² + 6, with sectional curvatures 1/r², 1, 0."""

    def __init__(self, r=0.5):
        super().__init__()
        self.r = nn.Parameter(torch.tensor(r, dtype=torch.float64))

    def forward(self, z):
        return torch.cat([self.r * sphere(z[:, :2]), sphere(z[:, 2:])], 1)


def points(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("m", [2, 3, 5])
def test_exact_where_all_sectional_curvatures_are_equal(m):
    R, L = curvature_estimates(sphere, points(20, 5), m, num_estimates=3)
    torch.testing.assert_close(R, torch.full((3, 20), 20.0).double(), rtol=1e-9, atol=0)
    # The metric of this chart is 4 / (1 + |z|²)² times the identity.
    scale = 2 / (1 + points(20, 5).square().sum(1))
    expected = scale[:, None, None] * torch.eye(5, dtype=torch.float64)
    torch.testing.assert_close(L.abs(), expected)


def test_exact_with_all_tangents():
    torch.manual_seed(0)
    decoder = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 20)).double()
    z = points(10, 4)
    estimates, L = curvature_estimates(decoder, z, 4)
    R = scalar_curvature(decoder, z)
    torch.testing.assert_close(estimates, R.expand(2, -1), rtol=1e-8, atol=1e-8)
    J = torch.stack([torch.autograd.functional.jacobian(decoder, point) for point in z])
    torch.testing.assert_close(L @ L.mT, J.mT @ J)


@pytest.mark.parametrize("m", [2, 3])
def test_estimates_their_products_and_their_gradients_are_unbiased(m):
    """Means over 4,000 independent points of one value, within 4.5 standard errors."""
    spheres, N = Spheres(), 4000
    generator = torch.Generator().manual_seed(m)
    R, _ = curvature_estimates(spheres, points(N, 5), m, generator=generator)
    exact, slope = 2 / 0.5**2 + 6, -4 / 0.5**3
    product = R[0] * R[1]
    for values, expected in ((R[0], exact), (product, exact**2)):
        error = float(values.std()) / math.sqrt(N)
        assert abs(float(values.mean()) - expected) < 4.5 * error
        assert 0.001 * expected < error < 0.05 * expected
    # The gradient in r is a mean over the points, too: that of 40 groups gives its error.
    groups = [
        torch.autograd.grad(group.mean(), spheres.r, retain_graph=True)[0]
        for group in R[0].split(N // 40)
    ]
    slopes = torch.stack(groups)
    error = float(slopes.std()) / math.sqrt(40)
    assert abs(float(slopes.mean()) - slope) < 4.5 * error and error < 0.1 * abs(slope)


def test_the_deviation_is_that_of_sectional_curvatures():
    """For m = 2: d (d - 1) times the deviation of the curvature of a random plane. A plane spanned
    by orthonormal u, v has K = |u' ∧ v'|² / r² + |u'' ∧ v''|² with the parts in the two factors."""
    N, d = 4000, 5
    R, _ = curvature_estimates(Spheres(), points(N, d), 2, 1, torch.Generator().manual_seed(0))
    plane = torch.linalg.qr(torch.randn(200_000, d, 2, dtype=torch.float64))[0]

    def area(part):
        return torch.linalg.det(part.mT @ part)

    K = area(plane[:, :2]) / 0.5**2 + area(plane[:, 2:])
    expected = d * (d - 1) * float(K.std())
    # The relative error of a deviation: sqrt((kurtosis - 1) / 4 N).
    kurtosis = float(((R - R.mean()) / R.std()).pow(4).mean())
    assert float(R.std()) == pytest.approx(expected, rel=4.5 * math.sqrt((kurtosis - 1) / (4 * N)))


def test_a_seed_gives_the_same_estimates():
    draws = [
        curvature_estimates(Spheres(), points(5, 5), 2, 2, torch.Generator().manual_seed(s))[0]
        for s in (0, 0, 1)
    ]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    assert not torch.equal(draws[0][0], draws[0][1])


@pytest.mark.parametrize(
    ("m", "n", "message"),
    [
        (1, 2, "num_tangents must be a whole number of at least 2"),
        (6, 2, "num_tangents must be at most the dimension, 5"),
        (2, 0, "num_estimates must be a whole number of at least 1"),
    ],
)
def test_numbers_out_of_range(m, n, message):
    with pytest.raises(ValueError, match=message):
        curvature_estimates(Spheres(), points(3, 5), m, n)
