"""Sampling by Brownian motion on a latent manifold (Kalatzis, Eklund, Arvanitidis, Hauberg, ICML
2020, https://arxiv.org/abs/2002.05227)."""

from .brownian_motion_config import BrownianMotionSamplerConfig
from .brownian_motion_sampler import BrownianMotionSampler
from .diagnostics import BrownianMotionDiagnostics

__all__ = ["BrownianMotionDiagnostics", "BrownianMotionSampler", "BrownianMotionSamplerConfig"]
