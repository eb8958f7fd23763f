"""Default networks, and those that carry points to the manifold and back."""

import itertools
import math

import torch
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from torch import nn

from ...geometry import Manifold


class Encoder(BaseEncoder):
    """Perceptron with ReLU units, and two linear heads: ``embedding`` and ``log_covariance``."""

    def __init__(self, input_dim: tuple[int, ...], latent_dim: int, hidden_dims: tuple[int, ...]):
        super().__init__()
        self.layers = perceptron(nn.ReLU, math.prod(input_dim), *hidden_dims, 2 * latent_dim)

    def forward(self, x: torch.Tensor) -> ModelOutput:
        embedding, log_covariance = self.layers(x.flatten(1)).chunk(2, dim=1)
        return ModelOutput(embedding=embedding, log_covariance=log_covariance)


class Decoder(BaseDecoder):
    """Perceptron with ReLU units and a linear output, from points of the manifold."""

    def __init__(self, input_dim: tuple[int, ...], ambient_dim: int, hidden_dims: tuple[int, ...]):
        super().__init__()
        self.input_dim = tuple(input_dim)
        self.layers = perceptron(nn.ReLU, ambient_dim, *reversed(hidden_dims), math.prod(input_dim))

    def forward(self, y: torch.Tensor) -> ModelOutput:
        return ModelOutput(reconstruction=self.layers(y).unflatten(1, self.input_dim))


class ManifoldDecoder(BaseDecoder):
    """A decoder of hidden points: the embedding, and a network of points of the manifold.

    Args:
        embedding: module ``[B, n] -> [B, m]``.
        network: with the output ``reconstruction``.
    """

    def __init__(self, embedding: nn.Module, network: BaseDecoder):
        super().__init__()
        self.embedding, self.network = embedding, network

    def forward(self, z: torch.Tensor) -> ModelOutput:
        return self.network(self.embedding(z))


class GroupEncoder(BaseEncoder):
    r"""An encoder whose posteriors are moved by a group element :math:`g(x)` (seed, section 3).

    As an encoder it gives the hidden point of the moved centre, :math:`e^{-1}(g(x)\, e(m(x)))`,
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
        embedding: nn.Module,
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


def perceptron(unit: type[nn.Module], *sizes: int) -> nn.Sequential:
    """Linear layers of these sizes, with units between them."""
    layers = []
    for fan_in, fan_out in itertools.pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), unit()]
    return nn.Sequential(*layers[:-1])
