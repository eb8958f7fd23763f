"""Smooth default networks: the curvature of a piecewise linear decoder carries no information."""

import itertools
import math

import torch
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from torch import nn

WIDTHS = (512, 256)


class SmoothEncoder(BaseEncoder):
    """Perceptron ``D-512-256-d`` with SiLU units."""

    def __init__(self, input_dim: tuple[int, ...], latent_dim: int, widths=WIDTHS):
        super().__init__()
        self.layers = _perceptron(math.prod(input_dim), *widths, latent_dim)

    def forward(self, x: torch.Tensor) -> ModelOutput:
        return ModelOutput(embedding=self.layers(x.flatten(1)))


class SmoothDecoder(BaseDecoder):
    """Perceptron ``d-256-512-D`` with SiLU units and a linear output."""

    def __init__(self, input_dim: tuple[int, ...], latent_dim: int, widths=WIDTHS):
        super().__init__()
        self.input_dim = tuple(input_dim)
        self.layers = _perceptron(latent_dim, *reversed(widths), math.prod(input_dim))

    def forward(self, z: torch.Tensor) -> ModelOutput:
        return ModelOutput(reconstruction=self.layers(z).unflatten(1, self.input_dim))


def _perceptron(*sizes: int) -> nn.Sequential:
    layers = []
    for fan_in, fan_out in itertools.pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), nn.SiLU()]
    return nn.Sequential(*layers[:-1])
