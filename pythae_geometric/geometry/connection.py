r"""The Levi-Civita connection of any metric, and the curvature that follows from it.

With :math:`g_{ij}` the metric tensor and :math:`g^{ij}` its inverse,

.. math:: \Gamma^i_{jk} = \tfrac12 g^{il}
          (\partial_j g_{lk} + \partial_k g_{lj} - \partial_l g_{jk}).

A metric that knows a cheaper way, such as a pullback metric, overrides the method of the same name.

References:
    M. P. do Carmo, Riemannian Geometry, Birkhäuser 1992, chapters 2 to 4.
    E. P. Hsu, Stochastic Analysis on Manifolds, AMS 2002, section 3.3 (the drift).
"""

import torch

from .derivatives import value_and_jacobian
from .metric import Metric


def christoffel(metric: Metric, z: torch.Tensor) -> torch.Tensor:
    r"""Christoffel symbols, ``[B, d, d, d]`` with ``[b, i, j, k]`` :math:`= \Gamma^i_{jk}(z_b)`.

    Args:
        metric: any metric; one of its own kind if it has a closed form.
        z: points, ``[B, d]``.

    Raises:
        DegenerateMetricError: the metric is not positive definite at some point.

    Example:
        >>> class Hyperbolic(Metric):  # the upper half plane, (dx² + dy²) / y²
        ...     def forward(self, z):
        ...         return torch.diag_embed(z[:, 1:].expand(-1, 2) ** -2)
        >>> christoffel(Hyperbolic(), torch.tensor([[0.0, 2.0]]))[0, 1]  # Γ^y: diag(1, -1) / y
        tensor([[ 0.5000,  0.0000],
                [ 0.0000, -0.5000]])
    """
    return metric.christoffel(z)


def geodesic_acceleration(metric: Metric, z: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    r"""Acceleration :math:`-\Gamma^i_{jk} v^j v^k` of the geodesic with velocity ``v`` at ``z``.

    Args:
        metric: any metric.
        z: points, ``[B, d]``.
        v: velocities, ``[B, d]``.

    Returns:
        ``[B, d]``.

    Raises:
        DegenerateMetricError: the metric is not positive definite at some point.
    """
    return metric.geodesic_acceleration(z, v)


def brownian_drift(metric: Metric, z: torch.Tensor) -> torch.Tensor:
    r"""Drift :math:`-\tfrac12 g^{jk} \Gamma^i_{jk}` of Brownian motion in coordinates, ``[B, d]``.

    Brownian motion of the metric solves
    :math:`dz^i = -\tfrac12 g^{jk} \Gamma^i_{jk} dt + (g^{-1/2} dW)^i` in the sense of Itô.

    Args:
        metric: any metric.
        z: points, ``[B, d]``.

    Raises:
        DegenerateMetricError: the metric is not positive definite at some point.
    """
    return metric.brownian_drift(z)


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
