"""Matrices of geodesic distances against closed forms, and how they are computed."""

import pytest
import torch
from spaces import HalfPlane, SphereMetric, sphere_distance, sphere_points, stereographic

from pythae_geometric.geometry import ConvergenceWarning, distance_matrix, squared_distance

SPACES = pytest.mark.parametrize(
    "space", [stereographic, SphereMetric()], ids=["immersion", "metric"]
)


@SPACES
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch_size", [5, 1000])
def test_between_two_sets_on_the_sphere(space, dtype, batch_size):
    x, y = sphere_points(8, dtype=dtype)
    D = distance_matrix(space, x, y[:6], batch_size=batch_size)
    assert D.dtype == dtype
    exact = sphere_distance(x[:, None], y[None, :6])
    torch.testing.assert_close(D, exact, rtol=0, atol=2e-5)


@SPACES
@pytest.mark.parametrize("n", [1, 2, 7, 8])
def test_within_one_set_on_the_sphere(space, n):
    x, _ = sphere_points(n)
    D = distance_matrix(space, x, batch_size=5)
    assert torch.equal(D, D.mT) and not D.diagonal().any()
    exact = sphere_distance(x[:, None], x[None])
    torch.testing.assert_close(D, exact, rtol=0, atol=2e-5)


def test_half_plane():
    x = torch.randn(7, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[:, 1] = x[:, 1].exp()
    square = (x[:, None] - x).square().sum(-1)
    exact = torch.acosh(1 + square / (2 * x[:, None, 1] * x[:, 1]))
    torch.testing.assert_close(distance_matrix(HalfPlane(), x), exact, rtol=0, atol=1e-3)


def test_linear_maps_give_euclidean_distances():
    A = torch.tensor([[2.0, 1.0], [0.0, 1.0], [1.0, 1.0]], dtype=torch.float64)
    x, y = sphere_points(6)
    D = distance_matrix(lambda z: z @ A.mT, x, y)
    torch.testing.assert_close(D, torch.cdist(x @ A.mT, y @ A.mT), rtol=0, atol=1e-9)


def test_the_order_of_the_points_does_not_matter():
    x, _ = sphere_points(7)
    order = torch.tensor([3, 0, 6, 2, 5, 1, 4])
    D = distance_matrix(stereographic, x, tolerance=1e-6)
    permuted = distance_matrix(stereographic, x[order], tolerance=1e-6, batch_size=4)
    torch.testing.assert_close(permuted, D[order][:, order], rtol=1e-9, atol=0)


def test_each_pair_is_solved_once_and_counted():
    x, y = sphere_points(9)
    solved = []
    distance_matrix(stereographic, x, batch_size=10, progress=solved.append)
    assert solved == [10, 10, 10, 6]
    solved.clear()
    distance_matrix(stereographic, x, y[:4], batch_size=20, progress=solved.append)
    assert solved == [20, 16]


class Watched:
    """The sphere as an immersion and as a metric that count the points they are given at once."""

    def __init__(self):
        self.most = 0

    def immersion(self, z):
        self.most = max(self.most, len(z))
        return stereographic(z)

    def metric(self):
        watch = self

        class Metric(SphereMetric):
            def forward(self, z):
                watch.most = max(watch.most, len(z))
                return super().forward(z)

        return Metric()


@pytest.mark.parametrize("kind", ["immersion", "metric"])
def test_memory_does_not_grow_with_the_number_of_points(kind):
    batch_size, steps = 6, 8
    most = []
    for n in (5, 12):
        watched = Watched()
        space = watched.immersion if kind == "immersion" else watched.metric()
        distance_matrix(space, sphere_points(n)[0], steps=steps, batch_size=batch_size)
        most.append(watched.most)
    assert most[0] == most[1] <= batch_size * (2 * steps + 1)


def test_one_warning_for_the_whole_matrix():
    x, y = sphere_points(6)
    with pytest.warns(ConvergenceWarning) as record:
        distance_matrix(stereographic, x, y, iterations=1, batch_size=4)
    (warning,) = record
    assert warning.filename == __file__
    with pytest.warns(ConvergenceWarning) as alone:
        i, j = torch.meshgrid(torch.arange(6), torch.arange(6), indexing="ij")
        squared_distance(stereographic, x[i.flatten()], y[j.flatten()], iterations=1)
    count = str(alone[0].message).split()[0]
    assert str(warning.message).startswith(f"{count} of 36 geodesics did not converge")


def test_the_warning_names_the_first_pair_that_failed():
    """Point 2 lies behind a wall that the steps can jump over."""
    wall = lambda z: torch.cat([z, 5 * (-((z[:, :1] - 0.013) / 0.03).square()).exp()], 1)  # noqa: E731
    x = torch.tensor([[-1.0, 0.0], [-1.0, 0.1], [1.0, 0.0]])
    with pytest.warns(ConvergenceWarning, match=r"2 of 3 .* between x\[1\] and x\[2\]"):
        distance_matrix(wall, x, steps=32)
    with pytest.warns(ConvergenceWarning, match=r"1 of 2 .* between x\[1\] and y\[0\]"):
        distance_matrix(wall, x[[2, 0]], x[2:], steps=32)


def test_no_graph_is_kept_and_inference_mode_is_left():
    x, y = sphere_points(3)
    expected = distance_matrix(stereographic, x, y)
    assert not distance_matrix(stereographic, x.clone().requires_grad_(), y).requires_grad
    with torch.inference_mode():
        assert torch.equal(distance_matrix(stereographic, x, y), expected)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": torch.zeros(3)}, ValueError, r"x must have shape \[B, d\]"),
        ({"y": torch.zeros(3)}, ValueError, r"y must have shape \[B, d\]"),
        ({"y": torch.zeros(2, 3)}, ValueError, r"\[N, d\] and \[M, d\], not empty"),
        ({"x": torch.zeros(0, 2)}, ValueError, r"\[N, d\] and \[M, d\], not empty"),
        ({"x": [[0.0, 0.0]]}, TypeError, "x must be a tensor"),
        ({"y": torch.zeros(2, 2, dtype=torch.float64)}, TypeError, "must agree"),
        ({"y": torch.tensor([[0.0, 0.0], [0.0, torch.nan]])}, ValueError, "y contain a value"),
        ({"x": torch.full((3, 2), torch.inf)}, ValueError, "x contain a value that is not finite"),
        ({"steps": 7}, ValueError, "even"),
        ({"iterations": 0}, ValueError, "iterations"),
        ({"tolerance": 0.0}, ValueError, "tolerance"),
        ({"batch_size": 0}, ValueError, "batch_size must be a whole number of at least 1"),
        ({"batch_size": 2.0}, ValueError, "batch_size must be a whole number of at least 1"),
        ({"immersion_or_metric": "decoder"}, TypeError, "immersion"),
        ({"immersion_or_metric": lambda z: z.log()}, ValueError, "not finite on the straight line"),
    ],
)
def test_bad_arguments(change, error, message):
    arguments = {
        "immersion_or_metric": stereographic,
        "x": -torch.ones(3, 2),
        "y": torch.ones(2, 2),
    }
    with pytest.raises(error, match=message):
        distance_matrix(**(arguments | change))
