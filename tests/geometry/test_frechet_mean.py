"""Fréchet means against closed forms, symmetry and the condition of Karcher."""

import pytest
import torch
from spaces import HalfPlane, SphereMetric, sphere_points, stereographic

from pythae_geometric.geometry import ConvergenceWarning, distance_matrix, frechet_mean

SPACES = pytest.mark.parametrize(
    "space", [stereographic, SphereMetric()], ids=["immersion", "metric"]
)


def sphere_log(m, x):
    """Logarithms on the unit sphere in space, in closed form, ``[B, d + 1]``."""
    M, X = stereographic(m.double()), stereographic(x.double())
    cosine = (M * X).sum(-1, keepdim=True)
    direction = X - cosine * M
    return cosine.acos() * direction / direction.norm(dim=-1, keepdim=True)


@SPACES
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("d", [2, 4])
def test_logarithms_balance_on_the_sphere(space, dtype, d):
    """The condition of Karcher, and the variance, in closed form."""
    x, _ = sphere_points(10, d, dtype)
    w = torch.rand(10, dtype=dtype, generator=torch.Generator().manual_seed(0))
    mean = frechet_mean(space, x, w, tolerance=1e-3)
    assert mean.converged and mean.point.shape == (d,) and mean.point.dtype == dtype
    w = w.double() / w.double().sum()
    log = sphere_log(mean.point[None], x)
    variance = w @ log.square().sum(-1)
    assert (w @ log).norm() <= 1.1e-3 * variance.sqrt()
    torch.testing.assert_close(mean.variance.double(), variance, rtol=1e-4, atol=0)


def test_the_tolerance_is_kept():
    x, _ = sphere_points(10)
    for tolerance in (1e-2, 1e-4):
        mean = frechet_mean(stereographic, x, steps=64, tolerance=tolerance)
        log = sphere_log(mean.point[None], x)
        std = log.square().sum(-1).mean().sqrt()
        assert log.mean(0).norm() <= 1.1 * tolerance * std


def test_symmetric_points_on_the_sphere():
    """Points on a small circle around an axis: by symmetry their mean is on the axis."""
    axis = torch.tensor([0.3, -0.2], dtype=torch.float64)
    A = stereographic(axis[None])[0]
    u = torch.linalg.cross(A, torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64))
    u = u / u.norm()
    v = torch.linalg.cross(A, u)
    angle = torch.arange(5, dtype=torch.float64)[:, None] * 2 * torch.pi / 5
    X = torch.cos(torch.tensor(0.8)) * A + torch.sin(torch.tensor(0.8)) * (
        angle.cos() * u + angle.sin() * v
    )
    x = X[:, :2] / (1 - X[:, 2:])
    mean = frechet_mean(stereographic, x)
    torch.testing.assert_close(mean.point, axis, rtol=0, atol=1e-3)
    torch.testing.assert_close(mean.variance, torch.tensor(0.8**2).double(), rtol=1e-4, atol=0)


def test_the_mean_of_two_points_divides_the_geodesic():
    """In the half plane, on the vertical line through both: y = exp of the mean of log y."""
    x = torch.tensor([[0.5, 0.2], [0.5, 7.0]], dtype=torch.float64)
    w = torch.tensor([3.0, 1.0], dtype=torch.float64)
    mean = frechet_mean(HalfPlane(), x, w)
    distance = x[1, 1].log() - x[0, 1].log()
    expected = 0.75 * x[0, 1].log() + 0.25 * x[1, 1].log()
    std = (0.75 * 0.25) ** 0.5 * distance
    assert (mean.point[1].log() - expected).abs() <= 2e-3 * std
    assert (mean.point[0] - 0.5).abs() / mean.point[1] <= 2e-3 * std
    torch.testing.assert_close(mean.variance, std**2, rtol=1e-4, atol=0)


