"""The exponential map and its inverse, the logarithm."""

import torch
from torchdiffeq import odeint

from .connection import geodesic_acceleration
from .curves import as_metric, squared_distance
from .derivatives import Immersion
from .metric import Metric


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
    if not (isinstance(x, torch.Tensor) and isinstance(v, torch.Tensor)):
        raise TypeError("The points x and the vectors v must be tensors [B, d].")
    if x.ndim != 2 or x.shape != v.shape:
        raise ValueError(
            f"The points x and the vectors v must both have shape [B, d], got {list(x.shape)} "
            f"and {list(v.shape)}."
        )
    if not bool(torch.isfinite(x).all() and torch.isfinite(v).all()):
        raise ValueError("The points x or the vectors v contain a value that is not finite.")

    def derivative(_, state):
        z, velocity = state
        return velocity, geodesic_acceleration(metric, z, velocity)

    tolerance = 1e-9 if x.dtype == torch.float64 else 1e-6
    times = torch.tensor([0.0, 1.0], dtype=x.dtype, device=x.device)
    try:
        ends, _ = odeint(derivative, (x, v), times, rtol=tolerance, atol=tolerance)
    except AssertionError as error:  # how torchdiffeq says that its step has shrunk to nothing
        raise ValueError(
            "A geodesic cannot be followed up to time 1: it leaves the chart, or the metric is "
            "not smooth on its way. Shorten the vectors v."
        ) from error
    return ends[-1]


def logarithm(
    immersion_or_metric: Immersion | Metric,
    x: torch.Tensor,
    y: torch.Tensor,
    nodes: int = 32,
    iterations: int = 100,
    tolerance: float = 1e-4,
) -> torch.Tensor:
    r"""Initial velocities :math:`\log_x(y)` of geodesics that reach ``y`` at time 1, ``[B, d]``.

    .. math:: \log_x(y) = -\tfrac12\, G(x)^{-1} \nabla_x d^2(x, y)

    The gradient inherits the order 4 of the discrete distance; a difference quotient of the first
    nodes would be of order 2. It is not differentiable itself.

    Args:
        immersion_or_metric, x, y, nodes, iterations, tolerance: as for :func:`~.curves.geodesic`.

    Raises:
        TypeError, ValueError: as for :func:`~.curves.geodesic`.
        DegenerateMetricError: the metric is not positive definite at some ``x``.

    Warns:
        ConvergenceWarning: some curves did not converge.

    Example:
        >>> x, y = torch.zeros(1, 2), torch.tensor([[3.0, 4.0]])
        >>> logarithm(lambda z: 2 * z, x, y)
        tensor([[3., 4.]])
    """
    metric = as_metric(immersion_or_metric)
    if not isinstance(x, torch.Tensor) or not x.is_floating_point():
        raise TypeError("The end points x must be a floating-point tensor [B, d].")
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        square = squared_distance(metric, x, y, nodes, iterations, tolerance)
        (gradient,) = torch.autograd.grad(square.sum(), x)
    with torch.no_grad():
        L = metric.cholesky(x)
        return -0.5 * torch.cholesky_solve(gradient.unsqueeze(-1), L).squeeze(-1)
