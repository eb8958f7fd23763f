"""Samplers for pythae's models, on Riemannian latent spaces."""

from .brownian_motion import BrownianMotionSampler, BrownianMotionSamplerConfig
from .metric_uniform_hmc import MetricUniformHMCSampler, MetricUniformHMCSamplerConfig

__all__ = [
    "BrownianMotionSampler",
    "BrownianMotionSamplerConfig",
    "MetricUniformHMCSampler",
    "MetricUniformHMCSamplerConfig",
]
