"""Geodesics between points, their length, and the maps between tangent vectors and points."""

import torch

from ._checks import check_points, check_vectors
from ._guard import guard
from ._runge_kutta import StepTooSmall, integrate
from .curves import (
    Curve,
    check_ends,
    finished_curve,
    is_even,
    is_resolved,
    relax,
    squared_speed,
    squared_speed_and_refined,
    squared_speed_between,
    straight_line,
    velocities,
)
from .derivatives import Immersion
from .metric import Metric
from .pullback import as_metric


def geodesic(
    immersion_or_metric: Immersion | Metric,
    x: torch.Tensor,
    y: torch.Tensor,
    steps: int = 32,
    iterations: int = 100,
    tolerance: float = 1e-4,
) -> Curve:
    r"""Geodesics between a batch of pairs of points, by minimising the energy of their nodes.

    All curves start beside straight lines and are solved together; each is a local minimum near
    its line, not necessarily the shortest geodesic. Error of the length: order 4 in 1 / N.

    Args:
        immersion_or_metric: a map ``[B, d] -> [B, ...]``, whose pullback of the Euclidean metric
            is meant (needs no derivative of f along the way, so it is the cheaper one), or a
            metric.
        x: starts, ``[B, d]``.
        y: ends, ``[B, d]``.
        steps: number N of steps of a curve, even and at least 4.
        iterations: the most evaluations of energy and gradient, 1 or more.
        tolerance: relative accuracy of the nodes, above 0; the energy is accurate to its square.

    Raises:
        TypeError, ValueError: arguments of wrong shape or range, or a metric that is not finite
            on the straight lines.

    Warns:
        ConvergenceWarning: some curves did not converge; ``curve.converged`` says which. Those
            that were still moving need more ``iterations``, those that are too coarse more
            ``steps``.

    References:
        Arvanitidis, Hansen, Hauberg, Latent space oddity, ICLR 2018, section 3.

    Example:
        >>> polar = lambda z: z[:, :1] * torch.cat([z[:, 1:].cos(), z[:, 1:].sin()], 1)
        >>> x, y = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, torch.pi / 2]])
        >>> curve = geodesic(polar, x, y)  # a straight line of the plane, in polar coordinates
        >>> curve.length, curve(0.5)[:, 0]
        (tensor([1.4142]), tensor([0.7071]))
    """
    metric = as_metric(immersion_or_metric)
    x, y = check_ends(x, y, steps, iterations, tolerance)
    tiny = torch.finfo(x.dtype).tiny  # keeps a curve of length 0 finite

    with guard(metric, x), torch.no_grad():
        line = straight_line(x, y, steps)
        square_of = squared_speed_between(metric, line)

        def log_energy(c, rows):
            return (square_of(c, rows).mean(-1) + tiny).log()

        G = metric(line[:, 1::2].flatten(0, 1)).unflatten(0, (len(x), steps // 2))
        # The energy and its Hessian if the metric did not change along each piece.
        v = velocities(line).unflatten(1, (steps // 2, 2))
        energy = 0.5 * torch.einsum("beqi,beij,beqj->b", v, G, v) / steps
        curvature = G / torch.where(energy > 0, energy, 1.0)[:, None, None, None]
        c, stationary = relax(log_energy, line, curvature, iterations, tolerance)
        square, fine = squared_speed_and_refined(metric, c)
        speed = square.sqrt()
        length = speed.mean(1)
        resolved = is_even(speed) & is_resolved(length, fine.sqrt().mean(1))
    return finished_curve(line, c, length, 0.5 * square.mean(1), stationary, resolved, iterations)


def squared_distance(
    immersion_or_metric: Immersion | Metric,
    x: torch.Tensor,
    y: torch.Tensor,
    steps: int = 16,
    iterations: int = 100,
    tolerance: float = 1e-3,
) -> torch.Tensor:
    r"""Squared geodesic distances :math:`d^2(x, y) = 2 E`, ``[B]``, that can be differentiated.

    The gradient is that of the energy of the optimal curve with its interior held fixed: where
    the energy is stationary in the interior, moving it contributes nothing (the envelope theorem).
    So the optimiser is never differentiated, and
    :math:`\nabla_x d^2 = -2\, G(x) \log_x y` costs one backward pass. Gradients flow to ``x``,
    ``y`` and the parameters of the immersion or metric. At ``x = y`` value and gradient are 0.

    Args:
        immersion_or_metric: a map ``[B, d] -> [B, ...]`` or a metric. Modules are differentiated in
            evaluation mode.
        x: starts, ``[B, d]``.
        y: ends, ``[B, d]``.
        steps: number of steps of a curve, even and at least 4. This default and those that follow
            are for a training loop; :func:`geodesic` has more accurate ones.
        iterations: the most evaluations of energy and gradient, 1 or more.
        tolerance: relative accuracy of the nodes, above 0.

    Returns:
        ``[B]``.

    Raises:
        TypeError, ValueError: arguments of wrong shape or range, or a metric that is not finite
            on the straight lines.

    Warns:
        ConvergenceWarning: some curves did not converge.

    Example:
        >>> x, y = torch.zeros(1, 2, requires_grad=True), torch.tensor([[3.0, 4.0]])
        >>> squared_distance(lambda z: 2 * z, x, y)
        tensor([100.], grad_fn=<MeanBackward1>)
    """
    metric = as_metric(immersion_or_metric)
    x, y = check_ends(x, y, steps, iterations, tolerance)
    interior = geodesic(metric, x, y, steps, iterations, tolerance).nodes[:, 1:-1]
    optimal = torch.cat([x.unsqueeze(1), interior, y.unsqueeze(1)], dim=1)
    with guard(metric, x):
        return squared_speed(metric, optimal).mean(-1)


def exponential_map(
    immersion_or_metric: Immersion | Metric, x: torch.Tensor, v: torch.Tensor
) -> torch.Tensor:
    r"""End points :math:`\exp_x(v) = \gamma(1)` of the geodesics from ``x`` with velocity ``v``.

    Solves :math:`\ddot\gamma^i = -\Gamma^i_{jk} \dot\gamma^j \dot\gamma^k` by an adaptive
    Runge-Kutta method of order 5, all geodesics in one system, so the steps are those of the most
    difficult one. Differentiable in ``x``, ``v`` and the parameters. The error of
    a step is kept below 1e-6 in float32 and 1e-9 in float64.

    Args:
        immersion_or_metric: a map ``[B, d] -> [B, ...]`` or a metric.
        x: points, ``[B, d]``.
        v: tangent vectors in coordinates, ``[B, d]``.

    Returns:
        ``[B, d]``.

    Raises:
        TypeError, ValueError: arguments of wrong shape or not finite, or a geodesic that leaves the
            chart before time 1.
        DegenerateMetricError: the metric is not positive definite at some point on the way.

    References:
        M. P. do Carmo, Riemannian Geometry, Birkhäuser 1992, chapter 3.

    Example:
        >>> polar = lambda z: z[:, :1] * torch.cat([z[:, 1:].cos(), z[:, 1:].sin()], 1)
        >>> x, v = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
        >>> exponential_map(polar, x, v)  # (1, 1) in polar coordinates
        tensor([[1.4142, 0.7854]])
    """
    metric = as_metric(immersion_or_metric)
    x = check_points(x, "The points x")
    v = check_vectors(x, v)
    if not bool(torch.isfinite(x).all() and torch.isfinite(v).all()):
        raise ValueError("The points x or the vectors v contain a value that is not finite.")

    def derivative(state):
        z, velocity = state
        return torch.stack([velocity, metric.geodesic_acceleration(z, velocity)])

    tolerance = 1e-9 if x.dtype == torch.float64 else 1e-6
    try:
        with guard(metric, x):
            return integrate(derivative, torch.stack([x, v]), tolerance)[0]
    except StepTooSmall as error:
        raise ValueError(
            "A geodesic cannot be followed up to time 1: it leaves the chart, or the metric is "
            "not smooth on its way. Shorten the vectors v."
        ) from error


def logarithm(
    immersion_or_metric: Immersion | Metric,
    x: torch.Tensor,
    y: torch.Tensor,
    steps: int = 32,
    iterations: int = 100,
    tolerance: float = 1e-4,
) -> torch.Tensor:
    r"""Initial velocities :math:`\log_x(y)` of geodesics that reach ``y`` at time 1, ``[B, d]``.

    .. math:: \log_x(y) = -\tfrac12\, G(x)^{-1} \nabla_x d^2(x, y)

    The gradient inherits the order 4 of the discrete distance; a difference quotient of the first
    nodes would be of order 2. It is not differentiable itself.

    Args:
        immersion_or_metric: a map ``[B, d] -> [B, ...]`` or a metric.
        x: starts, ``[B, d]``.
        y: ends, ``[B, d]``.
        steps: number of steps of a geodesic, even and at least 4.
        iterations: the most evaluations of energy and gradient, 1 or more.
        tolerance: relative accuracy of the nodes of a geodesic, above 0.

    Raises:
        TypeError, ValueError: arguments of wrong shape or range, or a metric that is not finite
            on the straight lines.
        DegenerateMetricError: the metric is not positive definite at some ``x``.

    Warns:
        ConvergenceWarning: some geodesics did not converge.

    Example:
        >>> x, y = torch.zeros(1, 2), torch.tensor([[3.0, 4.0]])
        >>> logarithm(lambda z: 2 * z, x, y).round(decimals=3)
        tensor([[3., 4.]])
    """
    metric = as_metric(immersion_or_metric)
    x, y = check_ends(x, y, steps, iterations, tolerance)
    with guard(metric, x), torch.enable_grad():
        x = x.detach().requires_grad_()
        square = squared_distance(metric, x, y, steps, iterations, tolerance)
        (gradient,) = torch.autograd.grad(square.sum(), x)
    with torch.no_grad():
        L = metric.cholesky(x)
        return -0.5 * torch.cholesky_solve(gradient.unsqueeze(-1), L).squeeze(-1)
