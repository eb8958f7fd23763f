"""How good an embedding is, as numbers."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn
from torch.special import ndtri

from ...geometry import jacobian

# Above or below these an embedding is called poor.
MAX_DISTANCE, MAX_ENERGY, MIN_SINGULAR_VALUE, MAX_INTERSECTIONS = 0.05, 0.02, 0.05, 0.01
# Jacobian and self-intersections are taken on [MARGIN, 1 - MARGIN]ⁿ: the ends of a chart of a
# closed manifold must meet, and a chart of a sphere must collapse somewhere.
MARGIN = 0.05


class PoorEmbeddingWarning(UserWarning):
    """A learned embedding is far from the manifold, uneven, or not injective."""


class EmbeddingQuality(NamedTuple):
    r"""Quality of an embedding; lengths in units of the root mean square norm of the manifold.

    Attributes:
        distance: root mean square distance of embedded points from the manifold. (Of a custom
            manifold: from the nearest of the sampler's points, minus the sampling baseline, which
            is that distance for other points of the sampler.)
        energy: energy distance of embedded points from the sampler's, :math:`(2 E|X-Y| - E|X-X'| -
            E|Y-Y'|) / 2 E|X-Y|`: 0 for equal distributions, 1 for those farthest apart.
        p_value: of the permutation test of equal distributions with this statistic.
        smallest_singular_value: of the Jacobian in the coordinates :math:`u = \Phi(z)` of the
            cube, over all points with u in [0.05, 0.95]ⁿ, divided by the median one.
        self_intersections: share of such points that have another one, farther than 0.2 in u,
            within a length of 0.05.

    References:
        G. Székely, M. Rizzo, Testing for equal distributions in high dimension, InterStat, 2004.
    """

    distance: float
    energy: float
    p_value: float
    smallest_singular_value: float
    self_intersections: float

    @property
    def faults(self) -> list[str]:
        """What is poor, in words; empty for a good embedding."""
        found = []
        if not self.distance <= MAX_DISTANCE:
            found.append(f"points lie {self.distance:.3g} off the manifold")
        if not self.energy <= MAX_ENERGY:
            found.append(f"points are not spread as the sampler's (energy {self.energy:.3g})")
        if not self.smallest_singular_value >= MIN_SINGULAR_VALUE:
            found.append(
                f"it collapses a direction (singular value {self.smallest_singular_value:.3g})"
            )
        if not self.self_intersections <= MAX_INTERSECTIONS:
            found.append(f"it meets itself ({self.self_intersections:.1%} of the points)")
        return found


@torch.no_grad()
def embedding_quality(
    embedding: nn.Module,
    dim: int,
    points: torch.Tensor,
    others: torch.Tensor,
    project: Callable | None,
    generator: torch.Generator,
    permutations: int = 200,
) -> EmbeddingQuality:
    """Measure an embedding.

    Args:
        embedding: module ``[B, n] -> [B, m]``, on the CPU or not.
        dim: n.
        points: samples of the manifold, ``[N, m]``, where the module is.
        others: as many more.
        project: nearest points of the manifold, if there is a formula.
        generator: of the latent codes, on the CPU.
        permutations: of the test.
    """
    u = torch.rand(len(points), dim, generator=generator, dtype=torch.float64).to(points)
    z = ndtri(u.clamp(1e-6, 1 - 1e-6))
    y = embedding(z)
    unit = points.square().sum(1).mean().sqrt()

    if project is not None:
        distance = (y - project(y)).square().sum(1).mean().sqrt() / unit
    else:
        squares = [torch.cdist(x, points).amin(1).square().mean() for x in (y, others)]
        distance = (squares[0] - squares[1]).clamp(min=0).sqrt() / unit

    inside = ((u - 0.5).abs() < 0.5 - MARGIN).all(1)
    # dz/du = √(2π) exp(z²/2).
    stretch = (2 * torch.pi) ** 0.5 * (0.5 * z[inside].square()).exp()
    values = torch.linalg.svdvals(jacobian(embedding, z[inside]) * stretch.unsqueeze(1))
    near = torch.cdist(y[inside], y[inside]) < 0.05 * unit
    meets = (near & (torch.cdist(u[inside], u[inside], p=torch.inf) > 0.2)).any(1)
    energy, p_value = _energy_test(y, points, permutations, generator)
    return EmbeddingQuality(
        float(distance),
        energy,
        p_value,
        float(values.min() / values.median()),
        float(meets.float().mean()),
    )


def _energy_test(x, y, permutations, generator):
    N = len(x)
    D = torch.cdist(torch.cat([x, y]), torch.cat([x, y])).double()
    labels = torch.cat([torch.ones(N), -torch.ones(N)])
    shuffled = [labels[torch.randperm(2 * N, generator=generator)] for _ in range(permutations)]
    s = torch.stack([labels, *shuffled]).to(D)
    # With s = ±1 for the two samples, -sᵀDs / N² is 2 E|X-Y| - E|X-X'| - E|Y-Y'|.
    statistic = -((s @ D) * s).sum(1) / N**2
    p_value = (1 + (statistic[1:] >= statistic[0]).sum()) / (permutations + 1)
    return float(statistic[0] / (2 * D[:N, N:].mean())), float(p_value)
