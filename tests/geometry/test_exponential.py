"""Exponential map and logarithm against closed forms and against each other."""

import pytest
import torch
from scipy.integrate import solve_ivp
from spaces import (
    HalfPlane,
    SphereMetric,
    TorusMetric,
    sphere_points,
    stereographic,
    torus,
    torus_shots,
)

from pythae_geometric.geometry._runge_kutta import StepTooSmall, integrate
from pythae_geometric.geometry.geodesics import exponential_map, logarithm
from pythae_geometric.geometry.metric import DegenerateMetricError
from pythae_geometric.geometry.pullback import PullbackMetric

SPHERES = pytest.mark.parametrize(
    "space", [stereographic, PullbackMetric(stereographic), SphereMetric()]
)


def sphere_vector(x, v):
    """The tangent vector of the sphere in space, in float64."""
    return torch.func.jvp(stereographic, (x.double(),), (v.double(),))[1]


@SPHERES
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_exponential_on_the_sphere(space, dtype):
    """exp_x(v) = cos|v| x + sin|v| v / |v| in space."""
    x, _ = sphere_points(16, dtype=dtype)
    v = 0.3 * torch.randn(16, 2, generator=torch.Generator().manual_seed(1), dtype=dtype)
    X, V = stereographic(x.double()), sphere_vector(x, v)
    norm = V.norm(dim=-1, keepdim=True)
    exact = norm.cos() * X + norm.sin() * V / norm
    atol = 1e-4 if dtype == torch.float32 else 1e-7
    end = exponential_map(space, x, v)
    assert end.dtype == dtype
    torch.testing.assert_close(stereographic(end.double()), exact, rtol=0, atol=atol)


@pytest.mark.parametrize("space", [torus, TorusMetric()], ids=["immersion", "metric"])
def test_torus_against_scipy(space):
    x, v, y, _ = torus_shots(20)
    torch.testing.assert_close(exponential_map(space, x, v), y, rtol=0, atol=1e-6)
    torch.testing.assert_close(logarithm(space, x, y), v, rtol=0, atol=1e-3)


@SPHERES
def test_logarithm_on_the_sphere(space):
    """log_x(y) points along y - <x, y> x and has the length of the arc."""
    x, y = sphere_points(32)
    X, Y = stereographic(x), stereographic(y)
    cosine = (X * Y).sum(-1, keepdim=True)
    direction = Y - cosine * X
    exact = cosine.acos() * direction / direction.norm(dim=-1, keepdim=True)
    log = logarithm(space, x, y)
    torch.testing.assert_close(sphere_vector(x, log), exact, rtol=0, atol=1e-3)


def test_error_of_the_logarithm_falls_with_the_nodes():
    x, v, y, _ = torus_shots(20)
    errors = [(logarithm(torus, x, y, n, tolerance=1e-7) - v).abs().max() for n in (8, 16, 32)]
    assert errors[0] > 6 * errors[1] > 36 * errors[2]


@pytest.mark.parametrize("space", [stereographic, torus, HalfPlane()])
def test_exponential_inverts_logarithm(space):
    x, y = sphere_points(16)
    x, y = x + 1.0, y + 1.0  # the half plane needs a positive second coordinate
    log = logarithm(space, x, y, steps=64, tolerance=1e-6)
    torch.testing.assert_close(exponential_map(space, x, log), y, rtol=0, atol=1e-3)


