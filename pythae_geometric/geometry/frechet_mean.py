r"""The Fréchet mean of points: the point of least variance,

.. math:: V(m) = \sum_i w_i\, d^2(m, x_i), \qquad \nabla V(m) = -2\, G(m) \sum_i w_i \log_m x_i,

with weights of sum 1. Where it is stationary the logarithms of the points balance. The Hessian of V
is nearly 2 G (exactly in flat space), so :math:`V G^{-1} / 2` is a guess at the inverse Hessian of
log V, which is what the search minimises.
"""

import warnings
from dataclasses import dataclass

import torch

from ._checks import check_points
from ._guard import guard
from ._warnings import warn
from .curves import ConvergenceWarning, check_ends, squared_speed, straight_line
from .derivatives import Immersion
from .geodesics import geodesic, logarithm, squared_distance
from .lbfgs import minimise
from .metric import Metric
from .pullback import as_metric

# The search begins this many standard deviations beside its first guess: by symmetry that may be
# a saddle or a maximum, and a search that begins there would never leave it.
BESIDE = 0.1
# The geodesics are solved so many times more accurately than the mean.
MARGIN = 10.0


@dataclass(frozen=True)
class FrechetMean:
    """The mean of points in a Riemannian metric.

    Attributes:
        point: the mean, ``[d]``.
        variance: weighted mean of the squared distances of the points from it, ``[]``.
        converged: whether it is a local minimum of the variance to the tolerance, and all geodesics
            from it to the points have converged.
    """

    point: torch.Tensor
    variance: torch.Tensor
    converged: bool


def frechet_mean(
    immersion_or_metric: Immersion | Metric,
    points: torch.Tensor,
    weights: torch.Tensor | None = None,
    steps: int = 32,
    iterations: int = 100,
    tolerance: float = 1e-3,
) -> FrechetMean:
    r"""The Fréchet (Karcher) mean :math:`\arg\min_m \sum_i w_i\, d^2(m, x_i)` of points.

    The search begins beside the mean of the coordinates, or beside the point nearest to that if its
    variance is less, and ends in a local minimum; the mean need not be unique. In each iteration
    the geodesics to all points are solved together. A step to where the metric is not finite is
    shortened. The result is not differentiable.

    Args:
        immersion_or_metric: a map ``[B, d] -> [B, ...]`` or a metric, as for
            :func:`~.geodesics.geodesic`.
        points: the points :math:`x_i`, ``[B, d]``.
        weights: at least 0 and not all 0, ``[B]``; they are divided by their sum. None: all equal.
        steps: of the geodesics, even and at least 4.
        iterations: evaluations of the variance allowed, and of the energy of each geodesic.
        tolerance: of the mean, which has converged when
            :math:`|\sum_i w_i \log_m x_i| \le` ``tolerance`` standard deviations. The geodesics are
            solved 10 times more accurately.

    Returns:
        A :class:`FrechetMean`: ``point`` ``[d]``, ``variance`` ``[]`` and ``converged``.

    Raises:
        TypeError, ValueError: arguments of wrong type, shape or range, or a metric that is not
            finite on the straight lines between a first guess and the points.
        DegenerateMetricError: the metric is not positive definite at a first guess or the mean.

    Warns:
        ConvergenceWarning: the mean has not converged.

    References:
        H. Karcher, Riemannian center of mass and mollifier smoothing, Comm. Pure Appl. Math. 30,
        1977, theorem 1.2 (the gradient).

    Example:
        >>> polar = lambda z: z[:, :1] * torch.cat([z[:, 1:].cos(), z[:, 1:].sin()], 1)
        >>> mean = frechet_mean(polar, torch.tensor([[1.0, 0.0], [1.0, torch.pi / 2]]))
        >>> polar(mean.point[None]).round(decimals=2)  # the middle of (1, 0) and (0, 1)
        tensor([[0.5000, 0.5000]])
        >>> mean.converged
        True
    """
    metric = as_metric(immersion_or_metric)
    points, weights = _check_arguments(points, weights, steps, iterations, tolerance)
    with guard(metric, points), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of the geodesics: V counts them
        points, weights = points[weights > 0], weights[weights > 0]
        w = weights / weights.sum()
        V = _Variance(metric, points, w, steps, iterations, tolerance / MARGIN)
        guess, log_V_guess = _first_guess(V)
        m, log_V = _beside(V, guess, log_V_guess)
        while True:
            inverse = torch.cholesky_inverse(metric.cholesky(m))
            inverse_hessian = 0.5 * log_V.exp()[:, None, None] * inverse
            left = max(iterations - V.evaluations, 1)
            m, log_V, _ = minimise(V.log, m, inverse_hessian, left, tolerance / 2)
            if bool(log_V_guess <= log_V):  # where the metric is constant nothing is better
                m, log_V = guess, log_V_guess
            variance, residual, unfinished = V.at(m)
            # The search measured its gradient in the metric where it began: it may begin again.
            if bool(residual <= tolerance) or V.evaluations >= iterations:
                break
    converged = bool(residual <= tolerance) and unfinished == 0
    if not converged:
        warn(
            f"The Fréchet mean did not converge: after {V.evaluations} iterations the mean "
            f"logarithm is {float(residual):.2g} standard deviations long, for {tolerance:g} asked "
            f"for, and {unfinished} of {len(points)} geodesics to the points did not converge. "
            "Take more iterations or more steps.",
            ConvergenceWarning,
        )
    return FrechetMean(m.squeeze(0), variance, converged)


