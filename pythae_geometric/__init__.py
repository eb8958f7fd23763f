"""Riemannian geometry for pythae.

Importing this package teaches pythae's ``AutoModel``, ``AutoConfig`` and ``GenerationPipeline`` its
models and samplers; nothing else in pythae changes.
"""

from .interpolation import interpolate
from .models import (
    BrownianRVAE,
    BrownianRVAEConfig,
    ERManifoldVAE,
    ERManifoldVAEConfig,
    RicciAE,
    RicciAEConfig,
)
from .registry import register
from .samplers import (
    BrownianMotionSampler,
    BrownianMotionSamplerConfig,
    MetricUniformHMCSampler,
    MetricUniformHMCSamplerConfig,
)

__version__ = "0.1.0"

__all__ = [
    "BrownianMotionSampler",
    "BrownianMotionSamplerConfig",
    "BrownianRVAE",
    "BrownianRVAEConfig",
    "ERManifoldVAE",
    "ERManifoldVAEConfig",
    "MetricUniformHMCSampler",
    "MetricUniformHMCSamplerConfig",
    "RicciAE",
    "RicciAEConfig",
    "interpolate",
    "register",
]

for _class, _config in (
    (BrownianRVAE, BrownianRVAEConfig),
    (ERManifoldVAE, ERManifoldVAEConfig),
    (RicciAE, RicciAEConfig),
    (BrownianMotionSampler, BrownianMotionSamplerConfig),
    (MetricUniformHMCSampler, MetricUniformHMCSamplerConfig),
):
    register(_class, _config)
