"""Paths through large volume against closed forms and straight lines."""

import math

import pytest
import torch

from pythae_geometric.geometry.curves import ConvergenceWarning
from pythae_geometric.geometry.metric import DegenerateMetricError, Metric
from pythae_geometric.geometry.potential_path import potential_path


class VolumeMetric(Metric):
    """The metric of volume exp(log_volume(z)) that is a multiple of the identity."""

    def __init__(self, log_volume):
        super().__init__()
        self.log_volume = log_volume

    def forward(self, z):
        scale = (2 * self.log_volume(z) / z.shape[1]).exp()
        return scale[:, None, None] * torch.eye(z.shape[1], dtype=z.dtype)


def length_of(metric, points):
    """∫ V |γ'| of finely sampled curves ``[B, T, d]``, by the midpoint rule, in the log domain."""
    middle = (points[:, 1:] + points[:, :-1]) / 2
    log_volume = metric.log_volume(middle.flatten(0, 1)).view(middle.shape[:2])
    return (points.diff(dim=1).norm(dim=-1).log() - log_volume).logsumexp(1)


@pytest.mark.parametrize("shift", [0.0, 200.0, -200.0])
def test_half_plane(shift):
    """V = 1/y: the metric V² I is the hyperbolic plane, whatever the scale of V."""
    metric = VolumeMetric(lambda z: z[:, 1].log() + shift)
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(2, 32, 2, generator=generator, dtype=torch.float64) + 0.5
    path = potential_path(metric, x, y, tolerance=1e-4)
    assert path.converged.all()
    exact = torch.acosh(1 + (x - y).square().sum(-1) / (2 * x[:, 1] * y[:, 1]))
    unit = 1 / torch.minimum(x[:, 1], y[:, 1])  # the largest V on the line
    torch.testing.assert_close(path.length * unit, exact, rtol=1e-3, atol=0)
    line = x[:, None] + torch.linspace(0, 1, 33)[:, None] * (y - x)[:, None]
    assert (length_of(metric, path.nodes) <= length_of(metric, line) + 1e-4).all()
    # Half circles around a point of the axis y = 0: the distance to it is constant.
    centre = (y.square().sum(-1) - x.square().sum(-1)) / (2 * (y - x)[:, 0])
    z = path(torch.linspace(0, 1, 65))
    radius = ((z[..., 0] - centre[:, None]) ** 2 + z[..., 1] ** 2).sqrt()
    torch.testing.assert_close(radius / radius[:, :1], torch.ones_like(radius), rtol=0, atol=2e-3)


def test_constant_volume_gives_straight_lines_at_constant_speed():
    x, y = torch.randn(2, 8, 3, generator=torch.Generator().manual_seed(0))
    path = potential_path(lambda z: 3 * z, x, y)
    t = torch.linspace(0, 1, 11)
    line = x[:, None] + t[:, None] * (y - x)[:, None]
    torch.testing.assert_close(path(t), line, rtol=0, atol=1e-3)
    torch.testing.assert_close(path.length, (y - x).norm(dim=-1), rtol=1e-4, atol=0)


@pytest.mark.parametrize("height", [2.0, 10.0, 40.0])
def test_follows_a_ring(height):
    """The volume is exp(height) times larger on a ring: the path must go round it."""
    metric = VolumeMetric(lambda z: height * (-(((z.norm(dim=1) - 1) / 0.3) ** 2)).exp())
    x = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    y = torch.tensor([[math.cos(1.7), math.sin(1.7)]], dtype=torch.float64)
    path = potential_path(metric, x, y, steps=64, iterations=1000)
    assert path.converged.all()
    z = path(torch.linspace(0, 1, 2001, dtype=torch.float64))
    assert ((z.norm(dim=-1) - 1).abs() < 0.15).all()
    t = torch.linspace(0, 1, 2001, dtype=torch.float64)[:, None]
    arc = torch.cat([(1.7 * t).cos(), (1.7 * t).sin()], 1)[None]
    line = x[:, None] + t * (y - x)
    assert length_of(metric, z) < length_of(metric, arc) + 1e-3
    assert length_of(metric, z) < length_of(metric, line) - 0.2 * height
    speed = z.diff(dim=1).norm(dim=-1)
    assert speed.std() < 0.1 * speed.mean()


def test_coincident_ends():
    metric = VolumeMetric(lambda z: z[:, 0])
    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    path = potential_path(metric, x, x.clone())
    assert path.converged.all() and torch.equal(path.length, torch.zeros(3))
    assert torch.equal(path(0.3), x)


def test_a_jump_over_a_barrier_is_reported():
    """A wall of height e^60, thinner than half a step, all around one end."""
    metric = VolumeMetric(lambda z: -60 * (-(((z.norm(dim=1) - 1) / 0.03) ** 2)).exp())
    x, y = torch.zeros(1, 2, dtype=torch.float64), torch.tensor([[2.0, 0.0]], dtype=torch.float64)
    with pytest.warns(ConvergenceWarning, match="too coarse with 10 steps") as record:
        path = potential_path(metric, x, y, steps=10)
    assert not path.converged.any() and record[0].filename == __file__


def test_degenerate_metric():
    with pytest.raises(DegenerateMetricError):
        potential_path(lambda z: z[:, :1].repeat(1, 2), torch.zeros(2, 2), torch.ones(2, 2))
    with pytest.raises(ValueError, match=r"must have shape \[B, d\]"):
        potential_path(lambda z: z, torch.zeros(2), torch.ones(2))


def test_a_search_that_was_too_short_names_the_remedy():
    x, y = torch.tensor([[-1.0, 0.3]]), torch.tensor([[1.0, -0.2]])
    with pytest.warns(ConvergenceWarning, match="raise iterations or steps, or, since the volume"):
        potential_path(lambda z: torch.cat([z, (3 * z).sin()], 1), x, y, iterations=1)
