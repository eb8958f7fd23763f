"""Perceptrons: the default networks of the models."""

import itertools
import math

import torch
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from torch import nn


def perceptron(unit: type[nn.Module], *sizes: int) -> nn.Sequential:
    """Linear layers of these sizes, with units between them."""
    layers = []
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), unit()]
    return nn.Sequential(*layers[:-1])


class PerceptronEncoder(BaseEncoder):
    """Perceptron from data ``[B, *input_dim]`` to ``embedding [B, d]`` and, where there are
    variances, ``log_covariance [B, d]``.

    Args:
        unit: class of the activations.
        input_dim: shape of a sample.
        widths: of the hidden layers.
        latent_dim: d.
        num_variances: 0: none; 1: one, which all columns of ``log_covariance`` share; d: one for
            each latent dimension.
    """

    def __init__(
        self,
        unit: type[nn.Module],
        input_dim: tuple[int, ...],
        widths: tuple[int, ...],
        latent_dim: int,
        num_variances: int,
    ):
        super().__init__()
        self.latent_dim, self.num_variances = latent_dim, num_variances
        self.layers = perceptron(unit, math.prod(input_dim), *widths, latent_dim + num_variances)

    def forward(self, x: torch.Tensor) -> ModelOutput:
        parts = self.layers(x.flatten(1))
        mean, log_variance = parts.split([self.latent_dim, self.num_variances], dim=1)
        if self.num_variances == 0:
            return ModelOutput(embedding=mean)
        return ModelOutput(embedding=mean, log_covariance=log_variance.expand_as(mean))


class PerceptronDecoder(BaseDecoder):
    """Perceptron from points ``[B, d]`` to data, ``reconstruction [B, *input_dim]``.

    Args:
        unit: class of the activations.
        latent_dim: d.
        widths: of the hidden layers.
        input_dim: shape of a sample.
        output: class of the last activation; the identity leaves the output linear.
    """

    def __init__(
        self,
        unit: type[nn.Module],
        latent_dim: int,
        widths: tuple[int, ...],
        input_dim: tuple[int, ...],
        output: type[nn.Module] = nn.Identity,
    ):
        super().__init__()
        self.input_dim = tuple(input_dim)
        self.layers = perceptron(unit, latent_dim, *widths, math.prod(input_dim))
        self.output = output()

    def forward(self, z: torch.Tensor) -> ModelOutput:
        return ModelOutput(reconstruction=self.output(self.layers(z)).unflatten(1, self.input_dim))
