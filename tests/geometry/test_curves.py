"""Geodesics and distances against closed forms, ordinary differential equations, differences."""

import pytest
import torch
from spaces import (
    HalfPlane,
    SphereMetric,
    TorusMetric,
    sphere_distance,
    sphere_points,
    stereographic,
    torus,
    torus_shots,
)
from torch import nn

from pythae_geometric.geometry.curves import ConvergenceWarning, Curve
from pythae_geometric.geometry.geodesics import geodesic, squared_distance
from pythae_geometric.geometry.metric import Metric
from pythae_geometric.geometry.pullback import PullbackMetric, StochasticPullbackMetric


@pytest.mark.parametrize("space", [stereographic, SphereMetric()], ids=["immersion", "metric"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("d", [2, 5])
def test_sphere_distance(space, dtype, d):
    x, y = sphere_points(64, d, dtype)
    curve = geodesic(space, x, y)
    assert curve.converged.all()
    torch.testing.assert_close(curve.length, sphere_distance(x, y), rtol=0, atol=2e-5)
    torch.testing.assert_close(
        squared_distance(space, x, y), sphere_distance(x, y) ** 2, rtol=0, atol=2e-3
    )


@pytest.mark.parametrize("space", [torus, TorusMetric()], ids=["immersion", "metric"])
def test_torus_distance(space):
    x, _, y, length = torus_shots(40)
    curve = geodesic(space, x, y)
    assert curve.converged.all()
    torch.testing.assert_close(curve.length, length, rtol=0, atol=1e-4)


def test_half_plane_distance():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 64, 2, generator=generator, dtype=torch.float64)
    x[:, 1], y[:, 1] = x[:, 1].exp(), y[:, 1].exp()
    exact = torch.acosh(1 + (x - y).square().sum(-1) / (2 * x[:, 1] * y[:, 1]))
    curve = geodesic(HalfPlane(), x, y)
    assert curve.converged.all()
    assert exact.max() > 3
    torch.testing.assert_close(curve.length, exact, rtol=0, atol=1e-3)


@pytest.mark.parametrize("space", [stereographic, SphereMetric()], ids=["immersion", "metric"])
def test_distance_has_order_four(space):
    x, y = sphere_points(32)
    errors = [
        (geodesic(space, x, y, steps, tolerance=1e-7).length - sphere_distance(x, y)).abs().max()
        for steps in (8, 16, 32)
    ]
    assert errors[0] > 10 * errors[1] > 100 * errors[2]  # 16 and 256 in the limit


def test_energy_is_the_discrete_energy():
    """½ N Σ |f(γ_{i+1}) - f(γ_i)|², and length² = 2 E at constant speed."""
    x, y = sphere_points(16)
    curve = geodesic(stereographic, x, y, steps=32)
    steps = stereographic(curve.nodes).diff(dim=1)
    discrete = 0.5 * 32 * steps.square().sum((1, 2))
    torch.testing.assert_close(curve.energy, discrete, rtol=1e-3, atol=0)
    torch.testing.assert_close(curve.length**2, 2 * curve.energy, rtol=1e-6, atol=0)


def test_curve_is_the_great_circle_at_constant_speed():
    x, y = sphere_points(16)
    curve = geodesic(stereographic, x, y)
    t = torch.linspace(0, 1, 41, dtype=torch.float64)
    angle = sphere_distance(x, y)[:, None, None]
    a, b = stereographic(x)[:, None], stereographic(y)[:, None]
    weights = ((1 - t[:, None]) * angle).sin(), (t[:, None] * angle).sin()
    exact = (weights[0] * a + weights[1] * b) / angle.sin()
    torch.testing.assert_close(stereographic(curve(t)), exact, rtol=0, atol=1e-4)


def test_curve_times():
    x, y = sphere_points(3)
    curve = geodesic(stereographic, x, y)
    assert curve(0.25).shape == (3, 2)
    assert curve(torch.rand(5)).shape == (3, 5, 2)
    own = torch.rand(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(curve(own)[1], curve(own[1])[1])
    nodes = torch.linspace(0, 1, 33, dtype=torch.float64)
    torch.testing.assert_close(curve(nodes), curve.nodes)
    torch.testing.assert_close(curve(0.0), x)
    torch.testing.assert_close(curve(1.0), y)
    for times in (1.5, torch.tensor([-0.1, 0.5]), torch.tensor(float("nan"))):
        with pytest.raises(ValueError, match=r"\[0, 1\]"):
            curve(times)
    with pytest.raises(ValueError, match="must have shape"):
        curve(torch.rand(2, 5))


@pytest.mark.parametrize("N", [4, 6, 32])
def test_spline_reproduces_cubics(N):
    t = torch.linspace(0, 1, N + 1, dtype=torch.float64)
    cubic = lambda s: torch.stack([s**3 - s, 2 - s**2 + 4 * s**3], -1)  # noqa: E731
    one = torch.ones(1, dtype=torch.float64)
    curve = Curve(cubic(t)[None], one, one, one.bool())
    s = torch.linspace(0, 1, 101, dtype=torch.float64)
    torch.testing.assert_close(curve(s)[0], cubic(s))


@pytest.mark.parametrize("space", [stereographic, SphereMetric(), torus, HalfPlane()])
def test_distance_is_symmetric(space):
    x, y = sphere_points(32)
    x, y = x + 1.5, y + 1.5  # the half plane needs a positive second coordinate
    forward, back = (squared_distance(space, *ends, tolerance=1e-6) for ends in ((x, y), (y, x)))
    torch.testing.assert_close(forward, back, rtol=1e-9, atol=0)


def test_triangle_inequality():
    generator = torch.Generator().manual_seed(0)
    x, y, z = 0.6 * torch.randn(3, 50, 2, generator=generator, dtype=torch.float64)
    xy, yz, xz = (geodesic(torus, *ends).length for ends in ((x, y), (y, z), (x, z)))
    assert (xz <= xy + yz + 1e-4).all()
    assert (xz < 0.99 * (xy + yz)).any()


@pytest.mark.parametrize("space", [stereographic, SphereMetric()], ids=["immersion", "metric"])
@pytest.mark.parametrize("which", [0, 1])
def test_gradient_in_the_end_points(space, which):
    """Against differences of the exact distance, which the optimiser never sees."""
    ends = [p.requires_grad_() for p in sphere_points(16)]
    square = squared_distance(space, *ends, steps=32, tolerance=1e-6)
    gradient = torch.autograd.grad(square.sum(), ends[which])[0]
    with torch.no_grad():
        for i in range(2):
            h = torch.zeros(2, dtype=torch.float64)
            h[i] = 1e-5
            shifted = [
                [p + s * h if k == which else p for k, p in enumerate(ends)] for s in (1, -1)
            ]
            plus, minus = (sphere_distance(*pair) ** 2 for pair in shifted)
            torch.testing.assert_close(gradient[:, i], (plus - minus) / 2e-5, rtol=0, atol=1e-4)


def test_gradient_in_the_parameters():
    """d(distance²)/d(radius) = 2 distance² / radius."""
    radius = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    x, y = sphere_points(8)
    square = squared_distance(lambda z: radius * stereographic(z), x, y)
    square.sum().backward()
    torch.testing.assert_close(radius.grad, (2 * square / radius).sum().detach())


def test_gradient_in_a_network_by_differences():
    """The envelope theorem, with all curves solved again at the shifted parameter."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 10)).double()
    x, y = sphere_points(8)
    squared_distance(net, x, y, tolerance=1e-7).sum().backward()
    weight = net[0].weight
    direction = torch.randn(weight.shape, dtype=torch.float64)
    along = (weight.grad * direction).sum()
    values = []
    with torch.no_grad():
        for shift in (1e-4, -2e-4):
            weight += shift * direction
            values.append(squared_distance(net, x, y, tolerance=1e-7).sum())
    torch.testing.assert_close(along, (values[0] - values[1]) / 2e-4, rtol=1e-5, atol=0)


@pytest.mark.parametrize("space", [stereographic, SphereMetric()], ids=["immersion", "metric"])
def test_coincident_ends(space):
    x, y = sphere_points(4, dtype=torch.float32)
    y[:2] = x[:2]
    curve = geodesic(space, x, y)
    assert torch.equal(curve.length[:2], torch.zeros(2)) and (curve.length[2:] > 0.1).all()
    assert curve.converged.all() and torch.equal(curve.nodes[0], x[:1].expand(33, -1))
    x.requires_grad_()
    square = squared_distance(space, x, y)
    square.sum().backward()
    assert torch.equal(square[:2], torch.zeros(2)) and torch.equal(x.grad[:2], torch.zeros(2, 2))
    assert (x.grad[2:] != 0).any() and torch.isfinite(x.grad).all()


def test_ends_that_differ_by_rounding(recwarn):
    x, _ = sphere_points(4, dtype=torch.float32)
    curve = geodesic(stereographic, x, x * (1 + torch.finfo(x.dtype).eps))
    assert curve.converged.all() and (curve.length < 1e-5).all()
    assert not [w for w in recwarn if w.category is ConvergenceWarning]


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_units_do_not_matter(scale):
    x, y = sphere_points(16, dtype=torch.float32)
    curve = geodesic(lambda z: scale * stereographic(z), x, y)
    assert curve.converged.all()
    torch.testing.assert_close(curve.length / scale, sphere_distance(x, y), rtol=1e-4, atol=1e-5)


def test_batches_are_independent():
    x, y = sphere_points(8)
    together = geodesic(torus, x, y).nodes
    alone = torch.cat([geodesic(torus, x[i : i + 1], y[i : i + 1]).nodes for i in range(8)])
    torch.testing.assert_close(together, alone)


def test_a_collapsed_direction():
    """f does not depend on the second coordinate: only the first counts."""
    x, y = sphere_points(8)
    curve = geodesic(lambda z: torch.cat([z[:, :1], z[:, :1] ** 2], 1), x, y)
    a, b = 2 * x[:, 0], 2 * y[:, 0]
    exact = (((b * (1 + b**2).sqrt()) + b.asinh()) - (a * (1 + a**2).sqrt() + a.asinh())) / 4
    torch.testing.assert_close(curve.length, exact.abs(), rtol=1e-4, atol=1e-6)


def test_stochastic_pullback():
    x, y = sphere_points(8)
    metric = StochasticPullbackMetric(lambda z: (stereographic(z), 0.75 * stereographic(z)))
    torch.testing.assert_close(
        geodesic(metric, x, y).length, 1.25 * sphere_distance(x, y), rtol=1e-5, atol=0
    )


def test_modules_are_used_in_evaluation_mode_and_restored():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(), nn.Linear(8, 9)
    )
    x, y = sphere_points(8, dtype=torch.float32)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    spaces = net, PullbackMetric(net), net.forward, PullbackMetric(net.forward)
    lengths = [squared_distance(space, x, y) for space in spaces]
    assert all(module.training for module in net.modules())
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    net.eval()
    for length in lengths:
        torch.testing.assert_close(length, squared_distance(net, x, y))


def hill(height):
    """A hill between points that lie symmetrically: the line over its top is a saddle."""
    return lambda z: torch.cat([z, height * (-z.square().sum(1, keepdim=True)).exp()], 1)


class Hill(Metric):
    def forward(self, z):
        factor = 1 + 8 * (-z.square().sum(1)).exp()
        return factor[:, None, None] * torch.eye(z.shape[1], dtype=z.dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("d", [2, 3])
def test_geodesics_leave_saddles(d, dtype):
    """Between symmetric points the way round is as short as the triangle inequality allows for ends
    a little beside them, from which it is found without fail."""
    x = torch.tensor([[-2.0, 0.0, 0.0]], dtype=dtype)[:, :d]
    beside = torch.tensor([[0.0, 0.05, 0.0]], dtype=dtype)[:, :d]
    over = 7.4  # the length of the line over the hill
    for space in (hill(3.0), Hill()):
        found = geodesic(space, x, -x)
        nearly = geodesic(space, x + beside, -x + beside)
        assert found.converged.all() and nearly.converged.all()
        moved = geodesic(space, x, x + beside).length + geodesic(space, -x, -x + beside).length
        assert (found.length - nearly.length).abs() < moved
        assert found(0.5).norm() > 0.5
    assert geodesic(hill(3.0), x, -x).length < 5.0 < over
    square = squared_distance(hill(3.0), x, -x)
    torch.testing.assert_close(square.sqrt(), geodesic(hill(3.0), x, -x).length, rtol=1e-3, atol=0)


def test_constant_metrics_give_the_line_itself():
    x, y = sphere_points(8)
    t = torch.linspace(0, 1, 33, dtype=x.dtype)[:, None]
    A = torch.tensor([[2.0, 1.0], [0.0, 1.0], [1.0, 1.0]], dtype=x.dtype)
    curve = geodesic(lambda z: z @ A.mT, x, y)
    line = x[:, None] + t * (y - x)[:, None]
    assert curve.converged.all()
    torch.testing.assert_close(curve.nodes, line, rtol=0, atol=1e-12)


@pytest.mark.parametrize("width", [0.1, 0.05, 0.03])
def test_a_ridge_thinner_than_a_step_is_reported(width):
    """A wall of height 5 across the way, which the nodes, 1/16 apart, can jump over."""
    f = lambda z: torch.cat([z, 5 * (-((z[:, :1] - 0.013) / width).square()).exp()], 1)  # noqa: E731
    x = torch.tensor([[-1.0, 0.0]])
    with pytest.warns(ConvergenceWarning, match="1 are too coarse with 32 steps"):
        curve = geodesic(f, x, -x)
    assert not curve.converged.any()
    assert (curve.length - 10.2).abs() > 1  # twice the height and a little more: it is wrong


def test_a_map_of_rank_zero_has_no_geodesics():
    x = torch.zeros(2, 2)
    with pytest.warns(ConvergenceWarning, match="2 have length 0 because the metric is degenerate"):
        curve = geodesic(lambda z: torch.ones(len(z), 3) + 0 * z[:, :1], x, x + 1)
    assert not curve.converged.any()
    same = geodesic(lambda z: torch.ones(len(z), 3) + 0 * z[:, :1], x, x.clone())
    assert same.converged.all() and not same.length.any()


def test_no_graph_is_kept_by_the_search():
    x, y = sphere_points(4)
    with torch.no_grad():
        assert not squared_distance(stereographic, x.requires_grad_(), y).requires_grad
    assert not geodesic(stereographic, x, y).length.requires_grad


def test_unfinished_curves_are_reported():
    x, y = sphere_points(16)
    with pytest.warns(ConvergenceWarning, match="were still moving after 1 iterations") as record:
        curve = geodesic(stereographic, x, y, iterations=1)
    assert not curve.converged.all()
    assert record[0].filename == __file__


def test_curves_that_slip_between_the_nodes_are_reported():
    """Nearly antipodal around the projection's pole: far out, where the metric is tiny."""
    x = torch.tensor([[3.0, 0.0]], dtype=torch.float64)
    y = torch.tensor([[-3.0, 0.1]], dtype=torch.float64)
    with pytest.warns(ConvergenceWarning):
        curve = geodesic(SphereMetric(), x, y, steps=4)
    assert not curve.converged.any()
    assert (curve.length - sphere_distance(x, y)).abs() > 0.1


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": torch.zeros(3)}, ValueError, r"x must have shape \[B, d\]"),
        ({"x": torch.zeros(2, 2)}, ValueError, "must both have shape"),
        ({"x": torch.zeros(0, 2), "y": torch.zeros(0, 2)}, ValueError, "not empty"),
        ({"x": torch.zeros(3, 2, dtype=torch.long)}, TypeError, "floating-point"),
        ({"x": [[0.0, 0.0]]}, TypeError, "x must be a tensor"),
        ({"x": torch.zeros(3, 2, dtype=torch.float64)}, TypeError, "must agree"),
        ({"y": torch.full((3, 2), torch.nan)}, ValueError, "y contain a value that is not finite"),
        ({"steps": 7}, ValueError, "even"),
        ({"steps": 2}, ValueError, "at least 4"),
        ({"iterations": 0}, ValueError, "iterations"),
        ({"tolerance": 0.0}, ValueError, "tolerance"),
        ({"immersion_or_metric": "decoder"}, TypeError, "immersion"),
        ({"immersion_or_metric": lambda z: z.log()}, ValueError, "not finite on the straight line"),
        ({"immersion_or_metric": lambda z: {"x": z}}, TypeError, "one tensor"),
    ],
)
@pytest.mark.parametrize("function", [geodesic, squared_distance])
def test_bad_arguments(function, change, error, message):
    arguments = {
        "immersion_or_metric": stereographic,
        "x": -torch.ones(3, 2),
        "y": torch.ones(3, 2),
    }
    with pytest.raises(error, match=message):
        function(**(arguments | change))
