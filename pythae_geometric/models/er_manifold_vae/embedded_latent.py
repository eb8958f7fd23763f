"""What a model with a latent code that is embedded in a manifold can do with the manifold."""

import logging
from typing import TYPE_CHECKING

import torch
from pythae.models import BaseAEConfig

from ..._checks import check_count, check_generator
from ...geometry import Manifold
from ...geometry._warnings import warn
from ..checks import data_for
from .embedding_quality import EmbeddingQuality, PoorEmbeddingWarning, embedding_quality
from .embeddings import Embedding
from .learned_embedding import LearnedEmbedding, Sampler, draw
from .networks import ManifoldDecoder

logger = logging.getLogger(__name__)


if TYPE_CHECKING:  # what it is mixed into
    from pythae.models import BaseAE as Model
else:
    Model = object


class EmbeddedLatent(Model):
    """Mixin of models whose decoder is a :class:`~.networks.ManifoldDecoder`.

    Attributes:
        manifold: None for a custom one.
    """

    decoder: ManifoldDecoder
    latent_dim: int
    manifold: Manifold | None
    model_config: BaseAEConfig
    _sampler: Sampler | None

    @property
    def embedding(self) -> Embedding:
        """The map e from latent codes to the manifold, ``[B, n] -> [B, m]``."""
        return self.decoder.embedding

    def fit_embedding(self, seed: int = 0) -> EmbeddingQuality:
        """Train a learned embedding, and measure it.

        An embedding that is trained already, or exact, is only measured.

        Args:
            seed: of the training and of the measurement, 0 or more.

        Raises:
            ValueError: if a custom manifold has no sampler, or the seed is out of range.

        Warns:
            PoorEmbeddingWarning: if the embedding is poor, and why.
        """
        seed = check_count("seed", seed, 0)
        if isinstance(self.embedding, LearnedEmbedding) and not self.embedding.fitted:
            self.embedding.fit(self._sampler, self.model_config.embedding_epochs, seed)
        quality = self.embedding_quality(seed=seed)
        logger.info("Embedding of %s: %s", self.model_config.manifold, quality)
        if quality.faults:
            warn(
                f"The embedding of the manifold is poor: {'; '.join(quality.faults)}. Raise "
                "embedding_epochs, or take an exact embedding.",
                PoorEmbeddingWarning,
            )
        return quality

    def embedding_quality(self, num_points: int = 1000, seed: int = 0) -> EmbeddingQuality:
        """The quality of the embedding, as numbers.

        Args:
            num_points: 2 or more; time and memory grow as its square.
            seed: of the points, 0 or more.

        Raises:
            ValueError: if a custom manifold has no sampler (after loading: give one to
                ``ERManifoldVAE`` and load the state, or keep the numbers of the training), or a
                number is out of range.
            RuntimeError: if a learned embedding is not trained.
        """
        N, seed = check_count("num_points", num_points, 2), check_count("seed", seed, 0)
        generator = torch.Generator().manual_seed(seed)
        points = draw(self._sampler, 2 * N, self.model_config.ambient_dim, generator)
        points, others = points.to(next(self.parameters())).chunk(2)
        project = None if self.manifold is None else self.manifold.project
        return embedding_quality(
            self.embedding, self.latent_dim, points, others, project, generator
        )

    @torch.no_grad()
    def sample_manifold(
        self, num_samples: int, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """Points of the prior on the manifold, as the model has it: embedded samples of N(0, I).

        Args:
            num_samples: 1 or more.
            generator: on the device of the model.

        Returns:
            ``[num_samples, m]``.

        Raises:
            TypeError: if ``generator`` is neither a generator nor None.
            ValueError: if ``num_samples`` is less than 1.
        """
        check_generator(generator)
        shape = (check_count("num_samples", num_samples, 1), self.latent_dim)
        like = next(self.parameters())
        z = torch.randn(shape, generator=generator, dtype=like.dtype, device=like.device)
        return self.embedding(z)

    @torch.no_grad()
    def manifold_points(self, x: torch.Tensor) -> torch.Tensor:
        """The points on the manifold that stand for data: posterior centres, moved by the group.

        Args:
            x: ``[B, *input_dim]``.

        Returns:
            ``[B, m]``.

        Raises:
            ValueError: if the data are not finite or have a wrong shape.
        """
        x = data_for(self, x, "x")
        mean, _ = self._parameters_of(x)
        return self._on_manifold(x, mean)

    def _on_manifold(self, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        y = self.embedding(z)
        return self.encoder.move(x, y) if self.model_config.group_action else y
