"""Riemannian geometry of latent spaces, in pure torch: nothing here knows of pythae.

Points come in batches, ``z`` of shape ``[B, d]``.
"""

from .hmc import HMCInfo, HMCResult, HMCState, hmc, hmc_step, leapfrog
from .metric import DegenerateMetricError, Metric
from .posterior_metric import PosteriorMetric

__all__ = [
    "DegenerateMetricError",
    "HMCInfo",
    "HMCResult",
    "HMCState",
    "Metric",
    "PosteriorMetric",
    "hmc",
    "hmc_step",
    "leapfrog",
]
