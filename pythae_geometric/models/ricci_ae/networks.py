"""Smooth default networks: the curvature of a piecewise linear decoder carries no information."""

from torch import nn

from ..networks import PerceptronDecoder, PerceptronEncoder

WIDTHS = (512, 256)


def default_encoder(input_dim: tuple[int, ...], latent_dim: int) -> PerceptronEncoder:
    """Perceptron ``D-512-256-d`` with SiLU units."""
    return PerceptronEncoder(nn.SiLU, input_dim, WIDTHS, latent_dim, num_variances=0)


def default_decoder(input_dim: tuple[int, ...], latent_dim: int) -> PerceptronDecoder:
    """Perceptron ``d-256-512-D`` with SiLU units and a linear output."""
    return PerceptronDecoder(nn.SiLU, latent_dim, WIDTHS[::-1], input_dim)
