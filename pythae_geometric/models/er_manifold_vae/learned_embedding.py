"""An embedding that is learned from samples of the manifold."""

import os
import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from pythae.models import WAE_MMD, WAE_MMD_Config
from pythae.pipelines import TrainingPipeline
from pythae.trainers import BaseTrainerConfig
from torch import distributed, nn

from ...geometry._warnings import warn
from ..networks import PerceptronDecoder, PerceptronEncoder

Sampler = Callable[[int, torch.Generator | None], torch.Tensor]

WIDTHS = (128, 128)
BATCH, STEPS_PER_EPOCH = 128, 100
LEARNING_RATE = 5e-3
# What tells pythae's trainer that it is one process of several; it also sets some of these itself.
VARIABLES_OF_PROCESSES = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


class LearnedEmbedding(nn.Module):
    """The decoder of a Wasserstein auto-encoder, frozen; its encoder is the inverse.

    Until :meth:`fit`, or until the weights of a trained one are loaded, it refuses to embed.

    Args:
        dim: n.
        ambient_dim: m.
    """

    fitted: torch.Tensor

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
        """Latent codes of points near the manifold, ``[B, m] -> [B, n]``."""
        self._check_fitted()
        return self.encoder(y)["embedding"]

    def fit(self, sampler: Sampler | None, epochs: int, seed: int = 0) -> None:
        """Train a ``WAE_MMD`` by pythae's pipeline and keep its networks.

        The caller's random numbers, environment variables and process group stay as they were.

        Args:
            sampler: draws points of the manifold.
            epochs: of 100 steps, with the learning rate decreasing to 0.
            seed: of the networks, the points and the training.

        Raises:
            ValueError: if there is no sampler, or if it gives points of a wrong shape or points
                that are not finite.
        """
        generator = torch.Generator().manual_seed(seed)
        points = draw(sampler, BATCH * STEPS_PER_EPOCH, self.ambient_dim, generator)
        with tempfile.TemporaryDirectory() as folder, _own_random_numbers(seed), _one_process():
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

    def fit_now(self, fit: Callable[[], object]) -> None:
        """Say that the embedding is trained now, and train it.

        Of several processes the first trains, and sends the weights to the others.

        Args:
            fit: what trains this embedding.

        Warns:
            UserWarning: always.
        """
        warn(
            "The learned embedding of the manifold is not trained yet: it is trained now, before "
            "the first batch, which takes a while. To choose the moment, and to see how good it is "
            "before you train the model, call model.fit_embedding() first."
        )
        several = distributed.is_available() and distributed.is_initialized()
        if not several or distributed.get_rank() == 0:
            fit()
        if several:
            for value in (*self.encoder.parameters(), *self.decoder.parameters()):
                distributed.broadcast(value.data, src=0)
            self.fitted.fill_(True)

    def _new_wae(self) -> WAE_MMD:
        n, m = self.dim, self.ambient_dim
        config = WAE_MMD_Config(input_dim=(m,), latent_dim=n, reg_weight=0.3)
        return WAE_MMD(
            config,
            PerceptronEncoder(nn.SiLU, (m,), WIDTHS, n, num_variances=0),
            PerceptronDecoder(nn.SiLU, n, WIDTHS, (m,)),
        )

    def _check_fitted(self) -> None:
        if not self.fitted:
            raise RuntimeError(
                "The embedding is learned, but not trained yet: call fit_embedding() of the model "
                "first (training does, at its first batch)."
            )


def draw(
    sampler: Sampler | None, num_points: int, ambient_dim: int, generator: torch.Generator | None
) -> torch.Tensor:
    """Points ``[num_points, m]`` of a sampler, checked.

    Raises:
        ValueError: if there is no sampler, or if they have a wrong shape or are not finite.
    """
    if sampler is None:
        raise ValueError(
            "This custom manifold has no sampler, which is not saved with a model: pass sampler= "
            "to ERManifoldVAE."
        )
    points = sampler(num_points, generator)
    if not isinstance(points, torch.Tensor) or points.shape != (num_points, ambient_dim):
        got = list(points.shape) if isinstance(points, torch.Tensor) else type(points).__name__
        raise ValueError(
            f"sampler({num_points}, generator) must return a tensor [{num_points}, {ambient_dim}] "
            f"(ambient_dim is {ambient_dim}), got {got}."
        )
    if not bool(torch.isfinite(points).all()):
        raise ValueError("The sampler returned points with NaN or infinity: they must be finite.")
    return points.detach().to("cpu", torch.float32)


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


@contextmanager
def _one_process() -> Iterator[None]:
    """Hide from pythae's trainer that this is one process of several.

    It would train in step with the others, and end their process group after.
    """
    hidden = {name: os.environ.pop(name, None) for name in VARIABLES_OF_PROCESSES}
    try:
        yield
    finally:
        for name, value in hidden.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
