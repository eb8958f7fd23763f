"""Autoencoders that are not pythae's, for the samplers, interpolation and evaluation."""

from collections.abc import Callable, Mapping

import torch
from pythae.models import AE, AEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder

from .._checks import check_count


def autoencoder_of(
    encoder: Callable, decoder: Callable, input_dim: tuple[int, ...], latent_dim: int
) -> AE:
    """A pythae model made of an encoder and a decoder of any origin.

    It is for what comes after training: samplers, :func:`~pythae_geometric.interpolate` and
    :mod:`~pythae_geometric.evaluation`. The networks are shared, not copied.

    Args:
        encoder: module or function from data ``[B, *input_dim]`` to the codes ``[B, d]``, or to a
            tuple of the means and the log variances of the posteriors, both ``[B, d]``.
        decoder: module or function from codes ``[B, d]`` to data ``[B, *input_dim]``. A function
            must be pure, and of torch's operations.
        input_dim: the shape of a data point.
        latent_dim: d.

    Raises:
        TypeError: if a network cannot be called, or does not return tensors when it is.
        ValueError: if a dimension is out of range.

    Example:
        >>> model = autoencoder_of(nn.Linear(8, 2), nn.Linear(2, 8), input_dim=(8,), latent_dim=2)
        >>> sampler = MetricUniformHMCSampler(model)
    """
    for name, network in (("encoder", encoder), ("decoder", decoder)):
        if not callable(network):
            raise TypeError(f"The {name} must be a module or a function, got {network!r}.")
    input_dim = tuple(check_count("input_dim", n, 1) for n in input_dim)
    config = AEConfig(input_dim=input_dim, latent_dim=check_count("latent_dim", latent_dim, 1))
    model = AE(config, encoder=_Encoder(encoder), decoder=_Decoder(decoder))
    model.model_name = "autoencoder"
    return model


class _Encoder(BaseEncoder):
    def __init__(self, network: Callable):
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> ModelOutput:
        output = self.network(x)
        if isinstance(output, Mapping):
            return output
        if isinstance(output, torch.Tensor):
            return ModelOutput(embedding=output)
        is_posterior = isinstance(output, tuple | list) and len(output) == 2
        if not is_posterior or not all(isinstance(part, torch.Tensor) for part in output):
            raise TypeError(
                "The encoder must return codes, or a tuple of means and log variances, got a "
                f"{type(output).__name__}: wrap it in a function that does."
            )
        return ModelOutput(embedding=output[0], log_covariance=output[1])


class _Decoder(BaseDecoder):
    def __init__(self, network: Callable):
        super().__init__()
        self.network = network

    def forward(self, z: torch.Tensor) -> ModelOutput:
        output = self.network(z)
        if isinstance(output, Mapping):
            return output
        if not isinstance(output, torch.Tensor):
            raise TypeError(
                f"The decoder must return a tensor of data, got a {type(output).__name__}: wrap it "
                "in a function that does."
            )
        return ModelOutput(reconstruction=output)
