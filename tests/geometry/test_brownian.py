"""Brownian motion against its distributions on circle, sphere, flat space, torus and half plane."""

import itertools
import math

import pytest
import torch
from scipy.integrate import quad
from spaces import HalfPlane, SphereMetric, TorusMetric, circle, sphere, torus
from torch import nn

from pythae_geometric.geometry import brownian
from pythae_geometric.geometry.brownian import brownian_motion, walk
from pythae_geometric.geometry.metric import DegenerateMetricError, Metric
from pythae_geometric.geometry.mixture_metric import MixtureMetric
from pythae_geometric.geometry.pullback import PullbackMetric


class CircleMetric(Metric):
    def forward(self, z):
        return (1 + 0.5 * z.cos()).square().unsqueeze(-1)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def overlap(chart, space, start, time, steps, drift=True, n=20_000):
    """Mean of <x_t, x_0> and its standard error."""
    z0 = torch.tensor([start], dtype=torch.float64).expand(n, -1)
    z = brownian_motion(space, z0, time, steps, drift, seeded(), trajectory=False)
    inner = (chart(z) * chart(z0)).sum(-1)
    return inner.mean().item(), inner.std().item() / n**0.5


# Euler's method has a bias of order dt in the distribution. With smooth coefficients of size about
# 1 over a time of at most 1, dt / 5 is a safe bound: with a million paths it was 0.023 dt on the
# sphere (-0.0011, standard error 0.0003, at dt = 0.05) and not visible on the circle at dt = 0.1.
BIAS = 0.2


@pytest.mark.parametrize("steps", [10, 40])
@pytest.mark.parametrize("space", [circle, CircleMetric()], ids=["immersion", "metric"])
def test_circle(space, steps):
    mean, error = overlap(circle, space, [1.0], 1.0, steps)
    assert abs(mean - math.exp(-1 / 2)) < 4 * error + BIAS / steps


@pytest.mark.parametrize("steps", [10, 40])
def test_sphere(steps):
    mean, error = overlap(sphere, sphere, [0.8, 0.0], 0.5, steps)
    assert abs(mean - math.exp(-0.5)) < 4 * error + BIAS * 0.5 / steps


def test_without_drift_the_distribution_is_wrong():
    mean, error = overlap(circle, circle, [1.0], 1.0, 40, drift=False)
    assert abs(mean - math.exp(-1 / 2)) > 6 * error + BIAS / 40
    mean, error = overlap(sphere, sphere, [0.8, 0.0], 0.5, 40, drift=False)
    assert abs(mean - math.exp(-0.5)) > 20 * error


@pytest.mark.parametrize("space", [torus, TorusMetric()], ids=["immersion", "metric"])
def test_volume_form_is_stationary(space):
    """Density ∝ 2 + cos θ: E cos θ = 1/4, E cos 2θ = 0; started from the wrong one, uniform θ."""
    n = 4000
    start = 2 * math.pi * torch.rand(n, 2, generator=seeded(1), dtype=torch.float64)
    for drift, expected in ((True, 0.25), (False, 0.0)):
        z = brownian_motion(space, start, 8.0, 80, drift, seeded(), trajectory=False)
        for k, moment in ((1, expected), (2, 0.0)):
            cosine = (k * z[:, 0]).cos()
            # What is left of the start decays like exp(-t / 2): 0.25 e^-4 = 0.005.
            assert abs(cosine.mean() - moment) < 4 * cosine.std() / n**0.5 + 0.005 + 0.1 * BIAS


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_flat_space_with_times_of_its_own(dtype):
    """z_t - z_0 ~ N(0, t G^-1), exactly and for any number of steps."""
    A = torch.tensor([[2.0, 0.0], [1.0, 0.5], [0.0, 1.0]], dtype=dtype)
    n = 20_000
    time = torch.cat([torch.full((n,), 0.5), torch.full((n,), 2.0)])
    z = brownian_motion(
        lambda z: z @ A.T, torch.ones(2 * n, 2, dtype=dtype), time, 3, generator=seeded()
    )
    assert z.dtype == dtype
    for half, t in ((slice(0, n), 0.5), (slice(n, None), 2.0)):
        covariance = (t * torch.linalg.inv(A.T @ A)).double()
        step = z[-1, half].double() - 1
        sd = covariance.diagonal().sqrt()
        assert (step.mean(0).abs() < 4.5 * sd / n**0.5).all()
        # The standard error of an entry of the covariance is at most sd_i sd_j sqrt(2 / n).
        assert (
            (step.T @ step / n - covariance).abs() < 4.5 * torch.outer(sd, sd) * (2 / n) ** 0.5
        ).all()