class _Variance:
    """The variance of points as a function of the candidate for their mean, ``[1, d]``."""

    def __init__(self, metric, points, weights, steps, iterations, tolerance):
        self.metric, self.points, self.weights = metric, points, weights
        self.accuracy = steps, iterations, tolerance
        self.evaluations = 0

    def log(self, m, rows=None):
        """``log V(m)``, ``[1]``; infinite where the metric is not finite on the way to a point."""
        self.evaluations += 1
        ends = m.expand_as(self.points)
        with torch.no_grad():
            speed = squared_speed(self.metric, straight_line(ends, self.points, self.accuracy[0]))
        if not bool(torch.isfinite(speed).all()):
            return torch.inf + 0 * m.sum(-1)
        square = squared_distance(self.metric, ends, self.points, *self.accuracy)
        tiny = torch.finfo(m.dtype).tiny  # points that are all the same have variance 0
        return (self.weights @ square + tiny).log().unsqueeze(0)

    def at(self, m):
        """The variance, the length of the mean logarithm in standard deviations, and the number of
        geodesics that have not converged."""
        ends = m.expand_as(self.points)
        curve = geodesic(self.metric, ends, self.points, *self.accuracy)
        variance = self.weights @ curve.length.square()
        mean_log = self.weights @ logarithm(self.metric, ends, self.points, *self.accuracy)
        length = self.metric.norm(m, mean_log.unsqueeze(0)).squeeze(0)
        residual = torch.where(length > 0, length / variance.sqrt(), 0.0)
        return variance, residual, int((~curve.converged).sum())


def _first_guess(V):
    """The mean of the coordinates or the point nearest to that, whichever has less variance, and
    the logarithm of it."""
    centre = (V.weights @ V.points).unsqueeze(0)
    nearest = V.points[(V.points - centre).square().sum(-1).argmin()].unsqueeze(0)
    log_V, guess = min(((V.log(m), m) for m in (nearest, centre)), key=lambda pair: float(pair[0]))
    if not bool(torch.isfinite(log_V)):
        raise ValueError(
            "The metric is not finite on the straight lines to some of the points, neither from "
            "the mean of the coordinates nor from the point nearest to it: leave out the points "
            "that lie far away, or check the map that defines the metric."
        )
    return guess, log_V


def _beside(V, guess, log_V):
    """A point beside the guess, in a direction that no symmetry has, and its log variance; the
    guess itself where the metric is not finite on the ways from there."""
    i = torch.arange(guess.shape[1], dtype=guess.dtype, device=guess.device)
    direction = (1 + i.square()).sin()
    direction = direction / direction.norm() * (log_V / 2).exp()
    L = V.metric.cholesky(guess)
    shift = torch.linalg.solve_triangular(L.mT, direction[None, :, None], upper=True).squeeze(-1)
    beside = guess + BESIDE * shift
    log_V_beside = V.log(beside)
    return (beside, log_V_beside) if bool(torch.isfinite(log_V_beside)) else (guess, log_V)


def _check_arguments(points, weights, steps, iterations, tolerance):
    """The points and their weights."""
    points = check_points(points, "The points")
    if len(points) == 0:
        raise ValueError("The points are empty: a mean needs at least one point.")
    if not bool(torch.isfinite(points).all()):
        raise ValueError("The points contain a value that is not finite.")
    check_ends(points, points, steps, iterations, tolerance)
    if weights is None:
        return points, torch.ones_like(points[:, 0])
    if not isinstance(weights, torch.Tensor):
        raise TypeError(
            f"The weights must be a tensor [{len(points)}], got a {type(weights).__name__}."
        )
    if weights.shape != points.shape[:1]:
        raise ValueError(
            f"The weights must have shape [{len(points)}], one for each point, got "
            f"{list(weights.shape)}."
        )
    if weights.dtype != points.dtype or weights.device != points.device:
        raise TypeError(
            "The weights must be of the dtype and on the device of the points, "
            f"{points.dtype} on {points.device}, got {weights.dtype} on {weights.device}."
        )
    if not bool((weights >= 0).all() and torch.isfinite(weights).all() and weights.sum() > 0):
        raise ValueError("The weights must be finite, at least 0 and not all 0.")
    return points, weights
