"""The variational autoencoder whose posterior and prior are Brownian motion on its own latent
manifold (Kalatzis, Eklund, Arvanitidis, Hauberg, ICML 2020, https://arxiv.org/abs/2002.05227)."""

from .brownian_rvae_config import BrownianRVAEConfig
from .brownian_rvae_model import BrownianRVAE

__all__ = ["BrownianRVAE", "BrownianRVAEConfig"]
