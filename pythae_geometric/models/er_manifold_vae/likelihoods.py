"""Distributions of the data x given the output of the decoder at a point on the manifold."""

import math

import torch
from torch import nn

from ..bernoulli import bernoulli_log_prob
from .er_manifold_vae_config import ERManifoldVAEConfig

# Least weight of a batch in the running mean of the squared error.
MOMENTUM = 0.1
# The learned deviation stays above this fraction of the root mean square of the data: those that
# are reconstructed exactly have no finite likelihood.
LEAST_STD = 1e-3


def likelihood_of(
    config: ERManifoldVAEConfig,
) -> "GaussianLikelihood | LearnedGaussianLikelihood | BernoulliLikelihood":
    """The likelihood that a config describes."""
    if config.likelihood == "bernoulli":
        return BernoulliLikelihood()
    if config.likelihood_std is None:
        return LearnedGaussianLikelihood()
    return GaussianLikelihood(config.likelihood_std)


class GaussianLikelihood(nn.Module):
    r"""The likelihood :math:`N(x; \mu(y), \sigma^2 I)`.

    Args:
        std: :math:`\sigma`.
    """

    def __init__(self, std: float):
        super().__init__()
        self.std = std

    def log_prob(self, x: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
        """The log density of data ``[B, *input_dim]``: ``[B]``."""
        error = (x - mean).flatten(1)
        constant = error.shape[1] * (math.log(self.std) + 0.5 * math.log(2 * math.pi))
        return -0.5 * (error / self.std).square().sum(1) - constant


class LearnedGaussianLikelihood(nn.Module):
    r"""The likelihood :math:`N(x; \mu(y), \sigma^2 I)` with a learned :math:`\sigma`.

    The variance that maximises the likelihood is the mean squared error of a coordinate. In
    training it is the running mean of that over batches, which no learning rate slows down; so the
    reconstruction counts for as much in data of any scale.

    References:
        O. Rybkin, K. Daniilidis, S. Levine, *Simple and effective VAE training with calibrated
        decoders*, ICML 2021, section 3.3, https://arxiv.org/abs/2006.13202
    """

    variance: torch.Tensor
    batches_seen: torch.Tensor

    def __init__(self):
        super().__init__()
        self.register_buffer("variance", torch.ones(()))
        self.register_buffer("batches_seen", torch.zeros((), dtype=torch.long))

    @property
    def std(self) -> float:
        r"""The deviation :math:`\sigma` that has been learned."""
        return math.sqrt(self.variance)

    def log_prob(self, x: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
        """The log density of data ``[B, *input_dim]``: ``[B]``."""
        error = (x - mean).flatten(1)
        if self.training:
            self._learn(error.detach(), x)
        variance = self.variance.clone()  # the graph keeps it, and learning goes on in place
        constant = 0.5 * error.shape[1] * (2 * math.pi * variance).log()
        return -0.5 * error.square().sum(1) / variance - constant

    def _learn(self, error: torch.Tensor, x: torch.Tensor) -> None:
        self.batches_seen += 1
        square = error.square().mean().clamp(min=LEAST_STD**2 * x.square().mean())
        weight = self.batches_seen.reciprocal().clamp(min=MOMENTUM)
        self.variance += weight * (square - self.variance)


class BernoulliLikelihood(nn.Module):
    """The likelihood of :func:`~pythae_geometric.models.bernoulli.bernoulli_log_prob`."""

    def log_prob(self, x: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
        """The log probability of data ``[B, *input_dim]``: ``[B]``.

        Raises:
            ValueError: if the data or the means are not in [0, 1].
        """
        return bernoulli_log_prob(x, mean, 'likelihood="gaussian"')
