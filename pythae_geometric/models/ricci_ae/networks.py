"""Smooth default networks: the curvature of a piecewise linear decoder carries no information."""

from torch import nn

from ..networks import PerceptronDecoder, PerceptronEncoder
from .ricci_ae_config import RicciAEConfig

WIDTHS = (512, 256)


def default_encoder(config: RicciAEConfig) -> PerceptronEncoder:
    """Perceptron ``D-512-256-d`` with SiLU units."""
    return PerceptronEncoder(nn.SiLU, config.input_dim, WIDTHS, config.latent_dim, num_variances=0)


def default_decoder(config: RicciAEConfig) -> PerceptronDecoder:
    """Perceptron ``d-256-512-D`` with SiLU units and a linear output, or for the cross entropy a
    sigmoid."""
    output = nn.Sigmoid if config.reconstruction_loss == "bce" else nn.Identity
    return PerceptronDecoder(nn.SiLU, config.latent_dim, WIDTHS[::-1], config.input_dim, output)
