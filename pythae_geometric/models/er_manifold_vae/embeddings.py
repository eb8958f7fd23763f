r"""Embeddings :math:`e: \mathbb{R}^n \to M \subset \mathbb{R}^m` of the hidden space.

Each sends N(0, I), the prior of the hidden variable, to the prior on the manifold.
"""

import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from pythae.models import WAE_MMD, WAE_MMD_Config
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.pipelines import TrainingPipeline
from pythae.trainers import BaseTrainerConfig
from torch import nn
from torch.special import ndtr, ndtri

from .networks import perceptron

Sampler = Callable[[int, torch.Generator | None], torch.Tensor]

WIDTHS = (128, 128)
BATCH, STEPS_PER_EPOCH = 128, 100
LEARNING_RATE = 5e-3


class ExactEmbedding(nn.Module):
    r"""A formula: :math:`e(z) = c(\Phi(z))` with the uniform chart c of the cube.

    Args:
        chart: ``[B, n] -> [B, m]``; it sends the uniform law on the cube to the prior on the
            manifold.
        inverse_chart: ``[B, m] -> [B, n]``; None: there is no :meth:`inverse`.
    """

    def __init__(self, chart: Callable, inverse_chart: Callable | None = None):
        super().__init__()
        self.chart, self.inverse_chart = chart, inverse_chart
        self.requires_grad_(False)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.chart(_inside(ndtr(z)))

    def inverse(self, y: torch.Tensor) -> torch.Tensor:
        """Hidden points of points on the manifold, ``[B, m] -> [B, n]``."""
        return ndtri(_inside(self.inverse_chart(y)))


class LearnedEmbedding(nn.Module):
    """The decoder of a Wasserstein auto-encoder, frozen; its encoder is the inverse.

    Until :meth:`fit`, or until the weights of a trained one are loaded, it refuses to embed.

    Args:
        dim: n.
        ambient_dim: m.
    """

    def __init__(self, dim: int, ambient_dim: int):
        super().__init__()
        self.dim, self.ambient_dim = dim, ambient_dim
        wae = self._new_wae()
        self.encoder, self.decoder = wae.encoder, wae.decoder
        self.requires_grad_(False)
        self.register_buffer("fitted", torch.tensor(False))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        self._check_fitted()
        return self.decoder(z)["reconstruction"]

    def inverse(self, y: torch.Tensor) -> torch.Tensor:
        """Hidden points of points near the manifold, ``[B, m] -> [B, n]``."""
        self._check_fitted()
        return self.encoder(y)["embedding"]

    def fit(self, sampler: Sampler, epochs: int, seed: int = 0) -> None:
        """Train a ``WAE_MMD`` by pythae's pipeline and keep its networks.

        The random numbers of the caller are left as they were.

        Args:
            sampler: draws points of the manifold.
            epochs: of 100 steps, with the learning rate decreasing to 0.
            seed: of the networks, the points and the training.

        Raises:
            ValueError: the sampler gives points of a wrong shape, or that are not finite.
        """
        generator = torch.Generator().manual_seed(seed)
        points = draw(sampler, BATCH * STEPS_PER_EPOCH, self.ambient_dim, generator)
        with tempfile.TemporaryDirectory() as folder, _own_random_numbers(seed):
            wae = self._new_wae()
            config = BaseTrainerConfig(
                output_dir=folder,
                num_epochs=epochs,
                learning_rate=LEARNING_RATE,
                per_device_train_batch_size=BATCH,
                scheduler_cls="CosineAnnealingLR",
                scheduler_params={"T_max": epochs},
                seed=seed,
            )
            with torch.enable_grad():
                TrainingPipeline(wae, config)(points)
        self.encoder.load_state_dict(wae.encoder.state_dict())
        self.decoder.load_state_dict(wae.decoder.state_dict())
        self.fitted.fill_(True)

    def _new_wae(self) -> WAE_MMD:
        n, m = self.dim, self.ambient_dim
        config = WAE_MMD_Config(input_dim=(m,), latent_dim=n, reg_weight=0.3)
        return WAE_MMD(config, _SmoothEncoder(m, n), _SmoothDecoder(n, m))

    def _check_fitted(self) -> None:
        if not self.fitted:
            raise RuntimeError(
                "The embedding is learned, but not trained yet: call fit_embedding() of the model "
                "first (training does, at its first batch)."
            )


def draw(
    sampler: Sampler, count: int, ambient_dim: int, generator: torch.Generator | None
) -> torch.Tensor:
    """Points ``[count, m]`` of a sampler, checked.

    Raises:
        ValueError: they have a wrong shape, or are not finite.
    """
    points = sampler(count, generator)
    if not isinstance(points, torch.Tensor) or points.shape != (count, ambient_dim):
        got = list(points.shape) if isinstance(points, torch.Tensor) else type(points).__name__
        raise ValueError(
            f"sampler({count}, generator) must return a tensor [{count}, {ambient_dim}] "
            f"(ambient_dim is {ambient_dim}), got {got}."
        )
    if not bool(torch.isfinite(points).all()):
        raise ValueError("The sampler returned points with NaN or infinity: they must be finite.")
    return points.detach().to("cpu", torch.float32)


class _SmoothEncoder(BaseEncoder):
    def __init__(self, ambient_dim, dim):
        super().__init__()
        self.layers = perceptron(nn.SiLU, ambient_dim, *WIDTHS, dim)

    def forward(self, y):
        return ModelOutput(embedding=self.layers(y))


class _SmoothDecoder(BaseDecoder):
    def __init__(self, dim, ambient_dim):
        super().__init__()
        self.layers = perceptron(nn.SiLU, dim, *WIDTHS, ambient_dim)

    def forward(self, z):
        return ModelOutput(reconstruction=self.layers(z))


def _inside(u: torch.Tensor) -> torch.Tensor:
    """Charts have no derivative at the ends of the interval, and rounding reaches them."""
    margin = 8 * torch.finfo(u.dtype).eps
    return u.clamp(margin, 1 - margin)


@contextmanager
def _own_random_numbers(seed: int) -> Iterator[None]:
    states = random.getstate(), np.random.get_state()  # noqa: NPY002 (what pythae seeds)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
