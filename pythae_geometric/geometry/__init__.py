"""Riemannian geometry of latent spaces, in pure torch: nothing here knows of pythae.

Points come in batches, ``z`` of shape ``[B, d]``. An *immersion* is any map ``[B, d] -> [B, ...]``,
such as a decoder; a :class:`Metric` is anything that gives ``G(z)``.
"""

from ._guard import evaluation_mode
from .brownian import brownian_motion
from .connection import ricci
from .curvature import (
    curvature_and_cholesky,
    curvature_estimates,
    gradient_norm_squared,
    normalize_potential,
    perelman_f,
    perelman_w,
    scalar_curvature,
    total_squared_curvature,
)
from .curves import ConvergenceWarning, Curve
from .derivatives import (
    directional_derivative,
    jacobian,
    second_derivatives,
    second_directional_derivative,
    value_and_jacobian,
)
from .distances import distance_matrix
from .frechet_mean import FrechetMean, frechet_mean
from .geodesics import exponential_map, geodesic, logarithm, squared_distance
from .heat_kernel import heat_kernel_log_prob
from .hmc import HMCInfo, HMCResult, HMCState, hmc, hmc_step, leapfrog
from .manifolds import Circle, Manifold, Product, SpecialOrthogonal3, Sphere, Torus
from .metric import DegenerateMetricError, Metric
from .mixture_metric import MixtureMetric
from .posterior_metric import PosteriorMetric
from .potential_path import potential_path
from .pullback import PullbackMetric, StochasticPullbackMetric
from .row_streams import RowStreams

__all__ = [
    "Circle",
    "ConvergenceWarning",
    "Curve",
    "DegenerateMetricError",
    "FrechetMean",
    "HMCInfo",
    "HMCResult",
    "HMCState",
    "Manifold",
    "Metric",
    "MixtureMetric",
    "PosteriorMetric",
    "Product",
    "PullbackMetric",
    "RowStreams",
    "SpecialOrthogonal3",
    "Sphere",
    "StochasticPullbackMetric",
    "Torus",
    "brownian_motion",
    "curvature_and_cholesky",
    "curvature_estimates",
    "directional_derivative",
    "distance_matrix",
    "evaluation_mode",
    "exponential_map",
    "frechet_mean",
    "geodesic",
    "gradient_norm_squared",
    "heat_kernel_log_prob",
    "hmc",
    "hmc_step",
    "jacobian",
    "leapfrog",
    "logarithm",
    "normalize_potential",
    "perelman_f",
    "perelman_w",
    "potential_path",
    "ricci",
    "scalar_curvature",
    "second_derivatives",
    "second_directional_derivative",
    "squared_distance",
    "total_squared_curvature",
    "value_and_jacobian",
]
