"""Manifold-valued latents by embedding and reparameterisation (Golikov and Kretov 2018)."""

from ..collapse import CollapsedPosteriorWarning
from .embedding_quality import EmbeddingQuality, PoorEmbeddingWarning
from .er_manifold_vae_config import ERManifoldVAEConfig
from .er_manifold_vae_model import ERManifoldVAE
from .posteriors import BoundaryWarning

__all__ = [
    "BoundaryWarning",
    "CollapsedPosteriorWarning",
    "ERManifoldVAE",
    "ERManifoldVAEConfig",
    "EmbeddingQuality",
    "PoorEmbeddingWarning",
]
