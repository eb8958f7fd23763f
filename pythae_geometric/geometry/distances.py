"""Geodesic distances between all pairs of points, in blocks of bounded memory."""

import warnings
from collections.abc import Callable

import torch

from ._checks import check_count, check_points
from ._warnings import warn
from .curves import ConvergenceWarning, check_ends
from .derivatives import Immersion
from .geodesics import geodesic
from .metric import Metric
from .pullback import as_metric


@torch.no_grad()
def distance_matrix(
    immersion_or_metric: Immersion | Metric,
    x: torch.Tensor,
    y: torch.Tensor | None = None,
    steps: int = 16,
    iterations: int = 100,
    tolerance: float = 1e-3,
    batch_size: int = 256,
    progress: Callable[[int], object] | None = None,
) -> torch.Tensor:
    r"""Geodesic distances :math:`d(x_i, y_j)` between all pairs of points, ``[N, M]``.

    Within one set of points each pair is solved once: the matrix is symmetric, with zeros on its
    diagonal. It is not differentiable; :func:`~.geodesics.squared_distance` is.

    Args:
        immersion_or_metric: a map ``[B, d] -> [B, ...]`` or a metric.
        x: points, ``[N, d]``.
        y: other points, ``[M, d]``. None: the points ``x`` themselves.
        steps: number of steps of a geodesic, even and at least 4.
        iterations: the most evaluations of energy and gradient for a block of pairs, 1 or more.
        tolerance: relative accuracy of the nodes of a geodesic, above 0.
        batch_size: number of pairs that are solved together. Apart from the matrix itself, the
            memory needed depends on this and not on N and M: the map is evaluated at no more than
            ``batch_size (2 steps + 1)`` points at once.
        progress: called with the number of pairs solved since the last call, as the ``update`` of a
            progress bar is.

    Returns:
        ``[N, M]``, or ``[N, N]`` without ``y``.

    Raises:
        TypeError, ValueError: arguments of wrong type, shape or range, or a metric that is not
            finite on the straight line between two points.

    Warns:
        ConvergenceWarning: some geodesics did not converge, once for the whole matrix.

    References:
        Arvanitidis, Hansen, Hauberg, Latent space oddity, ICLR 2018, section 5 (clustering by these
        distances).

    Example:
        >>> polar = lambda z: z[:, :1] * torch.cat([z[:, 1:].cos(), z[:, 1:].sin()], 1)
        >>> x = torch.tensor([[3.0, 0.0], [4.0, torch.pi / 2]])
        >>> distance_matrix(polar, x).round(decimals=3)
        tensor([[0., 5.],
                [5., 0.]])
    """
    metric = as_metric(immersion_or_metric)
    x, others = _check_sets(x, x if y is None else y, steps, iterations, tolerance)
    batch_size = check_count("batch_size", batch_size, 1)
    N, M = len(x), len(others)
    distances = x.new_zeros(N, M)
    pairs = N * M if y is not None else N * (N - 1) // 2
    failed, first_failed = 0, None
    for first in range(0, pairs, batch_size):
        pair = torch.arange(first, min(first + batch_size, pairs), device=x.device)
        if y is not None:
            i, j = pair // M, pair % M
        else:  # with the points on a circle: all neighbours, then all that are two apart, ...
            i = pair % N
            j = (i + 1 + pair // N) % N
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # one for all blocks is enough
            curve = geodesic(metric, x[i], others[j], steps, iterations, tolerance)
        distances[i, j] = curve.length
        if y is None:
            distances[j, i] = curve.length
        bad = (~curve.converged).nonzero().flatten()
        if first_failed is None and len(bad):
            first_failed = f"x[{int(i[bad[0]])}] and {'x' if y is None else 'y'}[{int(j[bad[0]])}]"
        failed += len(bad)
        if progress is not None:
            progress(len(pair))
    if failed:
        warn(
            f"{failed} of {pairs} geodesics did not converge, the first of them between "
            f"{first_failed}: take more iterations or more steps.",
            ConvergenceWarning,
        )
    return distances


def _check_sets(x, y, steps, iterations, tolerance):
    """Two sets of points as :func:`~.curves.check_ends` gives the ends of curves."""
    x, y = check_points(x, "The end points x"), check_points(y, "The end points y")
    if 0 in x.shape or 0 in y.shape or x.shape[1] != y.shape[1]:
        raise ValueError(
            f"The end points x and y must have shapes [N, d] and [M, d], not empty, got "
            f"{list(x.shape)} and {list(y.shape)}."
        )
    each = torch.arange(max(len(x), len(y)))
    check_ends(x[each % len(x)], y[each % len(y)], steps, iterations, tolerance)
    return x, y
