"""The perceptrons of Chadebec and Allassonnière (NeurIPS 2022; their networks for SVHN), for images
of any size: hidden layers of 1000 and 500 units, ReLU."""

from torch import nn

from pythae_geometric.models.networks import PerceptronDecoder, PerceptronEncoder

HIDDEN = (1000, 500)


def encoder(config, variances=True):
    """To ``embedding`` and, if ``variances``, ``log_covariance``, both ``[B, latent_dim]``."""
    d = config.latent_dim
    return PerceptronEncoder(nn.ReLU, config.input_dim, HIDDEN, d, num_variances=variances * d)


def decoder(config):
    """To ``reconstruction`` in [0, 1], ``[B, *input_dim]``."""
    widths, shape = HIDDEN[::-1], config.input_dim
    return PerceptronDecoder(nn.ReLU, config.latent_dim, widths, shape, output=nn.Sigmoid)
