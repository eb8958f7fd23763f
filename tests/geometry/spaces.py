"""Spaces with known geometry, in charts, for the tests."""

import math

import numpy as np
import torch
from scipy.integrate import solve_ivp

from pythae_geometric.geometry.metric import Metric


def circle(u):
    """The unit circle in a chart that is not an isometry: angle u + ½ sin u."""
    angle = u + 0.5 * u.sin()
    return torch.cat([angle.cos(), angle.sin()], 1)


def sphere(z):
    """The unit sphere by its exponential chart at a pole; regular within |z| < π."""
    r = (z.square().sum(-1, keepdim=True) + 1e-12).sqrt()
    return torch.cat([r.sin() / r * z, -r.cos()], 1)


def stereographic(z):
    """The unit sphere, projected from its pole."""
    s = z.square().sum(-1, keepdim=True)
    return torch.cat([2 * z, s - 1], -1) / (1 + s)


def torus(z):
    """The torus of revolution with radii 2 and 1; coordinates (θ, φ)."""
    theta, phi = z.unbind(-1)
    rho = 2 + theta.cos()
    return torch.stack([rho * phi.cos(), rho * phi.sin(), theta.sin()], -1)


class SphereMetric(Metric):
    def forward(self, z):
        factor = 4 / (1 + z.square().sum(-1)) ** 2
        return factor[:, None, None] * torch.eye(z.shape[1], dtype=z.dtype)


class TorusMetric(Metric):
    def forward(self, z):
        return torch.diag_embed(
            torch.stack([torch.ones_like(z[:, 0]), (2 + z[:, 0].cos()) ** 2], 1)
        )


class HalfPlane(Metric):
    def forward(self, z):
        return torch.diag_embed(z[:, 1:].expand(-1, 2) ** -2)


def sphere_points(n, d=2, dtype=torch.float64, seed=0):
    """Pairs within the ball of coordinates |z| < 1, the open half sphere, which is convex."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(2, n, d, generator=generator, dtype=dtype)
    z = z / z.norm(dim=-1, keepdim=True) * 0.9 * torch.rand(2, n, 1, generator=generator)
    return z[0].to(dtype), z[1].to(dtype)


def sphere_distance(x, y):
    a, b = stereographic(x), stereographic(y)
    return 2 * torch.atan2((a - b).norm(dim=-1), (a + b).norm(dim=-1))


def torus_shots(n, seed=0):
    """Points, velocities and end points of geodesics of the torus, by scipy's ODE solver."""
    generator = torch.Generator().manual_seed(seed)
    x = 6 * torch.rand(n, 2, generator=generator, dtype=torch.float64)
    direction = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    # Curvature is at most 1/3: geodesics shorter than this are the only ones between their ends,
    # and the half circumferences of the tube (pi) and the hole (pi) are longer.
    length = 0.2 + 1.3 * torch.rand(n, generator=generator, dtype=torch.float64)
    norm = TorusMetric().norm(x, direction)
    v = direction * (length / norm).unsqueeze(-1)

    def field(_, s):
        theta, _phi, a, b = s
        rho, slope = 2 + math.cos(theta), -math.sin(theta)
        return [a, b, rho * slope * b * b, -2 * slope / rho * a * b]

    ends = [
        solve_ivp(field, (0, 1), [*p, *w], rtol=1e-11, atol=1e-12).y[:2, -1]
        for p, w in zip(x.tolist(), v.tolist(), strict=True)
    ]
    return x, v, torch.from_numpy(np.stack(ends)), length


def skewed(d, condition):
    """A matrix ``[d, d]`` of this condition number, not aligned with the coordinates."""
    generator = torch.Generator().manual_seed(0)
    U, V = (
        torch.linalg.qr(torch.randn(d, d, dtype=torch.float64, generator=generator))[0]
        for _ in range(2)
    )
    return (U * torch.logspace(0, -math.log10(condition), d, dtype=torch.float64)) @ V
