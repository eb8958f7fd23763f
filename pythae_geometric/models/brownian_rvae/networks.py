"""The default networks: softplus units, as smooth as a metric needs its decoder to be."""

import itertools
import math

import torch
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from torch import nn


class Encoder(BaseEncoder):
    """From data to the mean ``embedding [B, d]`` and the log time: ``log_covariance [B, d]``, in
    pythae's shape, has it in every column."""

    def __init__(self, config):
        BaseEncoder.__init__(self)
        widths = (math.prod(config.input_dim), *config.hidden_dims)
        self.layers = _softplus_layers(widths)
        self.embedding = nn.Linear(widths[-1], config.latent_dim)
        self.log_time = nn.Linear(widths[-1], 1)
        nn.init.zeros_(self.log_time.weight)  # one time for all data, to begin with

    def forward(self, x: torch.Tensor) -> ModelOutput:
        h = self.layers(x.flatten(1))
        mean = self.embedding(h)
        return ModelOutput(embedding=mean, log_covariance=self.log_time(h).expand_as(mean))


class Decoder(BaseDecoder):
    """From latent points to the mean of the data, ``reconstruction [B, *input_dim]`` in (0, 1)."""

    def __init__(self, config):
        BaseDecoder.__init__(self)
        self.input_dim = tuple(config.input_dim)
        widths = (config.latent_dim, *reversed(config.hidden_dims))
        self.layers = _softplus_layers(widths)
        self.reconstruction = nn.Linear(widths[-1], math.prod(self.input_dim))

    def forward(self, z: torch.Tensor) -> ModelOutput:
        x = self.reconstruction(self.layers(z)).sigmoid()
        return ModelOutput(reconstruction=x.unflatten(1, self.input_dim))


def _softplus_layers(widths):
    return nn.Sequential(
        *(
            layer
            for inputs, outputs in itertools.pairwise(widths)
            for layer in (nn.Linear(inputs, outputs), nn.Softplus())
        )
    )