def test_exponential_is_differentiable():
    """The derivative of exp_x at v = 0 is the identity; in float64, against differences."""
    x = torch.tensor([[0.3, -0.2]], dtype=torch.float64)
    zero = torch.zeros_like(x)
    d_exp = torch.autograd.functional.jacobian(lambda v: exponential_map(stereographic, x, v), zero)
    torch.testing.assert_close(d_exp[0, :, 0], torch.eye(2, dtype=torch.float64))
    v = torch.tensor([[0.4, 0.7]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x, v: exponential_map(stereographic, x, v),
        (x.requires_grad_(), v),
        atol=1e-4,
        fast_mode=True,
    )


def test_zero_vectors():
    x, _ = sphere_points(4)
    torch.testing.assert_close(exponential_map(stereographic, x, torch.zeros_like(x)), x)
    assert torch.equal(logarithm(stereographic, x, x.clone()), torch.zeros_like(x))


@pytest.mark.parametrize(
    ("x", "v", "error", "message"),
    [
        (torch.zeros(2), torch.zeros(2), ValueError, r"x must have shape \[B, d\]"),
        (torch.zeros(3, 2), torch.zeros(2, 2), ValueError, "must have the shape of the points"),
        (torch.zeros(3, 2), None, TypeError, "must be a tensor"),
        (torch.zeros(1, 2), torch.tensor([[0.0, torch.inf]]), ValueError, "not finite"),
    ],
)
def test_bad_arguments(x, v, error, message):
    with pytest.raises(error, match=message):
        exponential_map(stereographic, x, v)


def test_geodesics_that_end_before_time_one():
    """On z -> z² the point 0 is singular, and the geodesic from 1 reaches it at time ½."""
    with pytest.raises((ValueError, DegenerateMetricError)):
        exponential_map(lambda z: z**2, torch.ones(1, 1), -torch.ones(1, 1))


def test_geodesics_that_leave_the_chart():
    """arctan covers a bounded interval: the geodesic from 0 reaches its end at time π / 4."""
    with pytest.raises(ValueError, match="leaves the chart"):
        exponential_map(torch.atan, torch.zeros(1, 1), torch.full((1, 1), 2.0))


def test_an_assertion_of_the_map_is_not_taken_for_the_solver_s():
    def immersion(z):
        assert z.max() < 0.5, "outside the training data"
        return z

    for space in (immersion, PullbackMetric(immersion)):
        with pytest.raises(AssertionError, match="outside the training data"):
            exponential_map(space, torch.zeros(1, 2), torch.ones(1, 2))


def test_logarithm_at_a_degenerate_point():
    with pytest.raises(DegenerateMetricError):
        logarithm(lambda z: z**2, torch.zeros(1, 1), torch.ones(1, 1))


# -- the integrator ----------------------------------------------------------------------------


def test_runge_kutta_keeps_to_the_tolerance_and_can_be_differentiated():
    """A rotation by 3 radians."""
    y = torch.tensor([[1.0, 0.5], [0.0, -1.0]], dtype=torch.float64, requires_grad=True)
    A = torch.tensor([[0.0, -3.0], [3.0, 0.0]], dtype=torch.float64)
    exact = y @ torch.linalg.matrix_exp(A).mT
    for tolerance in (1e-4, 1e-7, 1e-10):
        end = integrate(lambda y: y @ A.mT, y, tolerance)
        assert (end - exact).abs().max() < 20 * tolerance
    assert torch.autograd.gradcheck(lambda y: integrate(lambda x: x @ A.mT, y, 1e-9), y)


def test_runge_kutta_agrees_with_scipy():
    y = torch.tensor([2.0, 0.0], dtype=torch.float64)

    def van_der_pol(y):
        return 10 * torch.stack([y[1], 3 * (1 - y[0] ** 2) * y[1] - y[0]])

    exact = solve_ivp(
        lambda _, y: van_der_pol(torch.from_numpy(y)).numpy(), (0, 1), y.numpy(), rtol=1e-11,
        atol=1e-12,
    ).y[:, -1]  # fmt: skip
    end = integrate(van_der_pol, y, 1e-9)
    torch.testing.assert_close(end, torch.from_numpy(exact), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_runge_kutta_stops_where_the_solution_ends(dtype):
    """y' = y² from 2 is infinite at time 1/2."""
    with pytest.raises(StepTooSmall):
        integrate(torch.square, torch.tensor([2.0], dtype=dtype), 1e-6)
    with pytest.raises(StepTooSmall):
        integrate(lambda y: y * torch.nan, torch.ones(1, dtype=dtype), 1e-6)
