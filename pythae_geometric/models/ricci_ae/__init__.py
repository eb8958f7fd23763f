"""Autoencoders regularised by the curvature of the decoder's image (Lazarev 2023)."""

from .ricci_ae_config import RicciAEConfig
from .ricci_ae_model import RicciAE
from .ricci_functional import RunawayFunctionalError

__all__ = ["RicciAE", "RicciAEConfig", "RunawayFunctionalError"]
