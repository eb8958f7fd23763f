"""The density of Brownian motion for short times."""

import math

import torch

from .brownian import check_time
from .curves import check_ends
from .derivatives import Immersion
from .geodesics import squared_distance
from .metric import Metric
from .pullback import as_metric


def heat_kernel_log_prob(
    immersion_or_metric: Immersion | Metric,
    z: torch.Tensor,
    mean: torch.Tensor,
    time: float | torch.Tensor,
    steps: int = 16,
    iterations: int = 100,
    tolerance: float = 1e-3,
) -> torch.Tensor:
    r"""Zeroth-order heat kernel around ``mean`` after ``time``, in the log domain.

    .. math:: \log p(z) = -\tfrac{d}2 \log(2 \pi t)
              + \tfrac12 \bigl(\log\det G(z) - \log\det G(\mu)\bigr) - \frac{l^2(z, \mu)}{2t}

    It is a density with respect to :math:`\sqrt{\det G(\mu)}\, dz`, the Lebesgue measure in units
    of the volume at ``mean``. So densities with *different centres* refer to different measures.
    Add :math:`\tfrac12 \log\det G(\mu)`, which is ``metric.log_volume(mean)``, for the density in
    the coordinates ``z`` (for constant G the Gaussian :math:`N(\mu, t G^{-1})`); a Kullback-Leibler
    divergence between kernels needs it. Subtract ``metric.log_volume(z)`` from that for the density
    with respect to the Riemannian volume, :math:`(2 \pi t)^{-d/2} \exp(-l^2 / 2t)`.

    Exact in flat space. In curved space it is the leading term as :math:`t \to 0` at ``mean``; the
    factor 1 + O(l²) + O(t) of the expansion is left out, so it is not normalised.

    Args:
        immersion_or_metric: a map ``[B, d] -> [B, ...]`` or a metric.
        z: where to evaluate, ``[B, d]``.
        mean: centres, ``[B, d]``.
        time: a positive number, or one for each point, ``[B]``.
        steps: number of steps of a geodesic, even and at least 4.
        iterations: the most evaluations of energy and gradient, 1 or more.
        tolerance: relative accuracy of the nodes of a geodesic, above 0.

    Returns:
        ``[B]``, differentiable in ``z``, ``mean``, ``time`` and the parameters.

    Raises:
        TypeError, ValueError: arguments of wrong shape or range, a time that is not positive, or a
            metric that is not finite on the straight lines.
        DegenerateMetricError: the metric is not positive definite at some point.

    Warns:
        ConvergenceWarning: some geodesics did not converge.

    References:
        Kalatzis et al., Variational autoencoders with Riemannian Brownian motion priors, ICML 2020,
        equation 9.

    Example:
        >>> z, mean = torch.tensor([[3.0, 4.0]]), torch.zeros(1, 2)
        >>> heat_kernel_log_prob(lambda z: z, z, mean, 1.0) + math.log(2 * math.pi)  # -|z|² / 2
        tensor([-12.5000])
    """
    metric = as_metric(immersion_or_metric)
    z, mean = check_ends(z, mean, steps, iterations, tolerance, names=("z", "mean"))
    square = squared_distance(metric, z, mean, steps, iterations, tolerance)
    t = check_time(time, z, positive=True)
    volume = metric.log_volume(z) - metric.log_volume(mean)
    return volume - 0.5 * z.shape[1] * (2 * math.pi * t).log() - square / (2 * t)
