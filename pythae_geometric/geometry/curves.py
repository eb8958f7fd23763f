r"""Discretised curves between points, and the search for those of least energy.

A curve is its nodes :math:`\gamma_0 = x, \gamma_1, \dots, \gamma_N = y`, and its energy is that of
the piecewise quadratic curve c through them: through the *images* :math:`f(\gamma_i)` if the metric
is that of an immersion f, through the nodes themselves otherwise. Each pair of steps is one
quadratic piece, integrated by Gauss' rule at two points,

.. math:: E = \tfrac12 \int |c'|_G^2 dt = \frac1{2N} \sum_q |c'(t_q)|_G^2, \qquad
          c'(t_q) = N \Bigl( \tfrac12 (\delta_1 + \delta_2)
                    \pm \tfrac1{\sqrt3} (\delta_2 - \delta_1) \Bigr),

with :math:`\delta_1, \delta_2` the two steps of a piece. For an immersion this is
:math:`\tfrac12 N \sum_i |\delta_i|^2 + \tfrac1{12} N \sum |\delta_2 - \delta_1|^2`: the usual
discrete energy, and a second term that costs nothing and lifts the order of the distance from 2
to 4.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ._checks import check_count, check_number, check_points
from ._warnings import warn
from .lbfgs import minimise
from .metric import Metric
from .pullback import PullbackMetric

# A geodesic has constant speed. Where the speeds at the Gauss points deviate from their mean by
# more than this fraction, the curve has slipped between the nodes.
SPEED_TOLERANCE = 0.25
# Where the length of the smooth curve, at points that the search did not see, differs by more than
# this fraction, something narrower than a step lies on the way.
LENGTH_TOLERANCE = 0.1
# The search begins this many tolerances away from the straight line, but not further than BEND.
BEND_IN_TOLERANCES, BEND = 30.0, 0.1


class ConvergenceWarning(RuntimeWarning):
    """Some curves of a batch are not geodesics to the accuracy that was asked for."""


@dataclass(frozen=True)
class Curve:
    r"""A batch of curves, each on the unit interval at constant speed.

    Attributes:
        nodes: points at the times ``0, 1/N, ..., 1``, ``[B, N + 1, d]``.
        length: lengths, ``[B]``.
        energy: energies :math:`\tfrac12 \int |\gamma'|^2 dt`, ``[B]``; ½ length² at constant speed.
        converged: which curves are local minima to the tolerance, and have neither slipped
            between their nodes nor length 0 between different points, ``[B]``. A structure of the
            metric much narrower than a step can go unnoticed.
    """

    nodes: torch.Tensor
    length: torch.Tensor
    energy: torch.Tensor
    converged: torch.Tensor

    def __call__(self, t: float | torch.Tensor) -> torch.Tensor:
        """The points at time ``t``, on the cubic spline through the nodes.

        Args:
            t: a number or ``[]`` (one time, gives ``[B, d]``), ``[T]`` (the same times for all
                curves, gives ``[B, T, d]``) or ``[B, T]`` (times for each curve, ``[B, T, d]``).

        Raises:
            TypeError: times that are no floating-point numbers.
            ValueError: a time outside ``[0, 1]``, or a shape that is none of these.
        """
        if not isinstance(t, torch.Tensor):
            t = torch.tensor(check_number("t", t, least=0), dtype=self.nodes.dtype)
        if not t.is_floating_point():
            raise TypeError(f"The times must be floating-point numbers, got {t.dtype}.")
        t = t.to(self.nodes)
        B, N = len(self.nodes), self.nodes.shape[1] - 1
        if t.ndim > 2 or (t.ndim == 2 and len(t) != B):
            raise ValueError(
                f"The times must have shape [], [T] or [{B}, T] for {B} curves, "
                f"got {list(t.shape)}."
            )
        if not bool(((t >= 0) & (t <= 1)).all()):
            raise ValueError("The times must lie in [0, 1], where the curve is defined.")
        times = t.reshape(1, -1).expand(B, -1) if t.ndim < 2 else t
        piece = (times * N).long().clamp(max=N - 1)
        s = (times * N - piece).unsqueeze(-1)

        def at(values, index):
            return values.gather(1, index.unsqueeze(-1).expand(-1, -1, values.shape[-1]))

        slopes = _spline_slopes(N).to(self.nodes) @ self.nodes
        left, right = at(self.nodes, piece), at(self.nodes, piece + 1)
        slope_left, slope_right = at(slopes, piece), at(slopes, piece + 1)
        points = (
            (1 - s).square() * ((1 + 2 * s) * left + s * slope_left)
            + s.square() * ((3 - 2 * s) * right + (s - 1) * slope_right)
        )  # fmt: skip
        return points.squeeze(1) if t.ndim == 0 else points


def relax(log_energy, line, curvature, iterations, tolerance):
    r"""Minimise the logarithm of an energy over the interior nodes of curves.

    The logarithm makes the search independent of the unit of the metric. It begins beside the line:
    by symmetry the line may lie on the ridge between two minima, and a search that begins there
    would never leave it.

    Args:
        log_energy: of curves and their numbers in the batch, ``([b, N + 1, d], [b]) -> [b]``.
        line: where to begin, ``[B, N + 1, d]``.
        curvature: guess ``H``, ``[B, N / 2, d, d]``, at the Hessian of the logarithm as that of
            :math:`\tfrac12 \int \gamma'^\top H \gamma' dt`, one tensor for each piece.
        iterations, tolerance: see :func:`~.lbfgs.minimise`.

    Returns:
        The curves ``[B, N + 1, d]`` and which of them are stationary, ``[B]``.
    """
    B, N, d = len(line), line.shape[1] - 1, line.shape[2]
    n = (N - 1) * d
    energy_of_line = log_energy(line, slice(None))
    if not bool(torch.isfinite(energy_of_line).all() and torch.isfinite(curvature).all()):
        raise ValueError(
            "The metric is not finite on the straight line between some of the end points: move "
            "them, or check the map that defines the metric."
        )
    eye = torch.eye(d, dtype=line.dtype, device=line.device)
    size = curvature.diagonal(dim1=-2, dim2=-1).mean((-1, -2))
    # A guess may be stiffer than the truth in directions that the metric has collapsed.
    floor = 1e-4 * size + torch.finfo(line.dtype).tiny ** 0.5
    curvature = curvature + floor[:, None, None, None] * eye
    basis = torch.eye(N + 1, dtype=line.dtype, device=line.device)
    stiffness = velocities(basis[None])[0, :, 1:-1].unflatten(0, (N // 2, 2))
    stiffness = stiffness.mT @ stiffness / N
    hessian = torch.einsum("eij,bekl->bikjl", stiffness, curvature).reshape(B, n, n)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    start = line[:, 1:-1].reshape(B, n)
    start = start + min(BEND_IN_TOLERANCES * tolerance, BEND) * _bend(hessian, curvature, N)

    def curves(interior, rows):
        return torch.cat([line[rows, :1], interior.view(-1, N - 1, d), line[rows, -1:]], dim=1)

    # Between points that agree up to rounding there is nothing to search.
    point = is_point(line)
    moved = (~point).nonzero().flatten()
    found, stationary = line.clone(), point.clone()
    if len(moved):
        minimum = minimise(
            lambda interior, rows: log_energy(curves(interior, moved[rows]), moved[rows]),
            start[moved],
            inverse[moved],
            iterations,
            tolerance,
        )
        # Where the metric is constant nothing is better than the line.
        straight = (energy_of_line[moved] <= minimum.value)[:, None, None]
        found[moved] = torch.where(straight, line[moved], curves(minimum.point, moved))
        stationary[moved] = minimum.converged
    return found, stationary


def _bend(hessian: torch.Tensor, curvature: torch.Tensor, N: int) -> torch.Tensor:
    """A smooth deviation of the interior nodes, ``[B, n]``, that costs an energy of order 1.

    It goes in all directions that the metric has, by amounts that no symmetry has.
    """
    d = curvature.shape[-1]
    k = torch.arange(1, 4, dtype=curvature.dtype, device=curvature.device)
    t = torch.arange(1, N, dtype=curvature.dtype, device=curvature.device) / N
    waves = (torch.pi * k * t.unsqueeze(-1)).sin() / k.square()
    i = torch.arange(3 * d, dtype=curvature.dtype, device=curvature.device)
    amounts = (1 + i.square()).sin().view(3, d)
    # In units of the metric, so that no direction drowns another.
    unit = torch.linalg.cholesky(curvature.mean(1))
    bend = torch.linalg.solve_triangular(unit.mT, (waves @ amounts).mT, upper=True)
    bend = bend.mT.flatten(1)
    energy = 0.5 * (bend.unsqueeze(1) @ hessian @ bend.unsqueeze(-1)).flatten()
    return bend / energy.sqrt().unsqueeze(-1)


def is_point(line: torch.Tensor) -> torch.Tensor:
    x, y = line[:, 0], line[:, -1]
    return ((x - y).abs() <= 8 * torch.finfo(x.dtype).eps * (x.abs() + y.abs())).all(-1)


def is_even(speed: torch.Tensor) -> torch.Tensor:
    mean = speed.mean(1, keepdim=True)
    return (speed - mean).square().mean(1).sqrt() <= SPEED_TOLERANCE * mean.squeeze(1)


def refined(c: torch.Tensor, factor: int) -> torch.Tensor:
    """The nodes of steps finer by a factor, on the spline; every factor-th is a node of ``c``."""
    N = factor * (c.shape[1] - 1)
    spline = Curve(c, *c.new_empty(3, 0))
    fine = spline(torch.linspace(0, 1, N + 1, dtype=c.dtype, device=c.device))
    fine[:, ::factor] = c
    return fine


def is_resolved(length: torch.Tensor, of_refined: torch.Tensor) -> torch.Tensor:
    """Which curves keep their length, ``[B]``, in finer steps."""
    return (length - of_refined).abs() <= LENGTH_TOLERANCE * of_refined


def finished_curve(
    line, c, length, energy, stationary, resolved, iterations, remedy="raise iterations or steps"
) -> Curve:
    point = is_point(line)
    null = (length == 0) & ~point
    converged = stationary & (resolved | point) & ~null
    if not bool(converged.all()):
        warn(
            f"{int((~converged).sum())} of {len(converged)} curves did not converge: "
            f"{int((~stationary).sum())} were still moving after {iterations} iterations, "
            f"{int((~(resolved | point)).sum())} are too coarse with {c.shape[1] - 1} steps, and "
            f"{int(null.sum())} have length 0 because the metric is degenerate: "
            f"{remedy}.",
            ConvergenceWarning,
        )
    return Curve(c, length, energy, converged)


def straight_line(x, y, N):
    x, y = x.detach(), y.detach()
    t = torch.arange(N + 1, dtype=x.dtype, device=x.device).unsqueeze(-1) / N
    return x.unsqueeze(1) + t * (y - x).unsqueeze(1)


def velocities(c: torch.Tensor) -> torch.Tensor:
    """Velocities at the Gauss points of the quadratic curve, ``[B, N + 1, m] -> [B, N, m]``."""
    steps = c.diff(dim=1)
    first, second = steps[:, ::2], steps[:, 1::2]
    mean, change = (first + second) / 2, (second - first) / 3**0.5
    return steps.shape[1] * torch.stack([mean - change, mean + change], 2).flatten(1, 2)


def gauss_points(c: torch.Tensor) -> torch.Tensor:
    """Positions at the Gauss points of the quadratic curve, ``[B, N + 1, d] -> [B, N, d]``."""
    left, middle, right = c[:, :-2:2], c[:, 1::2], c[:, 2::2]
    even, odd = (left + 4 * middle + right) / 6, (right - left) / 12**0.5
    return torch.stack([even - odd, even + odd], 2).flatten(1, 2)


def squared_speed(metric: Metric, c: torch.Tensor) -> torch.Tensor:
    """Squared speed at the Gauss points of the curves through ``c [B, N + 1, d]``, ``[B, N]``."""
    if isinstance(metric, PullbackMetric):
        return _image_speed(_image(metric, c))
    z, v = gauss_points(c).flatten(0, 1), velocities(c).flatten(0, 1)
    return metric.inner(z, v, v).view(len(c), -1)


def squared_speed_between(
    metric: Metric, line: torch.Tensor
) -> Callable[[torch.Tensor, torch.Tensor | slice], torch.Tensor]:
    """:func:`squared_speed` of curves with the ends of ``line [B, N + 1, d]``: of ``c`` and rows.

    The images of the ends are taken once.
    """
    if not isinstance(metric, PullbackMetric):
        return lambda c, rows: squared_speed(metric, c)
    start, end = _image(metric, line[:, [0, -1]]).split(1, dim=1)

    def speed(c, rows):
        interior = _image(metric, c[:, 1:-1])
        return _image_speed(torch.cat([start[rows], interior, end[rows]], dim=1))

    return speed


def squared_speed_and_refined(metric: Metric, c: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """:func:`squared_speed` of curves, and of the same in steps of half the length."""
    fine = refined(c, 2)
    if not isinstance(metric, PullbackMetric):
        return squared_speed(metric, c), squared_speed(metric, fine)
    image = _image(metric, fine)
    return _image_speed(image[:, ::2]), _image_speed(image)


def _image(metric: PullbackMetric, c: torch.Tensor) -> torch.Tensor:
    return metric.image(c.flatten(0, 1)).unflatten(0, c.shape[:2])


def _image_speed(image: torch.Tensor) -> torch.Tensor:
    """``velocities(image).square().sum(-1)``, from the products of the steps alone."""
    steps = image.diff(dim=1)
    first, second = steps.square().sum(-1).unflatten(1, (-1, 2)).unbind(2)
    product = (steps[:, ::2] * steps[:, 1::2]).sum(-1)
    more, less = 0.5 + 1 / 3**0.5, 0.5 - 1 / 3**0.5
    mixed = 2 * more * less * product
    square = [
        more**2 * first + less**2 * second + mixed,
        less**2 * first + more**2 * second + mixed,
    ]
    return steps.shape[1] ** 2 * torch.stack(square, 2).flatten(1, 2)


def _spline_slopes(N: int) -> torch.Tensor:
    """The matrix from nodes to slopes (a step is the unit) of the not-a-knot cubic spline."""
    A, b = torch.zeros(2, N + 1, N + 1, dtype=torch.float64)
    i = torch.arange(1, N)
    A[i, i - 1], A[i, i], A[i, i + 1] = 1.0, 4.0, 1.0
    b[i, i - 1], b[i, i + 1] = -3.0, 3.0
    for row, sign in ((0, 1), (N, -1)):  # the first two pieces are one cubic, and the last two
        A[row, row], A[row, row + 2 * sign] = 1.0, -1.0
        b[row, [row, row + sign, row + 2 * sign]] = sign * torch.tensor([-2.0, 4.0, -2.0]).double()
    return torch.linalg.solve(A, b)


def check_ends(
    x: torch.Tensor,
    y: torch.Tensor,
    steps: int,
    iterations: int,
    tolerance: float,
    names: tuple[str, str] = ("x", "y"),
) -> tuple[torch.Tensor, torch.Tensor]:
    """The ends of curves as :func:`~._checks.check_points` gives them, all arguments checked."""
    x, y = (
        check_points(z, f"The end points {name}") for z, name in zip((x, y), names, strict=True)
    )
    both = f"The end points {names[0]} and {names[1]}"
    if x.shape != y.shape or 0 in x.shape:
        raise ValueError(
            f"{both} must both have shape [B, d], not empty, got {list(x.shape)} and "
            f"{list(y.shape)}."
        )
    if x.dtype != y.dtype or x.device != y.device:
        raise TypeError(
            f"{both} must agree, got {x.dtype} on {x.device} and {y.dtype} on {y.device}."
        )
    for name, points in zip(names, (x, y), strict=True):
        if not bool(torch.isfinite(points).all()):
            raise ValueError(f"The end points {name} contain a value that is not finite.")
    if check_count("steps", steps, 4) % 2:
        raise ValueError(f"steps must be an even number of at least 4, got {steps}.")
    check_count("iterations", iterations, 1)
    check_number("tolerance", tolerance, above=0)
    return x, y
