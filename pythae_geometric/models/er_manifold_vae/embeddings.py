r"""Embeddings :math:`e: \mathbb{R}^n \to M \subset \mathbb{R}^m` of the latent space.

Each sends N(0, I), the prior of the latent code, to the prior on the manifold.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.special import ndtr, ndtri

from ...geometry import Manifold
from .er_manifold_vae_config import ERManifoldVAEConfig, dimensions
from .learned_embedding import LearnedEmbedding, Sampler, draw


def build_embedding(
    config: ERManifoldVAEConfig,
    manifold: Manifold | None,
    sampler: Sampler | None,
    exact_embedding: Callable | None,
) -> "Embedding":
    """The embedding that a config describes.

    Args:
        config: of the model.
        manifold: None for a custom one.
        sampler, exact_embedding: of a custom manifold; see :class:`ERManifoldVAE`.

    Raises:
        ValueError: if one of the functions is missing, is not wanted, or gives wrong shapes.
    """
    n, m = dimensions(config)
    if manifold is not None and (sampler is not None or exact_embedding is not None):
        raise ValueError(
            'A sampler or an exact_embedding belongs to manifold="custom", but manifold is '
            f'{config.manifold!r}: leave it out, or set manifold="custom".'
        )
    if sampler is not None:
        draw(sampler, 16, m, torch.Generator().manual_seed(0))
    if config.embedding == "learned":
        if exact_embedding is not None:
            raise ValueError(
                'embedding is "learned", but an exact_embedding is given: leave it out, or set '
                'embedding="exact".'
            )
        return LearnedEmbedding(n, m)
    if manifold is not None:
        return ExactEmbedding(manifold.from_cube, manifold.to_cube)
    if exact_embedding is None:
        raise ValueError(
            'manifold="custom" with embedding="exact" needs exact_embedding=, a function '
            'from the unit cube: give it, or set embedding="learned" and give a sampler.'
        )
    embedding = ExactEmbedding(exact_embedding)
    with torch.no_grad():
        y = embedding(torch.linspace(-1, 1, 3 * n).view(3, n))
    if y.shape != (3, m) or not bool(torch.isfinite(y).all()):
        raise ValueError(
            f"exact_embedding must send points [B, {n}] of the cube to finite points [B, {m}] "
            f"(ambient_dim is {m}), got {list(y.shape)}."
        )
    return embedding


class ExactEmbedding(nn.Module):
    r"""A formula: :math:`e(z) = c(\Phi(z))` with the uniform chart c of the cube.

    Args:
        chart: ``[B, n] -> [B, m]``; it sends the uniform distribution on the cube to the prior on
            the manifold.
        inverse_chart: ``[B, m] -> [B, n]``; None: there is no :meth:`inverse`.
    """

    fitted = True
    inverse_chart: Any

    def __init__(self, chart: Callable, inverse_chart: Callable | None = None):
        super().__init__()
        self.chart, self.inverse_chart = chart, inverse_chart
        self.requires_grad_(False)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.chart(_inside(ndtr(z)))

    def inverse(self, y: torch.Tensor) -> torch.Tensor:
        """Latent codes of points on the manifold, ``[B, m] -> [B, n]``."""
        return ndtri(_inside(self.inverse_chart(y)))


Embedding: TypeAlias = LearnedEmbedding | ExactEmbedding


def _inside(u: torch.Tensor) -> torch.Tensor:
    """Charts have no derivative at the ends of the interval, and rounding reaches them."""
    margin = 8 * torch.finfo(u.dtype).eps
    return u.clamp(margin, 1 - margin)
