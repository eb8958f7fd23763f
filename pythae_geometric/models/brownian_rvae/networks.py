"""The default networks: softplus units, as smooth as a metric needs its decoder to be."""

import torch
from torch import nn

from ..networks import PerceptronDecoder, PerceptronEncoder
from .brownian_rvae_config import BrownianRVAEConfig


def default_encoder(config: BrownianRVAEConfig) -> PerceptronEncoder:
    """From data to the mean ``embedding [B, d]`` and the log time: ``log_covariance [B, d]``, in
    pythae's shape, has it in every column."""
    encoder = PerceptronEncoder(
        nn.Softplus, config.input_dim, config.hidden_dims, config.latent_dim, num_variances=1
    )
    # One time for all data, to begin with.
    *_, weight, _bias = encoder.layers.parameters()
    nn.init.zeros_(weight[-1:])
    return encoder


def default_decoder(config: BrownianRVAEConfig) -> PerceptronDecoder:
    """From latent points to the mean of the data, ``reconstruction [B, *input_dim]`` in (0, 1)."""
    widths = tuple(reversed(config.hidden_dims))
    return PerceptronDecoder(
        nn.Softplus, config.latent_dim, widths, config.input_dim, output=nn.Sigmoid
    )


def upgraded(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A state of version 0.1.0, whose last layers had names of their own, under today's names."""
    state = dict(state)
    if "encoder.log_time.weight" in state:
        last = _next_layer(state, "encoder")
        for name in ("weight", "bias"):
            heads = [state.pop(f"encoder.{head}.{name}") for head in ("embedding", "log_time")]
            state[f"{last}.{name}"] = torch.cat(heads)
    if "decoder.reconstruction.weight" in state and "decoder.layers.0.weight" in state:
        last = _next_layer(state, "decoder")
        for name in ("weight", "bias"):
            state[f"{last}.{name}"] = state.pop(f"decoder.reconstruction.{name}")
    return state


def _next_layer(state: dict[str, torch.Tensor], network: str) -> str:
    count = sum(name.startswith(f"{network}.layers.") for name in state) // 2
    return f"{network}.layers.{2 * count}"