def test_half_plane_mean_moves_with_isometries():
    """z -> a z + b is an isometry of the half plane."""
    x = torch.randn(6, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x[:, 1] = x[:, 1].exp()
    mean = frechet_mean(HalfPlane(), x)
    moved = frechet_mean(HalfPlane(), 3 * x + torch.tensor([5.0, 0.0]))
    expected = 3 * mean.point + torch.tensor([5.0, 0.0])
    distance = (moved.point - expected).norm() / expected[1]
    assert mean.converged and moved.converged and distance <= 2e-3 * mean.variance.sqrt()
    torch.testing.assert_close(moved.variance, mean.variance, rtol=1e-5, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_flat_metrics_have_the_weighted_mean(dtype):
    A = torch.tensor([[2.0, 1.0], [0.0, 1.0], [1.0, 1.0]], dtype=dtype)
    x, _ = sphere_points(9, dtype=dtype)
    w = torch.arange(9, dtype=dtype)
    mean = frechet_mean(lambda z: z @ A.mT, x, w)
    expected = w @ x / w.sum()
    torch.testing.assert_close(mean.point, expected, rtol=0, atol=1e-3)
    square = ((x - expected) @ A.mT).square().sum(-1)
    torch.testing.assert_close(mean.variance, w @ square / w.sum(), rtol=1e-5, atol=0)


def test_flat_metrics_in_curved_coordinates():
    """z -> log z: the geometric mean."""
    x = torch.rand(7, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.1
    mean = frechet_mean(torch.log, x)
    deviation = (mean.point.log() - x.log().mean(0)).norm()
    assert mean.converged and deviation <= 1.1e-3 * mean.variance.sqrt()


def test_order_and_points_of_weight_zero_do_not_matter():
    x, _ = sphere_points(6)
    w = torch.tensor([1.0, 0.0, 2.0, 3.0, 0.0, 1.0], dtype=torch.float64)
    order = torch.tensor([3, 0, 2, 5])
    options = {"tolerance": 1e-6, "steps": 16}
    mean = frechet_mean(stereographic, x, w, **options)
    other = frechet_mean(stereographic, x[order], 5 * w[order], **options)
    torch.testing.assert_close(mean.point, other.point, rtol=0, atol=1e-5)
    torch.testing.assert_close(mean.variance, other.variance, rtol=1e-9, atol=0)
    halves = torch.tensor([3.0, 0.5, 1.0, 1.0, 0.5, 1.0], dtype=torch.float64)
    split = frechet_mean(stereographic, x[[3, 0, 2, 5, 0, 2]], halves, **options)
    torch.testing.assert_close(split.point, mean.point, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_points_are_their_own_mean(dtype):
    x = torch.tensor([[0.1, -0.7]], dtype=dtype)
    for points in (x, x.expand(3, 2)):
        mean = frechet_mean(stereographic, points, iterations=10)
        assert torch.equal(mean.point, x[0]) and mean.variance == 0 and mean.converged


# -- where the search begins and where it may go ------------------------------------------------


@pytest.mark.parametrize("n", [2, 4])
def test_the_top_of_a_hill_is_left(n):
    """Points around a hill lie symmetrically about its top, where the variance is a maximum or a
    saddle. The result has no more than the least on a grid."""
    hill = lambda z: torch.cat([z, 2 * (-z.square().sum(1, keepdim=True)).exp()], 1)  # noqa: E731
    angle = torch.arange(n)[:, None] * 2 * torch.pi / n
    x = 2 * torch.cat([angle.cos(), angle.sin()], 1)
    mean = frechet_mean(hill, x)
    t = torch.linspace(-2, 2, 9)
    grid = torch.cartesian_prod(t, t)
    on_grid = distance_matrix(hill, grid, x).square().mean(1)
    top = on_grid[40]
    assert torch.equal(grid[40], torch.zeros(2))
    assert mean.converged and mean.variance < 0.9 * top
    assert mean.variance <= on_grid.min() * 1.001


def cylinder(z):
    """Polar coordinates of the plane without its middle: a strip of the flat plane."""
    r = z.norm(dim=1)
    return torch.stack([torch.where(r > 0.8, r, torch.nan), torch.atan2(z[:, 1], z[:, 0])], 1)


def test_a_guess_outside_the_chart_is_passed_over():
    """The mean of the coordinates lies in the hole; that of the polar coordinates does not."""
    polar = torch.tensor([[1.1, 1.0], [1.0, 0.0], [0.95, -0.8]], dtype=torch.float64)
    x = polar[:, :1] * torch.stack([polar[:, 1].cos(), polar[:, 1].sin()], 1)
    assert x.mean(0).norm() < 0.8
    mean = frechet_mean(cylinder, x, tolerance=1e-4)
    assert mean.converged
    torch.testing.assert_close(cylinder(mean.point[None])[0], polar.mean(0), rtol=0, atol=1e-4)


def flat_ring(z):
    """The plane without its middle, in its own coordinates."""
    return torch.where(z.norm(dim=1, keepdim=True) > 0.1, z, torch.nan)


def test_a_mean_outside_the_chart_is_reported():
    """The mean of a flat metric is that of the coordinates, which lies in the hole."""
    x = torch.tensor([[0.0, -0.5], [2.0, 0.25], [-2.0, 0.25]], dtype=torch.float64)
    with pytest.warns(ConvergenceWarning, match="mean did not converge: .* iterations") as record:
        mean = frechet_mean(flat_ring, x, iterations=20)
    assert not mean.converged and record[0].filename == __file__ and len(record) == 1
    assert torch.isfinite(flat_ring(mean.point[None])).all()
    square = (x - mean.point).square().sum(1).mean()
    torch.testing.assert_close(mean.variance, square)
    assert mean.variance < (x - x[0]).square().sum(1).mean()  # less than where it began


def test_too_few_iterations_are_reported():
    x, _ = sphere_points(6)
    with pytest.warns(ConvergenceWarning, match="6 of 6 geodesics to the points did not converge"):
        assert not frechet_mean(stereographic, x, iterations=1).converged


def test_no_graph_is_kept_and_inference_mode_is_left():
    x, _ = sphere_points(4)
    w = torch.ones(4, dtype=torch.float64)
    expected = frechet_mean(stereographic, x, w).point
    found = frechet_mean(stereographic, x.clone().requires_grad_(), w.clone().requires_grad_())
    assert not found.point.requires_grad and not found.variance.requires_grad
    with torch.inference_mode():
        assert torch.equal(frechet_mean(stereographic, x.clone(), w.clone()).point, expected)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"points": torch.zeros(3)}, ValueError, r"points must have shape \[B, d\]"),
        ({"points": [[0.0, 0.0]]}, TypeError, "points must be a tensor"),
        ({"points": torch.zeros(0, 2)}, ValueError, "at least one point"),
        ({"points": torch.zeros(3, 2, dtype=torch.long)}, TypeError, "floating-point"),
        ({"points": torch.full((3, 2), torch.nan)}, ValueError, "points contain a value"),
        ({"weights": [1.0, 1.0, 1.0]}, TypeError, "weights must be a tensor"),
        ({"weights": torch.ones(2)}, ValueError, r"weights must have shape \[3\]"),
        ({"weights": torch.ones(3).double()}, TypeError, "weights must be of the dtype"),
        ({"weights": torch.tensor([1.0, -1.0, 1.0])}, ValueError, "weights must be finite"),
        ({"weights": torch.tensor([1.0, torch.inf, 1.0])}, ValueError, "weights must be finite"),
        ({"weights": torch.zeros(3)}, ValueError, "not all 0"),
        ({"steps": 7}, ValueError, "even"),
        ({"iterations": 0}, ValueError, "iterations"),
        ({"tolerance": 0.0}, ValueError, "tolerance"),
        ({"immersion_or_metric": "decoder"}, TypeError, "immersion"),
        ({"immersion_or_metric": lambda z: z.log()}, ValueError, "neither from the mean"),
    ],
)
def test_bad_arguments(change, error, message):
    arguments = {"immersion_or_metric": stereographic, "points": -torch.ones(3, 2)}
    with pytest.raises(error, match=message):
        frechet_mean(**(arguments | change))
