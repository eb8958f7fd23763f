"""Default networks, and those that carry points to the manifold and back."""

import math

import torch
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from torch import nn

from ...geometry import Manifold
from ..networks import PerceptronDecoder, PerceptronEncoder, perceptron
from .embeddings import Embedding
from .er_manifold_vae_config import ERManifoldVAEConfig, dimensions

# Log variances of posteriors begin about here. From the whole width of the prior, where the points
# on the manifold say nothing about the data, a group-action encoder often finds a worse way to lose
# the noise than a smaller variance: to the cut of the chart, from where it does not come back.
FIRST_LOG_VARIANCE = -4.0


def default_encoder(config: ERManifoldVAEConfig) -> BaseEncoder:
    """A perceptron of ReLU units, with a variance for each latent dimension."""
    n, _ = dimensions(config)
    encoder = PerceptronEncoder(nn.ReLU, config.input_dim, config.hidden_dims, n, n)
    *_, bias = encoder.layers.parameters()
    with torch.no_grad():
        bias[n:] += FIRST_LOG_VARIANCE
    return encoder


def default_decoder(config: ERManifoldVAEConfig) -> BaseDecoder:
    """A perceptron of ReLU units from points of the manifold, with a linear output for a Gaussian
    likelihood, and a sigmoid for a Bernoulli likelihood."""
    output = nn.Sigmoid if config.likelihood == "bernoulli" else nn.Identity
    _, m = dimensions(config)
    widths = config.hidden_dims[::-1]
    return PerceptronDecoder(nn.ReLU, m, widths, config.input_dim, output)


class ManifoldDecoder(BaseDecoder):
    """A decoder of latent codes: the embedding, and a network of points of the manifold.

    Args:
        embedding: module ``[B, n] -> [B, m]``.
        network: with the output ``reconstruction``.
    """

    def __init__(self, embedding: Embedding, network: BaseDecoder):
        super().__init__()
        self.embedding, self.network = embedding, network

    def forward(self, z: torch.Tensor) -> ModelOutput:
        return self.network(self.embedding(z))


class GroupEncoder(BaseEncoder):
    r"""An encoder whose posteriors are moved by a group element :math:`g(x)` (section 3).

    As an encoder it gives the latent code of the moved centre, :math:`e^{-1}(g(x)\, e(m(x)))`,
    for an embedding e. The group element comes from a frame, and so depends continuously on x also
    where x goes round a loop: see ``Manifold.group_element_from_frame``.

    Args:
        network: encoder with the outputs ``embedding`` and ``log_covariance``.
        embedding: module with an ``inverse``.
        manifold: on which the group acts.
        input_dim: shape of a sample.
        hidden_dims: widths of the perceptron that gives the frame.
    """

    def __init__(
        self,
        network: BaseEncoder,
        embedding: Embedding,
        manifold: Manifold,
        input_dim: tuple[int, ...],
        hidden_dims: tuple[int, ...],
    ):
        super().__init__()
        self.network, self.embedding, self.manifold = network, embedding, manifold
        self.frame = perceptron(nn.ReLU, math.prod(input_dim), *hidden_dims, manifold.frame_dim)

    def forward(self, x: torch.Tensor) -> ModelOutput:
        output = self.network(x)
        moved = self.move(x, self.embedding(output["embedding"]))
        return ModelOutput(
            embedding=self.embedding.inverse(moved), log_covariance=output["log_covariance"]
        )

    def move(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        r""":math:`g(x)\, y` for points ``[B, m]`` of the manifold."""
        g = self.manifold.group_element_from_frame(self.frame(x.flatten(1)))
        return self.manifold.act(g, y)