def test_increments_of_the_path():
    """Independent increments of variance time / steps, the first point is the start."""
    start = torch.zeros(5000, 1, dtype=torch.float64)
    path = brownian_motion(lambda z: z, start, 2.0, 8, generator=seeded())
    assert path.shape == (9, 5000, 1) and torch.equal(path[0], start)
    increments = path.diff(dim=0).squeeze(-1)
    covariance = increments @ increments.T / 5000
    assert ((covariance - 0.25 * torch.eye(8)).abs() < 4.5 * 0.25 * (2 / 5000) ** 0.5).all()


def test_reproducible_and_end_points_are_those_of_the_path():
    start = torch.rand(7, 2, generator=seeded(1))
    path = brownian_motion(torus, start, 1.0, 5, generator=seeded())
    end = brownian_motion(torus, start, 1.0, 5, generator=seeded(), trajectory=False)
    assert torch.equal(path[-1], end)
    assert not torch.equal(path, brownian_motion(torus, start, 1.0, 5, generator=seeded(2)))


def test_time_zero_stays():
    start = torch.rand(4, 2)
    time = torch.tensor([0.0, 1.0, 0.0, 1.0])
    end = brownian_motion(torus, start, time, 3, trajectory=False)
    assert torch.equal(end[::2], start[::2]) and not torch.equal(end[1::2], start[1::2])


# A density to which the motion tends


def skewed_log_density(z):
    """Smooth, not symmetric and not normalised, ``[B, 2] -> [B]``."""
    x, y = z.unbind(-1)
    return (x - 0.5 * y).sin() - 0.3 * (x.square() + 2 * y.square()) + 0.2 * x * y


def gradient(f, z):
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        return torch.autograd.grad(f(z).sum(), z)[0]


def skewed_score(z):
    return gradient(skewed_log_density, z)


@pytest.mark.parametrize(
    "space",
    [torus, sphere, TorusMetric(), SphereMetric(), HalfPlane()],
    ids=["torus", "sphere", "torus metric", "sphere metric", "half plane"],
)
def test_no_probability_flows_at_the_density(space):
    """The flux b p - ½ ∂_j (g^ij p) vanishes: b is that of the first step, less its noise."""
    z = 0.2 + torch.rand(50, 2, generator=seeded(1), dtype=torch.float64)
    metric = space if isinstance(space, Metric) else PullbackMetric(space)
    h = 0.01
    noise = h**0.5 * torch.randn(50, 2, generator=seeded(), dtype=torch.float64)
    end = brownian_motion(
        space, z, h, 1, generator=seeded(), trajectory=False, halvings=0, score=skewed_score
    )
    L = metric.cholesky(z)
    b = (end - z - torch.linalg.solve_triangular(L.mT, noise[..., None], upper=True)[..., 0]) / h

    def inverse_times_density(z):
        return torch.linalg.inv(metric(z)) * skewed_log_density(z).exp()[:, None, None]

    divergence = sum(
        torch.stack([gradient(lambda z, i=i, j=j: inverse_times_density(z)[:, i, j], z)[:, j]
                     for i in range(2)], 1)
        for j in range(2)
    )  # fmt: skip
    flux = b - 0.5 * divergence / skewed_log_density(z).exp()[:, None]
    assert float(flux.abs().max()) < 1e-9 * float(b.abs().max())


