r"""The curvature of any metric, from the derivative of its Levi-Civita connection.

References:
    M. P. do Carmo, Riemannian Geometry, Birkhäuser 1992, chapters 2 to 4.
"""

import torch

from ._checks import check_points
from ._guard import guard
from ._warnings import warn
from .derivatives import value_and_jacobian
from .metric import Metric, skewness


def ricci(metric: Metric, z: torch.Tensor) -> torch.Tensor:
    r"""Ricci tensor of any metric, through the derivative of its Christoffel symbols.

    .. math:: R_{jk} = \partial_i \Gamma^i_{jk} - \partial_k \Gamma^i_{ji}
              + \Gamma^i_{il} \Gamma^l_{jk} - \Gamma^i_{kl} \Gamma^l_{ji}

    Args:
        metric: any metric, three times differentiable.
        z: points, ``[B, d]``.

    Returns:
        ``[B, d, d]``, positive on spheres.

    Raises:
        DegenerateMetricError: the metric is not positive definite at some point.
    """
    z = check_points(z)
    if not isinstance(metric, Metric):
        raise TypeError(f"metric must be a geometry.Metric, got a {type(metric).__name__}.")
    with guard(metric, z):
        gamma, d_gamma = value_and_jacobian(metric.christoffel, z)
        trace = torch.einsum("biil->bl", gamma)
        return (
            torch.einsum("bijki->bjk", d_gamma)
            - torch.einsum("bijik->bjk", d_gamma)
            + torch.einsum("bl,bljk->bjk", trace, gamma)
            - torch.einsum("bikl,blji->bjk", gamma, gamma)
        )


def metric_scalar_curvature(metric: Metric, z: torch.Tensor) -> torch.Tensor:
    r"""Scalar curvature :math:`R = g^{jk} R_{jk}` of any metric, ``[B, d] -> [B]``.

    For the pullback of a Euclidean metric the Gauss equation gives the same number from two
    derivatives instead of three, see :func:`~.curvature.scalar_curvature`.

    Raises:
        DegenerateMetricError: the metric is not positive definite at some point.

    Warns:
        UserWarning: the coordinates are too skewed for the dtype at some points.
    """
    L = metric.cholesky(z)
    # Measured on spheres, the error is eps cond(G)² / 100.
    inaccurate = skewness(L) ** 4 > torch.finfo(L.dtype).eps ** -1
    if bool(inaccurate.any()):
        warn(
            f"The scalar curvature may be off by more than a percent at {int(inaccurate.sum())} of "
            f"the {len(L)} points, where the coordinates are too skewed for {L.dtype}: use float64 "
            "or, if the metric is a pullback, give the map itself."
        )
    with guard(metric, L):
        return torch.cholesky_solve(ricci(metric, z), L).diagonal(dim1=-2, dim2=-1).sum(-1)
