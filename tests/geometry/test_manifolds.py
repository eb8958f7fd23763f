"""Reference manifolds: uniform samples, exact distances, group actions."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.spatial.transform import Rotation

from pythae_geometric.geometry.manifolds import (
    Circle,
    Manifold,
    Product,
    SpecialOrthogonal3,
    Sphere,
    Torus,
)
from pythae_geometric.geometry.pullback import PullbackMetric

MANIFOLDS = [
    Circle(),
    Sphere(2),
    Sphere(3),
    Sphere(5),
    Torus(1),
    Torus(3),
    SpecialOrthogonal3(),
    Product(Sphere(2), Circle(), SpecialOrthogonal3()),
]
EVERY = pytest.mark.parametrize("M", MANIFOLDS, ids=repr)
N = 5000
# A Kolmogorov-Smirnov test of N uniform points stays below this but once in 10,000.
KS_BOUND = stats.kstwo.ppf(1 - 1e-4, N)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def sample(M, n=20, seed=0, dtype=torch.float64):
    return M.sample(n, generator=generator(seed), dtype=dtype)


def coordinates(M, n=20, seed=0):
    low, high = torch.tensor(M.domain, dtype=torch.float64).T
    return low + (high - low) * torch.rand(n, M.dim, dtype=torch.float64, generator=generator(seed))


def group_element(M, n=20, seed=0):
    return M.group_element(
        3 * torch.randn(n, M.group_dim, dtype=torch.float64, generator=generator(seed))
    )


# -- every manifold ----------------------------------------------------------------------------


@EVERY
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_chart_and_samples_lie_on_the_manifold(M, dtype):
    x, y = M.immersion(coordinates(M).to(dtype)), sample(M, dtype=dtype)
    assert x.shape == y.shape == (20, M.ambient_dim) and x.dtype == y.dtype == dtype
    M.check(x)
    M.check(y)


@EVERY
def test_samples_follow_the_generator(M):
    assert torch.equal(sample(M, seed=3), sample(M, seed=3))
    assert not torch.equal(sample(M, seed=3), sample(M, seed=4))


@EVERY
def test_moments_of_the_uniform_distribution(M):
    """All irreducible: mean 0, covariance a multiple of the identity with trace |x|²."""
    x = sample(M, N)
    mean, second = x.mean(0), x.mT @ x / N
    sphere_dim = torch.tensor([1 / entries for entries in _block_sizes(M)], dtype=x.dtype)
    expected = torch.diag(sphere_dim)
    # Entries are bounded by 1, so that their standard errors are at most 1 / √N.
    assert mean.abs().max() < 5 / math.sqrt(N)
    assert (second - expected).abs().max() < 5 / math.sqrt(N)


def _block_sizes(M):
    """1 / E x_i² for every ambient coordinate."""
    if isinstance(M, Product):
        return [size for factor in M.factors for size in _block_sizes(factor)]
    return [3 if isinstance(M, SpecialOrthogonal3) else M.ambient_dim] * M.ambient_dim


@EVERY
def test_distance_is_a_metric(M):
    x, y, z = (sample(M, 200, seed) for seed in range(3))
    d = M.distance
    assert d(x, x).abs().max() < 1e-12
    torch.testing.assert_close(d(x, y), d(y, x))
    assert (d(x, z) <= d(x, y) + d(y, z) + 1e-12).all()
    # The chord is never longer than the arc.
    assert ((x - y).norm(dim=1) <= d(x, y) + 1e-12).all()


@EVERY
def test_distance_is_the_length_of_short_steps_in_the_chart(M):
    """d(f(z), f(z + h v)) = h |v|_G + O(h²) in the metric that the chart pulls back."""
    z, h = coordinates(M), 1e-4
    v = torch.randn(z.shape, dtype=z.dtype, generator=generator(1))
    step = M.distance(M.immersion(z - h / 2 * v), M.immersion(z + h / 2 * v))
    torch.testing.assert_close(
        step / h, PullbackMetric(M.immersion).norm(z, v), rtol=1e-6, atol=1e-6
    )


@EVERY
def test_group_acts_by_isometries(M):
    x, y = sample(M, seed=1), sample(M, seed=2)
    g, h = group_element(M, seed=3), group_element(M, seed=4)
    M.check(M.act(g, x))
    torch.testing.assert_close(M.act(M.identity(dtype=x.dtype), x), x)
    torch.testing.assert_close(M.act(M.compose(g, h), x), M.act(g, M.act(h, x)))
    torch.testing.assert_close(M.distance(M.act(g, x), M.act(g, y)), M.distance(x, y))
    zero = M.group_element(torch.zeros(1, M.group_dim, dtype=x.dtype))
    torch.testing.assert_close(zero, M.identity(dtype=x.dtype))
    # Orthogonal, determinant 1: a rotation of the ambient space; and it does move points.
    torch.testing.assert_close(g @ g.mT, M.identity(dtype=x.dtype).expand_as(g))
    torch.testing.assert_close(torch.linalg.det(g), torch.ones(20, dtype=x.dtype))
    assert (M.distance(M.act(g, x), x) > 1e-3).all()


@EVERY
def test_group_is_transitive_near_every_point(M):
    """The orbit map at the identity has full rank: the group moves a point everywhere."""
    x = sample(M, 1)
    zero = torch.zeros(M.group_dim, dtype=x.dtype)
    orbit = torch.autograd.functional.jacobian(
        lambda p: M.act(M.group_element(p.unsqueeze(0)), x)[0], zero
    )
    singular_values = torch.linalg.svdvals(orbit)
    assert (singular_values[: M.dim] > 0.1).all()
    assert (singular_values[M.dim :] < 1e-12).all()


@EVERY
def test_gradients_are_finite_also_where_points_coincide(M):
    x = sample(M).requires_grad_()
    y = x.detach().clone()
    y[10:] = sample(M, 10, seed=7)
    parameters = torch.zeros(20, M.group_dim, dtype=x.dtype, requires_grad=True)
    distance = M.distance(M.act(M.group_element(parameters), x), y)
    for gradient in torch.autograd.grad(distance.sum(), (x, parameters)):
        assert torch.isfinite(gradient).all() and gradient[10:].any()


@EVERY
def test_check_says_what_is_wrong(M):
    x = sample(M)
    with pytest.raises(ValueError, match=rf"shape \[B, {M.ambient_dim}\]"):
        M.check(x[:, :-1])
    x[7] *= 1.01
    with pytest.raises(ValueError, match=r"1 of 20 points.*the first at index 7.*off"):
        M.check(x)
    x[7] = math.nan
    with pytest.raises(ValueError, match="index 7"):
        M.check(x)


def test_a_reflection_is_no_rotation():
    with pytest.raises(ValueError, match="determinant"):
        SpecialOrthogonal3().check(-torch.eye(3).flatten().unsqueeze(0))


@EVERY
def test_wrong_number_of_group_parameters_is_refused(M):
    with pytest.raises((ValueError, RuntimeError)):
        M.group_element(torch.zeros(2, M.group_dim + 1))


def test_bad_dimensions_are_refused():
    for make in (Sphere, Torus):
        with pytest.raises(ValueError, match="at least 1"):
            make(0)
    with pytest.raises(ValueError, match="at least one factor"):
        Product()


def test_all_share_the_base_class():
    assert all(isinstance(M, Manifold) for M in MANIFOLDS)


# -- the uniform chart and frames --------------------------------------------------------------

CHARTS = pytest.mark.parametrize("M", [*MANIFOLDS, Sphere(4)], ids=repr)


@CHARTS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_uniform_chart_and_its_inverse(M, dtype):
    u = 0.01 + 0.98 * torch.rand(200, M.dim, dtype=dtype, generator=generator())
    x = M.from_cube(u)
    M.check(x)
    tolerance = 1e-9 if dtype == torch.float64 else 2e-4
    torch.testing.assert_close(M.to_cube(x), u, rtol=0, atol=tolerance)
    y = sample(M, 200, dtype=dtype)
    torch.testing.assert_close(M.from_cube(M.to_cube(y)), y, rtol=0, atol=tolerance)


@CHARTS
def test_the_uniform_chart_has_a_constant_volume_element(M):
    u = 0.05 + 0.9 * torch.rand(200, M.dim, dtype=torch.float64, generator=generator())
    log_volume = PullbackMetric(M.from_cube).log_volume(u)
    torch.testing.assert_close(log_volume, log_volume[:1].expand(200), rtol=0, atol=1e-9)


@CHARTS
def test_projection_is_the_nearest_point(M):
    """The identity on the manifold; off it what is left over is normal to the manifold."""
    x = sample(M)
    torch.testing.assert_close(M.project(x), x)
    moved = x + 0.1 * torch.randn(x.shape, dtype=x.dtype, generator=generator(1))
    y = M.project(moved)
    M.check(y)
    J = PullbackMetric(M.from_cube).jacobian(M.to_cube(y))
    normal = (J.mT @ (moved - y).unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(normal, torch.zeros_like(normal), rtol=0, atol=1e-8)


@CHARTS
def test_frames_give_every_group_element_and_only_those(M):
    g = M.group_element_from_frame(
        torch.randn(20, M.frame_dim, dtype=torch.float64, generator=generator())
    )
    torch.testing.assert_close(g @ g.mT, M.identity(dtype=g.dtype).expand_as(g))
    torch.testing.assert_close(torch.linalg.det(g), torch.ones(20, dtype=g.dtype))
    M.check(M.act(g, sample(M)))
    if not isinstance(M, Product):  # of a rotation the first columns are a frame
        h = group_element(M)
        if isinstance(M, SpecialOrthogonal3):
            frame = h.view(-1, 3, 3, 3, 3)[:, :, 0, :2, 0].mT
        else:
            frame = h[:, :, :-1].mT
        torch.testing.assert_close(M.group_element_from_frame(frame.flatten(1)), h)
    with pytest.raises((ValueError, RuntimeError)):
        M.group_element_from_frame(torch.zeros(2, M.frame_dim + 1))


def test_a_loop_of_frames_winds_round_the_circle_group():
    t = coordinates(Circle())
    g = Circle().group_element_from_frame(torch.cat([3 * t.cos(), 3 * t.sin()], dim=1))
    torch.testing.assert_close(g, Circle().group_element(t))


# -- uniform distributions in closed form ------------------------------------------------------


def ks(values, cdf):
    return stats.kstest(values.numpy(), cdf).statistic


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_squared_coordinates_on_a_sphere_are_beta(n):
    x = sample(Sphere(n), N)
    for i in range(n + 1):
        assert ks(x[:, i].square(), stats.beta(0.5, n / 2).cdf) < KS_BOUND


@pytest.mark.parametrize("M", [Circle(), Torus(2)], ids=repr)
def test_angles_on_a_torus_are_uniform(M):
    for pair in sample(M, N).split(2, dim=1):
        angle = torch.atan2(pair[:, 1], pair[:, 0])
        assert ks(angle, stats.uniform(-math.pi, 2 * math.pi).cdf) < KS_BOUND


def test_rotation_angles_have_their_density():
    """The angle t of a uniform rotation has density (1 - cos t) / π; its columns are uniform."""
    M = SpecialOrthogonal3()
    x = sample(M, N)
    identity = torch.eye(3, dtype=x.dtype).flatten().expand_as(x)
    angle = M.distance(identity, x) / math.sqrt(2)
    assert ks(angle, lambda t: (t - np.sin(t)) / math.pi) < KS_BOUND
    for column in x.unflatten(1, (3, 3)).unbind(2):
        for entry in column.unbind(1):
            assert ks(entry, stats.uniform(-1, 2).cdf) < KS_BOUND


@pytest.mark.parametrize(
    ("M", "volume"),
    [
        (Circle(), 2 * math.pi),
        (Sphere(2), 4 * math.pi),
        (Sphere(3), 2 * math.pi**2),
        (Sphere(4), 8 * math.pi**2 / 3),
        (Torus(3), (2 * math.pi) ** 3),
        (SpecialOrthogonal3(), 8 * math.pi**2 * 2**1.5),
    ],
    ids=repr,
)
def test_charts_cover_the_manifold_once(M, volume):
    """Volume of the chart's domain by Gauss-Legendre quadrature."""
    x, w = np.polynomial.legendre.leggauss(12)
    x, w = torch.from_numpy(x), torch.from_numpy(w)
    low, high = torch.tensor(M.domain, dtype=torch.float64).T
    unit = torch.cartesian_prod(*[x] * M.dim).view(-1, M.dim)
    weights = torch.cartesian_prod(*[w] * M.dim).view(-1, M.dim).prod(1)
    z = low + (unit + 1) / 2 * (high - low)
    total = (PullbackMetric(M.immersion).log_volume(z).exp() * weights).sum()
    assert abs(total * ((high - low) / 2).prod() / volume - 1) < 1e-8


