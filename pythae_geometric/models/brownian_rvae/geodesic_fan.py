"""Curves from one centre to any point, between geodesics that are solved once an epoch."""

import torch
from torch import nn

from ...geometry import PullbackMetric, evaluation_mode
from ...geometry.curves import relax, squared_speed_between, straight_line


class GeodesicFan(nn.Module):
    r"""Geodesics from a centre c to K anchors, and curves to points between the anchors.

    With :math:`\delta_k(s)` the deviation of the k-th geodesic from its straight line,

    .. math:: \gamma_z(s) = (1 - s)\, c + s\, z + \sum_k \omega_k(z)\, \delta_k(s), \qquad
              \omega(z) = \operatorname{softmax}_k \bigl(-|z - a_k|^2 / \min_j |z - a_j|^2\bigr).

    A training step needs the distance of every sample to one and the same centre, while metric and
    centre hardly move from step to step. So the geodesics to the anchors are solved once an epoch,
    and a step pays for one evaluation of the energy of :math:`\gamma_z`. But for the error of its
    N steps, twice that energy is at least the squared distance, and the excess is quadratic in the
    deviation from the geodesic; its gradient at fixed interior is the envelope theorem's to first
    order. On the digits with 64 anchors the median excess is 0.1 % at d = 2, 1 % at d = 5 and 3 %
    at d = 10; that of straight lines is 9 %, 5 % and 15 %.

    Args:
        num_anchors: K.
        latent_dim: d.
        steps: number N of steps of a curve, even and at least 4.
    """

    anchors: torch.Tensor
    deviations: torch.Tensor

    def __init__(self, num_anchors: int, latent_dim: int, steps: int = 6):
        super().__init__()
        self.steps = steps
        self.register_buffer("anchors", torch.zeros(num_anchors, latent_dim))
        self.register_buffer("deviations", torch.zeros(num_anchors, steps - 1, latent_dim))

    @torch.no_grad()
    def solve(self, metric: PullbackMetric, center: torch.Tensor, iterations: int) -> None:
        """Relax the geodesics from ``center [d]`` to the anchors, beginning at those of before."""
        N, anchors = self.steps, self.anchors
        line = straight_line(center.expand_as(anchors), anchors, N)
        curves = line.clone()
        curves[:, 1:-1] += self.deviations
        tiny = torch.finfo(curves.dtype).tiny

        def log_energy(c, rows):
            return (square_of(c, rows).mean(-1) + tiny).log()

        with evaluation_mode(metric):
            square_of = squared_speed_between(metric, line)
            middle = curves[:, 1::2]
            G = metric(middle.flatten(0, 1)).unflatten(0, middle.shape[:2])
            energy = 0.5 * square_of(curves, slice(None)).mean(-1)
            # An anchor may be the centre: the only code of its cluster, and nearest to the mean.
            energy = torch.where(energy > tiny, energy, 1.0)[:, None, None, None]
            curves = relax(log_energy, curves, G / energy, iterations, tolerance=1e-2)[0]
        self.deviations.copy_((curves - line)[:, 1:-1])

    @torch.no_grad()
    def forward(self, z: torch.Tensor, center: torch.Tensor) -> torch.Tensor:
        """The interior nodes of the curves from ``center [d]`` to ``z [B, d]``:
        ``[B, N - 1, d]``."""
        square = torch.cdist(z, self.anchors).square()
        nearest = square.amin(1, keepdim=True) + torch.finfo(z.dtype).tiny
        weights = (-square / nearest).softmax(1)
        deviation = torch.einsum("bk,knd->bnd", weights, self.deviations)
        return straight_line(center.expand_as(z), z, self.steps)[:, 1:-1] + deviation


def mean_squared_speed(image: torch.Tensor) -> torch.Tensor:
    r"""Twice the energy, :math:`\int |c'|^2`, of curves through ``[B, N + 1, m]``: ``[B]``.

    With the two steps a and b of a piece, :math:`N \sum \tfrac76 (|a|^2 + |b|^2) - \tfrac13
    \langle a, b \rangle` (see :mod:`~pythae_geometric.geometry.curves`).
    """
    steps = image.diff(dim=1)
    squares = steps.square().sum((1, 2))
    products = (steps[:, ::2] * steps[:, 1::2]).sum((1, 2))
    return steps.shape[1] * (7 / 6 * squares - 1 / 3 * products)


def along_curves(fan, mean, std, z, center, chosen):
    r"""What a training step needs of a decoder :math:`N(x; \mu(z), \sigma(z)^2)`.

    Args:
        fan: the geodesics from the centre.
        mean, std: :math:`\mu` and :math:`\sigma`, ``[B, d] -> [B, D]``; :math:`\mu` is held fixed.
        z: points, ``[B, d]``.
        center: c, ``[d]``.
        chosen: the points whose distances are those along the curves of the fan. For the others
            they are estimated by straight lines in data space.

    Returns:
        :math:`\mu(z)` and :math:`\sigma(z)`, ``[B, D]``, and the squared distances of z and c,
        ``[B]``.
    """
    rows = chosen.rows
    interior = fan(z[rows], center)
    ends, inner = torch.cat([z, center.unsqueeze(0)]), interior.flatten(0, 1)
    with evaluation_mode(mean):
        mean_ends = mean(ends)
        with torch.no_grad():  # neither these points nor the mean are learned here
            mean_inner = mean(inner)
    std_ends, std_inner = std(torch.cat([ends, inner])).split([len(ends), len(inner)])

    def squares(at_ends, at_inner):
        at_z, at_c = at_ends[:-1], at_ends[-1:]
        at_inner = at_inner.unflatten(0, interior.shape[:2])
        nodes = [at_c.expand(len(rows), 1, -1), at_inner, at_z[rows].unsqueeze(1)]
        return (at_z - at_c).square().sum(1), mean_squared_speed(torch.cat(nodes, dim=1))

    parts = zip(squares(mean_ends, mean_inner), squares(std_ends, std_inner), strict=True)
    chord, curve = (of_mean + of_std for of_mean, of_std in parts)
    return mean_ends[:-1], std_ends[:-1], chosen.corrected(chord, curve)
