"""Riemannian geometry for pythae.

Importing this package teaches pythae's ``AutoModel``, ``AutoConfig`` and ``GenerationPipeline`` its
models and samplers; nothing else in pythae changes.
"""

from .interpolation import interpolate
from .registry import register
from .samplers import MetricUniformHMCSampler, MetricUniformHMCSamplerConfig

__version__ = "0.1.0"

__all__ = ["MetricUniformHMCSampler", "MetricUniformHMCSamplerConfig", "interpolate", "register"]

register(MetricUniformHMCSampler, MetricUniformHMCSamplerConfig)
