"""Sampling of the Riemannian uniform distribution on a model's latent space (Chadebec and
Allassonnière, NeurIPS 2022, https://arxiv.org/abs/2209.07370)."""

from .metric_uniform_hmc_config import MetricUniformHMCSamplerConfig
from .metric_uniform_hmc_sampler import MetricUniformHMCSampler

__all__ = ["MetricUniformHMCSampler", "MetricUniformHMCSamplerConfig"]