@pytest.mark.parametrize("space", [torus, HalfPlane()], ids=["immersion", "metric"])
def test_to_the_volume_it_is_the_brownian_motion(space):
    metric = space if isinstance(space, Metric) else PullbackMetric(space)
    start = 0.5 + torch.rand(50, 2, generator=seeded(1), dtype=torch.float64)
    plain = brownian_motion(space, start, 0.2, 20, generator=seeded(), halvings=0)
    path = brownian_motion(space, start, 0.2, 20, generator=seeded(), halvings=0,
                           score=lambda z: metric.log_volume_and_grad(z)[1])  # fmt: skip
    torch.testing.assert_close(path, plain)


def test_on_the_line_the_error_of_eulers_method_is_exact_and_halves_with_the_step():
    """With steps h a normal distribution of variance v becomes one of v / (1 - h / (4 v))."""
    v, n = 2.0, 50_000
    start = torch.zeros(n, 1, dtype=torch.float64)
    excess = []
    for steps in (15, 30):
        h = 24 / steps
        z = brownian_motion(
            lambda z: 3 * z, start, 9 * 24, steps, generator=seeded(), trajectory=False,
            halvings=0, score=lambda z: -z / v,
        )  # fmt: skip
        expected = v / (1 - h / (4 * v))
        # What is left of the start is (1 - h / (2 v))^(2 steps), 1e-6 and less.
        assert abs(float(z.var()) - expected) < 4.5 * expected * (2 / n) ** 0.5
        excess.append(float(z.var()) - v)
    error = 4.5 * v * (2 / n) ** 0.5
    assert abs(excess[0] / 2 - excess[1]) < 0.15 * excess[0] / 2 + error < 0.4 * excess[0]


def test_on_the_circle_the_density_is_that_of_von_mises():
    """∝ exp(κ cos z) dz in a metric that varies by 9, from the least likely point; without the
    score it is ∝ 1 + cos(z) / 2, the volume. The histogram is that of quadrature."""
    n, time, steps, kappa = 5000, 16.0, 80, 1.5
    start = torch.full((n, 1), 3.0, dtype=torch.float64)
    edges = torch.linspace(-math.pi, math.pi, 9, dtype=torch.float64)
    for score, density in (
        (lambda z: -kappa * z.sin(), lambda z: math.exp(kappa * math.cos(z))),
        (None, lambda z: 1 + 0.5 * math.cos(z)),
    ):
        z = brownian_motion(
            CircleMetric(), start, time, steps, generator=seeded(), trajectory=False, halvings=0,
            score=score,
        )[:, 0]  # fmt: skip
        share = torch.histogram(torch.remainder(z + math.pi, 2 * math.pi) - math.pi, edges).hist / n
        mass = torch.tensor([quad(density, a, b)[0] for a, b in itertools.pairwise(edges.tolist())])
        mass = mass / mass.sum()
        # Less than 1e-4 of the start is left: the slowest part decays like exp(-t / 2) or faster.
        error = 4.5 * (mass * (1 - mass) / n).sqrt() + BIAS * mass * time / steps
        assert bool(((share - mass).abs() < error).all())