# -- exact distances ---------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 4])
@pytest.mark.parametrize("arc", [1e-9, 1e-3, 1.0, 3.0, math.pi])
def test_sphere_distance_is_the_arc_of_a_great_circle(n, arc):
    x, w = sample(Sphere(n), seed=1), sample(Sphere(n), seed=2)
    w = w - (w * x).sum(1, keepdim=True) * x
    w = w / w.norm(dim=1, keepdim=True)
    y = math.cos(arc) * x + math.sin(arc) * w
    expected = torch.full((20,), arc, dtype=x.dtype)
    torch.testing.assert_close(Sphere(n).distance(x, y), expected, rtol=1e-12, atol=1e-15)
    if arc < 3.1:
        torch.testing.assert_close(
            (x * y).sum(1).clamp(-1, 1).arccos(), expected, rtol=0, atol=1e-7
        )


def test_rotation_distance_is_the_angle_of_scipy():
    M = SpecialOrthogonal3()
    x, y = sample(M, seed=1), sample(M, seed=2)
    X, Y = (Rotation.from_matrix(p.unflatten(1, (3, 3)).numpy()) for p in (x, y))
    expected = math.sqrt(2) * (X.inv() * Y).magnitude()
    np.testing.assert_allclose(M.distance(x, y).numpy(), expected, rtol=1e-9)


