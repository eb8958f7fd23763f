"""Samplers for pythae's models, on Riemannian latent spaces."""

from .metric_uniform_hmc import MetricUniformHMCSampler, MetricUniformHMCSamplerConfig

__all__ = ["MetricUniformHMCSampler", "MetricUniformHMCSamplerConfig"]