def test_in_the_half_plane():
    """x ~ N(0, v) and log y ~ N(0, v), independent; the volume would be dx dy / y²."""
    v, n, time, steps = 0.25, 2000, 3.0, 200
    h = time / steps

    def score(z):
        x, y = z.unbind(-1)
        return torch.stack([-x / v, -(y.log() / v + 1) / y], -1)

    start = torch.tensor([[1.0, 2.0]], dtype=torch.float64).repeat(n, 1)
    z = brownian_motion(
        HalfPlane(), start, time, steps, generator=seeded(), trajectory=False, halvings=0,
        score=score,
    )  # fmt: skip
    assert bool((z[:, 1] > 0).all())
    z = torch.stack([z[:, 0], z[:, 1].log()], 1)
    # As on the line, the variance of log y grows by the share h / (4 v) of it. Steps of x are
    # longer by y, and the mean of y² is exp(2 v).
    bias = torch.tensor([math.exp(2 * v), 1.0]) * h / (4 * v)
    assert bool((z.mean(0).abs() < v**0.5 * (4.5 / n**0.5 + bias)).all())
    assert bool(((z.var(0) / v - 1).abs() < 4.5 * (2 / n) ** 0.5 + 2 * bias).all())
    assert abs(float((z[:, 0] * z[:, 1]).mean()) / v) < 4.5 / n**0.5 + float(bias.sum())


def test_a_mixture_in_the_plane():
    """The shares and moments of three normal distributions, from a start that has others."""
    eye = torch.eye(2, dtype=torch.float64)
    c = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.5]], dtype=torch.float64)
    S = torch.tensor([0.3, 0.1, 0.3], dtype=torch.float64)[:, None, None] * eye
    p = MixtureMetric(torch.tensor([0.4, 0.3, 0.3], dtype=torch.float64), c, S)
    n, time, steps = 4000, 8.0, 160
    start = torch.tensor([[0.0, 2.0]], dtype=torch.float64).repeat(n, 1)
    z = brownian_motion(
        lambda z: z, start, time, steps, generator=seeded(), trajectory=False, halvings=0,
        score=lambda z: p.log_volume_and_grad(z)[1],
    )  # fmt: skip
    exact = p.sample(100_000, seeded(2))
    bias = time / steps / (4 * 0.1)  # that of the variance of the narrowest of them
    for f in (lambda z: z, torch.square, p.shares):
        found, true = f(z), f(exact)
        error = true.std(0) * (4.5 / n**0.5 + bias)
        assert bool(((found.mean(0) - true.mean(0)).abs() < error).all())


# Steps that shorten


def test_in_the_half_plane_shortened_steps_are_nearer_to_the_exact_distribution():
    """log y_t ~ N(-t / 2, t); Euler's steps can be longer than the way to the boundary y = 0."""
    start = torch.tensor([[0.0, 1.0]], dtype=torch.float64).expand(20_000, 2)
    variance, outside = {}, {}
    for halvings in (0, 6):
        w = walk(
            HalfPlane(), start, 1.0, 4, generator=seeded(), trajectory=False, halvings=halvings
        )
        y = w.path[:, 1]
        inside = y > 0
        outside[halvings] = int((~inside).sum())
        variance[halvings] = float(y[inside].log().var())
        assert bool(w.shortened.any()) == (halvings > 0) and not bool(w.stopped.any())
    assert outside[6] < outside[0] / 3
    assert abs(variance[6] - 1) < 0.6 * abs(variance[0] - 1)


def test_on_a_rough_line_the_image_is_a_plain_brownian_motion():
    """In one dimension the motion's image f(z_t) is N(f(z_0), t), whatever f; this one is five
    times flatter about 0 than elsewhere."""

    def f(z):
        return z - 0.8 * torch.tanh(5 * z) / 5

    n, t = 4000, 1.0
    start = torch.full((n, 1), -0.5, dtype=torch.float64)
    error = {}
    for halvings in (0, 6):
        w = walk(PullbackMetric(f), start, t, 20, generator=seeded(), trajectory=False,
                 halvings=halvings)  # fmt: skip
        x = f(w.path) - f(start)
        assert bool(w.shortened.any()) == (halvings > 0)
        error[halvings] = abs(float(x.mean())) + abs(float(x.var()) - t)
    assert error[6] < 0.5 * error[0]