def test_euler_angles_are_those_of_scipy():
    z = coordinates(SpecialOrthogonal3())
    expected = Rotation.from_euler("ZYZ", z.numpy()).as_matrix().reshape(-1, 9)
    x = SpecialOrthogonal3().immersion(z)
    np.testing.assert_allclose(x.numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("angle", [1e-12, 1e-6, 0.5, math.pi - 1e-6, math.pi - 1e-12])
def test_distances_are_accurate_near_zero_and_near_the_cut_locus(angle):
    t = torch.tensor([[angle]], dtype=torch.float64)
    start = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    turned = torch.cat([t.cos(), t.sin()], dim=1)
    assert abs(Circle().distance(start, turned).item() - angle) < 1e-15 + 1e-14 * angle
    M = SpecialOrthogonal3()
    x = sample(M, 1)
    axis = torch.tensor([[0.6, 0.0, 0.8]], dtype=torch.float64)
    moved = M.act(M.group_element(t * axis), x)
    assert abs(M.distance(x, moved).item() - math.sqrt(2) * angle) < 1e-14


def test_torus_distance_is_pythagoras_on_the_shorter_arcs():
    a, b = coordinates(Torus(3), seed=1), coordinates(Torus(3), seed=2)
    arc = (a - b).abs()
    expected = torch.minimum(arc, 2 * math.pi - arc).norm(dim=1)
    M = Torus(3)
    torch.testing.assert_close(M.distance(M.immersion(a), M.immersion(b)), expected)


def test_circle_group_element_is_rotation_by_the_angle():
    z, angle = coordinates(Circle(), seed=1), coordinates(Circle(), seed=2)
    moved = Circle().act(Circle().group_element(angle), Circle().immersion(z))
    torch.testing.assert_close(moved, Circle().immersion(z + angle))


@pytest.mark.parametrize("manifold", [Circle(), Sphere(3), SpecialOrthogonal3()])
@pytest.mark.parametrize("fault", ["zero", "nan", "dependent"])
def test_frames_that_stand_for_no_rotation(manifold, fault):
    if fault == "dependent" and manifold.frame_dim == 2:
        pytest.skip("one vector is independent")
    frame = torch.randn(3, manifold.frame_dim, generator=torch.Generator().manual_seed(0))
    frame = frame.double()
    if fault == "dependent":
        vectors = frame[1].view(-1, 4 if isinstance(manifold, Sphere) else 3)
        vectors[1] = 2 * vectors[0]
    else:
        frame[1] = 0.0 if fault == "zero" else torch.nan
    with pytest.raises(ValueError, match=r"1 of the 3 frames .*the first at index 1"):
        manifold.group_element_from_frame(frame)
    manifold.group_element_from_frame(frame[[0, 2]])
