"""The perceptrons of Chadebec and Allassonnière (NeurIPS 2022; their networks for SVHN), for images
of any size: hidden layers of 1000 and 500 units, ReLU."""

import itertools
import math

import torch
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from torch import nn

HIDDEN = (1000, 500)


class Encoder(BaseEncoder):
    """``embedding`` and, if ``variances``, ``log_covariance``, both ``[B, latent_dim]``."""

    def __init__(self, config, variances=True):
        super().__init__()
        self.variances = variances
        outputs = (1 + variances) * config.latent_dim
        self.layers = perceptron(math.prod(config.input_dim), *HIDDEN, outputs)

    def forward(self, x):
        y = self.layers(x.flatten(1))
        if not self.variances:
            return ModelOutput(embedding=y)
        embedding, log_covariance = y.chunk(2, -1)
        return ModelOutput(embedding=embedding, log_covariance=log_covariance)


class Decoder(BaseDecoder):
    """``reconstruction`` in [0, 1], ``[B, *input_dim]``."""

    def __init__(self, config):
        super().__init__()
        self.input_dim = tuple(config.input_dim)
        self.layers = perceptron(config.latent_dim, *HIDDEN[::-1], math.prod(self.input_dim))

    def forward(self, z):
        x = torch.sigmoid(self.layers(z))
        return ModelOutput(reconstruction=x.reshape(len(z), *self.input_dim))


def perceptron(*sizes):
    layers = [nn.Linear(sizes[0], sizes[1])]
    for i, o in itertools.pairwise(sizes[1:]):
        layers += [nn.ReLU(), nn.Linear(i, o)]
    return nn.Sequential(*layers)