def test_steps_that_are_too_long_for_a_density_are_halved():
    """Steps h > 4 v would throw the motion ever farther away from a normal distribution of variance
    v. The drift is held to 2 sqrt(h), which leads to within that length of the centre, and noise to
    a variance of 4 h + h. With halving, steps are not longer than about 0.41 v, where the drift at
    the place looked at differs by half the noise, and the variance is v / (1 - 0.41 / 4)."""
    v, n = 0.03, 2000
    start = torch.zeros(n, 1, dtype=torch.float64)
    found = {}
    for halvings in (0, 5):
        w = walk(PullbackMetric(lambda z: z), start, 1.2, 6, generator=seeded(),
                 trajectory=False, halvings=halvings, score=lambda z: -z / v)  # fmt: skip
        assert not bool(w.stopped.any()) and bool(w.shortened.all()) == (halvings > 0)
        found[halvings] = float(w.path.var()) / v
    error = 4.5 * (2 / n) ** 0.5
    assert 0.2 < found[0] * v < 5 * 0.2
    assert 1 - error < found[5] < 1 / (1 - 0.42 / 4) + error


def test_paths_that_need_no_shorter_steps_keep_their_numbers():
    start = torch.rand(200, 2, generator=seeded(1), dtype=torch.float64) + 0.5
    plain = walk(HalfPlane(), start, 0.225, 7, generator=seeded(), halvings=0)
    w = walk(HalfPlane(), start, 0.225, 7, generator=seeded())
    assert 0 < int(w.shortened.sum()) < 200
    torch.testing.assert_close(w.path[:, ~w.shortened], plain.path[:, ~w.shortened])
    # Those of Euler's method, and of version 0.1.0.
    generator, z, dt = seeded(), start, 0.225 / 7
    for _ in range(7):
        noise = dt**0.5 * torch.randn(200, 2, generator=generator, dtype=torch.float64)
        z = z + z[:, 1:] * noise  # the drift is 0
    torch.testing.assert_close(plain.path[-1], z)


def test_long_noise_is_drawn_in_blocks(monkeypatch):
    start = torch.rand(30, 2, generator=seeded(1), dtype=torch.float64) + 0.5
    at_once = walk(HalfPlane(), start, 0.1, 7, generator=seeded())
    monkeypatch.setattr(brownian, "MAX_NOISE", 130)  # two steps
    w = walk(HalfPlane(), start, 0.1, 7, generator=seeded())
    same = ~(w.shortened | at_once.shortened)
    assert int(same.sum()) > 10
    torch.testing.assert_close(w.path[:, same], at_once.path[:, same])


# Paths that cannot go on


def half_flat(z):
    """The plane, whose half z_2 <= 0 is collapsed to a line."""
    return torch.stack([z[:, 0], z[:, 1].clamp(min=0).square()], 1)


def test_a_path_that_starts_at_a_flat_spot_stays_and_the_others_go_on():
    good = torch.tensor([[0.0, 5.0]], dtype=torch.float64).repeat(7, 1)
    bad = torch.tensor([1, 4, 5])
    start = good.clone()
    start[bad] = torch.tensor([0.0, -1.0], dtype=torch.float64)
    metric = PullbackMetric(half_flat)
    w = walk(metric, start, 0.5, 6, generator=seeded())
    assert w.stopped.nonzero().flatten().tolist() == bad.tolist()
    assert torch.equal(w.path[:, bad], start[bad].expand(7, 3, 2))
    alone = walk(metric, good, 0.5, 6, generator=seeded())
    torch.testing.assert_close(w.path[:, ~w.stopped], alone.path[:, ~w.stopped])
    end = walk(metric, start, 0.5, 6, generator=seeded(), trajectory=False)
    assert torch.equal(end.path, w.path[-1]) and torch.equal(end.stopped, w.stopped)
    with pytest.raises(DegenerateMetricError, match=r"step 1 of 6 .*rank"):
        brownian_motion(half_flat, start, 0.5, 6, generator=seeded())


