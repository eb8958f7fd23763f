"""Curves that keep to the regions of large volume."""

import math

import torch

from ._guard import guard
from .curves import (
    Curve,
    check_ends,
    finished_curve,
    gauss_points,
    is_even,
    is_point,
    is_resolved,
    refined,
    relax,
    straight_line,
    velocities,
)
from .derivatives import Immersion
from .metric import Metric
from .pullback import PullbackMetric, as_metric

# Weight of the term that keeps the speed even. With less, steps stretch until they jump over the
# barriers between high-density regions; with more, the search is stiff.
EVENNESS = 10.0


def potential_path(
    immersion_or_metric: Immersion | Metric,
    x: torch.Tensor,
    y: torch.Tensor,
    steps: int = 32,
    iterations: int = 200,
    tolerance: float = 1e-2,
) -> Curve:
    r"""Curves that keep to large volume: local minima of :math:`L_V = \int V(\gamma) |\gamma'| dt`.

    The potential is :math:`V(z) = 1 / \sqrt{\det G(z)}`. Its integral over arc length does not
    depend on how a curve is run through, unlike :math:`\int V(\gamma(t)) dt`, whose infimum is a
    curve that rests where V is least and jumps over the rest. The minima are the geodesics of the
    conformal metric :math:`V^2 I`; but V ranges over many orders of magnitude, and at constant
    speed of *that* metric all nodes of a curve would crowd where V is large. So :math:`\log L_V`
    itself is minimised, together with a term that vanishes at constant Euclidean speed, which is
    possible because every curve can be run through at it:

    .. math:: 2 \log L_V + 10 \sum_q \bigl(|\gamma'(t_q)| / \overline{|\gamma'|} - 1\bigr)^2.

    Args:
        immersion_or_metric: a map ``[B, d] -> [B, ...]`` or a metric, such as that of a fitted
            sampler.
        x: starts, ``[B, d]``.
        y: ends, ``[B, d]``.
        steps: number of steps of a curve, even and at least 4. Structures of V narrower than a step
            cannot be seen: raise it.
        iterations: the most evaluations of the functional and its gradient, 1 or more.
        tolerance: relative accuracy of the nodes, above 0.

    Returns:
        Curves at constant Euclidean speed. ``length`` is :math:`L_V` in units of the largest V on
        the straight line from ``x`` to ``y``, so that it can neither overflow nor depend on the
        scale of V; ``energy`` is half its square.

    Raises:
        TypeError, ValueError: arguments of wrong shape or range, or a metric that is not finite
            on the straight lines.
        DegenerateMetricError: the metric is not positive definite at some point of a curve.

    Warns:
        ConvergenceWarning: some curves did not converge; ``curve.converged`` says which.

    References:
        Chadebec, Allassonnière, A geometric perspective on variational autoencoders, NeurIPS 2022
        (the potential).
    """
    metric = as_metric(immersion_or_metric)
    x, y = check_ends(x, y, steps, iterations, tolerance)
    tiny = torch.finfo(x.dtype).tiny  # keeps a curve of length 0 finite

    def log_potential(z):
        return -metric.log_volume(z.flatten(0, 1)).view(len(z), -1)

    def speed(c):
        return (velocities(c).square().sum(-1) + tiny).sqrt()

    def log_length(c):
        return (log_potential(gauss_points(c)) + speed(c).log()).logsumexp(-1) - math.log(
            c.shape[1] - 1
        )

    def log_energy(c, rows):
        relative = speed(c) / speed(c).mean(-1, keepdim=True)
        return 2 * log_length(c) + EVENNESS * (relative - 1).square().sum(-1)

    with guard(metric, x), torch.no_grad():
        line = straight_line(x, y, steps)
        unit = log_potential(line).amax(1)
        # The Hessian for constant V: 2 / |y - x|² across the line, and that of evenness along it.
        across = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
        chord = (y - x).detach().unsqueeze(-1)
        square = chord.mT @ chord
        square = torch.where(square > 0, square, 1.0)
        curvature = 2 * (across + EVENNESS * steps * chord @ chord.mT / square) / square
        curvature = curvature.unsqueeze(1).expand(-1, steps // 2, -1, -1)
        c, stationary = relax(log_energy, line, curvature, iterations, tolerance)

        # The length is taken on the smooth curve, in units of the largest V on the line.
        def length_on(c):
            return (log_length(c) - unit).exp()

        seen, resolved = length_on(c), is_even(speed(c))
        length = length_on(refined(c, 4))
        resolved &= is_resolved(seen, length)
        length = torch.where(is_point(line), 0.0, length)
    remedy = "raise iterations or steps"
    if isinstance(metric, PullbackMetric):
        remedy += (
            ", or, since the volume of a decoder's pullback varies by orders of magnitude, pass a "
            "smoother metric, such as that of a fitted MetricUniformHMCSampler"
        )
    energy = 0.5 * length.square()
    return finished_curve(line, c, length, energy, stationary, resolved, iterations, remedy)
