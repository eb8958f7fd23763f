"""Generative autoencoders on Riemannian latent spaces, in the way of pythae's own."""

from .base import GeometricModel
from .brownian_rvae import BrownianRVAE, BrownianRVAEConfig
from .collapse import CollapsedPosteriorWarning
from .er_manifold_vae import ERManifoldVAE, ERManifoldVAEConfig
from .ricci_ae import RicciAE, RicciAEConfig, RunawayFunctionalError
from .vae_dlm import VAE_DLM, VAE_DLM_Config

__all__ = [
    "VAE_DLM",
    "BrownianRVAE",
    "BrownianRVAEConfig",
    "CollapsedPosteriorWarning",
    "ERManifoldVAE",
    "ERManifoldVAEConfig",
    "GeometricModel",
    "RicciAE",
    "RicciAEConfig",
    "RunawayFunctionalError",
    "VAE_DLM_Config",
]
