"""Generative autoencoders on Riemannian latent spaces, in the way of pythae's own."""

from .base import GeometricModel
from .brownian_rvae import BrownianRVAE, BrownianRVAEConfig
from .ricci_ae import RicciAE, RicciAEConfig, RunawayFunctionalError

__all__ = [
    "BrownianRVAE",
    "BrownianRVAEConfig",
    "GeometricModel",
    "RicciAE",
    "RicciAEConfig",
    "RunawayFunctionalError",
]
