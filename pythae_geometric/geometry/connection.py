r"""The curvature of any metric, from the derivative of its Levi-Civita connection.

References:
    M. P. do Carmo, Riemannian Geometry, Birkhäuser 1992, chapters 2 to 4.
"""

import torch

from .derivatives import value_and_jacobian
from .metric import Metric


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

    For the pullback of a Euclidean metric :func:`~.curvature.scalar_curvature` gives the same
    number from two derivatives instead of three.

    Raises:
        DegenerateMetricError: the metric is not positive definite at some point.
    """
    L = metric.cholesky(z)
    return torch.cholesky_solve(ricci(metric, z), L).diagonal(dim1=-2, dim2=-1).sum(-1)