def test_a_path_stops_at_its_last_point_before_a_flat_spot():
    start = torch.tensor([[0.0, 0.6]], dtype=torch.float64).repeat(100, 1)
    w = walk(PullbackMetric(half_flat), start, 0.3, 10, generator=seeded())
    assert 5 < int(w.stopped.sum()) < 95
    assert float(w.path[..., 1].min()) > 0
    moves = (w.path.diff(dim=0) != 0).any(-1)
    assert bool(moves[:, ~w.stopped].all())
    # Once it stands still, it does for good.
    assert not bool((moves[1:] & ~moves[:-1]).any())
    with pytest.raises(DegenerateMetricError, match=r"step \d+ of 10 .*shorter time"):
        brownian_motion(half_flat, start, 0.3, 10, generator=seeded())


def test_a_path_that_leaves_the_numbers_stops():
    start = torch.tensor([[0.0], [1.0]])
    w = walk(PullbackMetric(lambda z: 1e-30 * z), start, torch.tensor([1e30, 0.0]), 2)
    assert w.stopped.tolist() == [True, False] and torch.equal(w.path[-1], start)


def test_no_graph_and_evaluation_mode():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(), nn.Linear(8, 9)
    )
    start = torch.randn(6, 2, requires_grad=True)
    ends = [
        brownian_motion(space, start, 0.1, 4, generator=seeded(), trajectory=False)
        for space in (net, lambda z: net(z), PullbackMetric(net), net.eval())
    ]
    assert not ends[0].requires_grad
    for end in ends[:3]:
        torch.testing.assert_close(end, ends[3])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"start": torch.zeros(2)}, ValueError, r"\[B, d\]"),
        ({"start": torch.zeros(3, 2, dtype=torch.long)}, TypeError, "floating-point"),
        ({"start": torch.full((3, 2), torch.inf)}, ValueError, "not finite"),
        ({"time": -1.0}, ValueError, "at least 0"),
        ({"time": math.nan}, ValueError, "finite"),
        ({"time": torch.ones(2)}, ValueError, "one for each of the 3 points"),
        ({"time": torch.ones(3, 1)}, ValueError, "one for each of the 3 points"),
        ({"steps": 0}, ValueError, "steps"),
        ({"steps": 2.5}, ValueError, "steps"),
        ({"halvings": -1}, ValueError, "halvings"),
        ({"score": 3}, TypeError, "score must be a module or a function"),
        ({"score": lambda z: z[:, 0]}, ValueError, "The score must have the shape of the points"),
        ({"score": lambda z: z.double()}, TypeError, "The score must be of the dtype"),
        ({"score": lambda z: z, "drift": False}, ValueError, "A score .* needs drift=True"),
        ({"immersion_or_metric": lambda z: z[:, :1]}, DegenerateMetricError, "immersion"),
        (
            {"immersion_or_metric": lambda z: z.sum(1, True).repeat(1, 2)},
            DegenerateMetricError,
            "step 1 of 2 .*rank.*shorter time",
        ),
        ({"immersion_or_metric": lambda z: 1e-30 * z}, ValueError, "no longer finite"),
    ],
)
def test_bad_arguments(change, error, message):
    arguments = {"immersion_or_metric": torus, "start": torch.zeros(3, 2), "time": 1.0, "steps": 2}
    if message == "no longer finite":
        change = change | {"time": 1e30}
    with pytest.raises(error, match=message):
        brownian_motion(**(arguments | change))


@pytest.mark.parametrize("flag", ["drift", "trajectory"])
@pytest.mark.parametrize("value", ["no", 1, None])
def test_flags_are_true_or_false(flag, value):
    with pytest.raises(TypeError, match=f"{flag} must be True or False, got {value!r}"):
        brownian_motion(lambda z: 2 * z, torch.zeros(2, 2), 1.0, 2, **{flag: value})
