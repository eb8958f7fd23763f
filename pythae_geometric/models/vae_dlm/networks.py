"""Modified perceptrons, and the networks of VAE-DLM that are built from them."""

import math
from collections.abc import Callable
from typing import Any

import torch
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from torch import nn
from torch.nn import functional as F

from .inputs import check_times
from .vae_dlm_config import VAE_DLM_Config


def _tanh(x):
    y = x.tanh()
    return y, 1 - y.square()


def _gelu(x):
    normal = 0.5 + 0.5 * torch.erf(x * math.sqrt(0.5))
    return x * normal, normal + x * torch.exp(-0.5 * x.square()) / math.sqrt(2 * math.pi)


# Each function, and the same together with its derivative.
ACTIVATIONS: dict[str, tuple[Callable, Callable]] = {
    "tanh": (torch.tanh, _tanh),
    "gelu": (F.gelu, _gelu),
}


class ModifiedMLP(nn.Module):
    r"""Perceptron in which two gates of the input are mixed into every hidden layer.

    .. math::
        U = \sigma(W_U x + b_U), \qquad V = \sigma(W_V x + b_V), \qquad H_0 = x, \\
        Z_k = \sigma(W_k H_{k-1} + b_k), \qquad H_k = Z_k \odot U + (1 - Z_k) \odot V, \\
        y = W H_L + b

    Args:
        inputs, outputs: their numbers.
        width: of the hidden layers.
        depth: L, the number of hidden layers, at least 1.
        activation: :math:`\sigma`, ``"gelu"`` or ``"tanh"``.

    References:
        S. Wang, S. Sankaran, H. Wang, P. Perdikaris, An expert's guide to training physics-informed
        neural networks, 2023, https://arxiv.org/abs/2308.08468, section 6.2.
    """

    def __init__(self, inputs: int, outputs: int, width: int, depth: int, activation: str):
        super().__init__()
        # Both gates and the first layer take the input: one product for the three.
        self.first = nn.Linear(inputs, 3 * width)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(depth - 1))
        self.last = nn.Linear(width, outputs)
        self.activation = activation  # by name, so that pickles hold no function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        activation, _ = ACTIVATIONS[self.activation]
        U, V, Z = activation(self.first(x)).chunk(3, dim=-1)
        gap = U - V
        H = V + Z * gap
        for layer in self.hidden:
            H = V + activation(layer(H)) * gap
        return self.last(H)

    def value_and_derivatives(
        self, x: torch.Tensor, directions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        r"""The value ``[B, outputs]``, and the derivatives ``[k, B, outputs]`` along k directions.

        Forward mode, written out. The directions ``[k, inputs]`` are the same for the whole batch,
        so that the gates and the first layer need no product of the size of the batch; each
        tangent needs one in every hidden layer,

        .. math:: dH_k = \sigma'_k (U - V) \odot W_k\, dH_{k-1} + Z_k U' \odot W_U v
                  + (1 - Z_k) V' \odot W_V v.
        """
        w_U, w_V, w_Z = F.linear(directions, self.first.weight).unsqueeze(1).chunk(3, dim=-1)
        _, with_derivative = ACTIVATIONS[self.activation]
        values, slopes = with_derivative(self.first(x))
        U, V, Z = values.chunk(3, dim=-1)
        dU, dV, dZ = slopes.chunk(3, dim=-1)
        gap, dH = U - V, w_Z
        H = V + Z * gap
        for layer in (None, *self.hidden):
            if layer is not None:
                Z, dZ = with_derivative(layer(H))
                H, dH = V + Z * gap, F.linear(dH, layer.weight)
            dH = dZ * gap * dH + torch.addcmul(Z * dU * w_U, (1 - Z) * dV, w_V)
        return self.last(H), F.linear(dH, self.last.weight)


class Encoder(BaseEncoder):
    """From the first state to mean and log variance of the chart point, both ``[B, d]``."""

    def __init__(self, config: VAE_DLM_Config):
        BaseEncoder.__init__(self)
        inputs, d = math.prod(config.input_dim), config.latent_dim
        self.layers = ModifiedMLP(inputs, 2 * d, config.hidden_dim, config.num_layers, "gelu")

    def forward(self, x: torch.Tensor) -> ModelOutput:
        mean, log_variance = self.layers(x.flatten(1)).chunk(2, dim=1)
        return ModelOutput(embedding=mean, log_covariance=log_variance)


class Decoder(BaseDecoder):
    """From points of the manifold ``[B, d + 1]`` to states, ``reconstruction``; for the cross
    entropy they end in a sigmoid."""

    def __init__(self, config: VAE_DLM_Config):
        BaseDecoder.__init__(self)
        self.output = nn.Sigmoid() if config.reconstruction_loss == "bce" else nn.Identity()
        self.input_dim = tuple(config.input_dim)
        inputs, outputs = config.latent_dim + 1, math.prod(self.input_dim)
        width, depth = config.hidden_dim, config.num_layers
        self.layers = ModifiedMLP(inputs, outputs, width, depth, "tanh")

    def forward(self, z: torch.Tensor) -> ModelOutput:
        states = self.output(self.layers(z))
        return ModelOutput(reconstruction=states.unflatten(1, self.input_dim))


class TimeNetwork(nn.Module):
    r"""A modified perceptron of chart point and time, ``(u [B, d], t [B, 1]) -> [B, *shape]``; the
    time enters as a fraction of the horizon."""

    def __init__(self, config: VAE_DLM_Config, shape: tuple[int, ...], activation: str):
        super().__init__()
        self.shape, self.horizon = shape, config.horizon
        inputs, width, depth = config.latent_dim + 1, config.hidden_dim, config.num_layers
        self.layers = ModifiedMLP(inputs, math.prod(shape), width, depth, activation)

    def forward(self, u: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return self.layers(torch.cat([u, t / self.horizon], dim=1)).unflatten(1, self.shape)

    def chart_derivatives(
        self, u: torch.Tensor, t: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The value, and the derivatives in the d coordinates of u, ``[d, B, *shape]``."""
        return self._along(u, t, slice(0, -1))

    def time_derivative(
        self, u: torch.Tensor, t: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The value, and the derivative in t, both ``[B, *shape]``."""
        value, derivatives = self._along(u, t, slice(-1, None))
        return value, derivatives[0] / self.horizon

    def _along(self, u, t, rows):
        x = torch.cat([u, t / self.horizon], dim=1)
        directions = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)[rows]
        y, dy = self.layers.value_and_derivatives(x, directions)
        return y.unflatten(1, self.shape), dy.unflatten(2, self.shape)


class GramNetwork(TimeNetwork):
    r"""A symmetric, positive semidefinite matrix :math:`A^\top A` of chart point and time."""

    def __init__(self, config: VAE_DLM_Config):
        super().__init__(config, (config.latent_dim, config.latent_dim), "gelu")

    def forward(self, u: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        A = super().forward(u, t)
        return A.mT @ A

    def time_derivative(
        self, u: torch.Tensor, t: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        A, dA = super().time_derivative(u, t)
        half = A.mT @ dA
        return A.mT @ A, half + half.mT


class ChartDecoder(BaseDecoder):
    r"""From chart points and a time to states: the manifold map, followed by the decoder network.

    Args:
        manifold_map: :math:`E(u, t)`, with values ``[B, d + 1]``; None: ``(u, t / horizon)``.
        network: from there to states, with the output ``reconstruction``.
        horizon: the last time.
        default_time: the time of points that come without one.
    """

    def __init__(
        self,
        manifold_map: TimeNetwork | None,
        network: nn.Module,
        horizon: float,
        default_time: float,
    ):
        BaseDecoder.__init__(self)
        self.manifold_map, self.network = manifold_map, network
        self.horizon, self.default_time = horizon, default_time

    def points(self, u: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Points of the manifold ``[B, d + 1]`` at chart points ``[B, d]`` and times ``[B, 1]``."""
        if self.manifold_map is None:
            return torch.cat([u, t / self.horizon], dim=1)
        return self.manifold_map(u, t)

    def forward(self, u: torch.Tensor, t: torch.Tensor | float | None = None) -> ModelOutput:
        """States, ``reconstruction [B, *input_dim]``.

        Args:
            u: chart points, ``[B, d]``.
            t: one time, or one for each point, ``[B]``; None: the default time.

        Raises:
            ValueError: if a time is outside the horizon, or there are not as many as points.
        """
        t = check_times(self.default_time if t is None else t, u, self.horizon)
        return self.network(self.points(u, t))


class ManifoldAt(nn.Module):
    """The manifold at one time: from chart points ``[B, d]`` to its points ``[B, d + 1]``.

    Args:
        decoder: of the model.
        time: in [0, horizon].
    """

    def __init__(self, decoder: ChartDecoder, time: float):
        super().__init__()
        self.decoder, self.time = decoder, time

    def forward(self, u: torch.Tensor) -> torch.Tensor:
        return self.decoder.points(u, u.new_full((len(u), 1), self.time))


def network_of(decoder: Any) -> nn.Module:
    """The decoder network itself, where ``decoder`` is that of a VAE-DLM.

    Version 0.1.0 pickled such a decoder whole, together with its class: hence a look at the name.
    """
    return decoder.network if type(decoder).__name__ == ChartDecoder.__name__ else decoder
