"""Riemannian geometry for pythae.

Importing this package teaches pythae's ``AutoModel``, ``AutoConfig`` and ``GenerationPipeline`` its
models and samplers; nothing else in pythae changes.
"""

from . import evaluation as evaluation
from . import plotting as plotting
from .interpolation import interpolate
from .models import (
    VAE_DLM,
    BrownianRVAE,
    BrownianRVAEConfig,
    ERManifoldVAE,
    ERManifoldVAEConfig,
    RicciAE,
    RicciAEConfig,
    VAE_DLM_Config,
)
from .registry import register
from .samplers import (
    BrownianMotionSampler,
    BrownianMotionSamplerConfig,
    MetricUniformHMCSampler,
    MetricUniformHMCSamplerConfig,
)

__version__ = "0.2.0"

__all__ = [
    "VAE_DLM",
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
    "VAE_DLM_Config",
    "interpolate",
    "register",
]

for _class, _config in (
    (BrownianRVAE, BrownianRVAEConfig),
    (ERManifoldVAE, ERManifoldVAEConfig),
    (RicciAE, RicciAEConfig),
    (VAE_DLM, VAE_DLM_Config),
    (BrownianMotionSampler, BrownianMotionSamplerConfig),
    (MetricUniformHMCSampler, MetricUniformHMCSamplerConfig),
):
    register(_class, _config)
