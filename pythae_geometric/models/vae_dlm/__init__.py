"""Variational autoencoder with a dynamical latent manifold (Gracyk 2024)."""

from .vae_dlm_config import VAE_DLM_Config
from .vae_dlm_model import VAE_DLM

__all__ = ["VAE_DLM", "VAE_DLM_Config"]
