"""What can be wrong with the data and with custom networks of a model."""

import math
from collections.abc import Mapping
from contextlib import suppress

import torch
from pythae.models import BaseAE, BaseAEConfig
from pythae.models.nn import BaseDecoder, BaseEncoder
from torch import nn

from .._checks import check_finite
from .._inputs import as_data, like
from ..geometry import evaluation_mode
from .scale import diverged


def check_parts(
    config: object,
    config_class: type[BaseAEConfig],
    encoder: object,
    decoder: object,
    needs_shape: bool = True,
) -> None:
    """Check what a model is built from.

    Args:
        config: of ``config_class``, with the shape of a data point.
        config_class: that of the model.
        encoder, decoder: networks of pythae's classes, or None.
        needs_shape: whether there must be an ``input_dim``, as default networks need it.

    Raises:
        TypeError: if one of them is something else.
        ValueError: if there is no ``input_dim``, or one without any numbers.
    """
    if not isinstance(config, config_class):
        raise TypeError(
            f"model_config must be a {config_class.__name__}, got a {type(config).__name__}."
        )
    for name, network, base in (
        ("encoder", encoder, BaseEncoder),
        ("decoder", decoder, BaseDecoder),
    ):
        if not (network is None or isinstance(network, base)):
            raise TypeError(
                f"The {name} must inherit from pythae.models.nn.{base.__name__}, got a "
                f"{type(network).__name__}: derive its class from that."
            )
    if config.input_dim is None:
        if needs_shape:
            raise ValueError(
                "input_dim is not set: give the config the shape of a data point, such as "
                "input_dim=(1, 28, 28)."
            )
    elif math.prod(config.input_dim) < 1:
        raise ValueError(f"input_dim must be at least 1 everywhere, got {config.input_dim}.")


def data_of(inputs: Mapping[str, torch.Tensor], model: BaseAE) -> torch.Tensor:
    """The data ``[B, *input_dim]`` of a batch, on the device and in the numbers of the model.

    Raises:
        TypeError: if the batch is no dictionary with ``"data"``, a tensor of floating-point
            numbers.
        ValueError: if the data are not finite, or have another shape.
    """
    if not isinstance(inputs, Mapping) or "data" not in inputs:
        raise TypeError(
            "A model takes a dictionary with 'data', the batch [B, *input_dim], got a "
            f"{type(inputs).__name__} without: call model({{'data': x}})."
        )
    x = check_data(inputs["data"], model.model_config)
    return x.to(like(model))


def data_for(
    model: BaseAE, data: object, name: str = "data", count: int | None = None
) -> torch.Tensor:
    """Data of any kind as a tensor ``[N, *input_dim]``, likewise; see
    :func:`~pythae_geometric._inputs.as_data` and :func:`check_data`."""
    return check_data(as_data(data, name).to(like(model)), model.model_config, name, count)


def check_data(
    x: torch.Tensor, config: BaseAEConfig, name: str = "The data", count: int | None = None
) -> torch.Tensor:
    """The data, which must be finite and have the shape ``[B, *input_dim]``.

    Args:
        x: the data.
        config: with ``input_dim``; None there: any shape.
        name: what they are called in an error.
        count: how many there must be; None: one or more.

    Raises:
        TypeError: if they are no tensor of floating-point numbers.
        ValueError: if they are not finite, or have another shape.
    """
    if not isinstance(x, torch.Tensor) or not x.is_floating_point():
        got = f"one of {x.dtype}" if isinstance(x, torch.Tensor) else f"a {type(x).__name__}"
        raise TypeError(f"{name} must be a tensor of floating-point numbers, got {got}.")
    input_dim = None if config.input_dim is None else tuple(config.input_dim)
    wrong = (
        x.ndim == 0 or len(x) == 0 or (input_dim is not None and tuple(x.shape[1:]) != input_dim)
    )
    if wrong or (count is not None and len(x) != count):
        expected = [count or "B", *("..." if input_dim is None else input_dim)]
        raise ValueError(
            f"{name} must have shape [{', '.join(map(str, expected))}], by the model's input_dim, "
            f"got {list(x.shape)}."
        )
    check_finite(x, name)
    return x


def encoded(
    encoder: nn.Module, x: torch.Tensor, latent_dim: int, widths: tuple[int, ...]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean ``[B, d]`` and log covariance of an encoder, checked.

    Args:
        encoder: network with the outputs ``embedding`` and ``log_covariance``.
        x: data, ``[B, *input_dim]``.
        latent_dim: d.
        widths: the numbers of columns that ``log_covariance`` may have.

    Raises:
        TypeError: if the network does not return its outputs by name.
        ValueError: if they have a wrong shape.
        ArithmeticError: if they are not finite.
    """
    B, d = len(x), latent_dim
    output = encoder(x)
    mean, log_covariance = (_named(output, n, "encoder") for n in ("embedding", "log_covariance"))
    if mean.shape != (B, d) or log_covariance.shape not in [(B, width) for width in widths]:
        shapes = " or ".join(str([B, width]) for width in widths)
        raise ValueError(
            f"The encoder must give embedding of shape {[B, d]} (latent_dim is {d}) and "
            f"log_covariance of shape {shapes}, got {list(mean.shape)} and "
            f"{list(log_covariance.shape)}."
        )
    if not (_is_finite(mean) and _is_finite(log_covariance)):
        raise diverged("The encoder's output", x)
    return mean, log_covariance


def embedded(encoder: nn.Module, x: torch.Tensor, latent_dim: int) -> torch.Tensor:
    """The ``embedding [B, d]`` of an encoder, checked.

    Raises:
        TypeError: if the network does not return it by name.
        ValueError: if it has a wrong shape.
        ArithmeticError: if it is not finite.
    """
    z = _named(encoder(x), "embedding", "encoder")
    if z.shape != (len(x), latent_dim):
        raise ValueError(
            f"The encoder must give embedding of shape {[len(x), latent_dim]} (latent_dim is "
            f"{latent_dim}), got {list(z.shape)}."
        )
    if not _is_finite(z):
        raise diverged("The encoder's output", x)
    return z


def decoded(
    decoder: nn.Module,
    z: torch.Tensor,
    shape: tuple[int, ...],
    *args: object,
    data: torch.Tensor | None = None,
) -> torch.Tensor:
    """The ``reconstruction`` of a decoder at points ``z``, in the shape of the data.

    As in pythae's models each row is reshaped if it has as many entries as a data point.

    Args:
        decoder: network with the output ``reconstruction``.
        z: points, ``[B, d]``.
        shape: of a data point.
        args: further arguments of the decoder.
        data: of which the points are codes, if they are known.

    Raises:
        TypeError: if the network does not return it by name.
        ValueError: if it has a wrong shape.
        ArithmeticError: if it is not finite, or the points are not.
    """
    recon_x = _named(decoder(z, *args), "reconstruction", "decoder")
    fits = recon_x.ndim > 0 and len(recon_x) == len(z)
    if not fits or math.prod(recon_x.shape[1:]) != math.prod(shape):
        raise ValueError(
            f"The decoder must give reconstruction of shape {[len(z), *shape]} (input_dim) for "
            f"{len(z)} points, got {list(recon_x.shape)}."
        )
    if not _is_finite(recon_x):
        raise diverged("The decoder's output" if _is_finite(z) else "A code to be decoded", data)
    return recon_x.reshape(len(z), *shape)


def _is_finite(x: torch.Tensor) -> bool:
    # NaN is both the least and the greatest; looking at each number takes ten times longer.
    low, high = x.detach().aminmax()
    return math.isfinite(low) and math.isfinite(high)


def _named(output: object, name: str, network: str) -> torch.Tensor:
    if not isinstance(output, Mapping) or name not in output:
        got = f"with {', '.join(output)}" if isinstance(output, Mapping) else ""
        raise TypeError(
            f"The {network} must return a ModelOutput with {name}, got a "
            f"{type(output).__name__} {got}".rstrip()
            + "."
        )
    return output[name]


def check_custom_encoder(encoder: nn.Module, config: BaseAEConfig, widths: tuple[int, ...]) -> None:
    """Put zeros through a custom encoder: a wrong shape should show before training.

    Raises:
        TypeError, ValueError: see :func:`encoded`.
    """
    # Zeros need not be data that it can take, such as where it divides by their norm.
    with torch.no_grad(), evaluation_mode(encoder), suppress(ArithmeticError):
        encoded(encoder, _zeros(encoder, config.input_dim), config.latent_dim, widths)


def check_custom_decoder(decoder: nn.Module, config: BaseAEConfig, points: str, dim: int) -> None:
    """Put zeros through a custom decoder: a wrong shape should show before training.

    Args:
        decoder: network.
        config: with ``input_dim``.
        points: what the decoder takes, for the error.
        dim: their dimension.

    Raises:
        ValueError: if it does not take them, or does not give data.
    """
    try:
        with torch.no_grad(), evaluation_mode(decoder), suppress(ArithmeticError):
            decoded(decoder, _zeros(decoder, (dim,)), config.input_dim)
    except Exception as error:  # whatever a network raises on a wrong shape
        raise ValueError(
            f"The decoder must take {points}, and give data [B, "
            f"{', '.join(map(str, config.input_dim))}]: build it with a config of "
            f"latent_dim={dim}. For 2 points it raised: {' '.join(str(error).split())[:200]}"
        ) from error


def _zeros(network: nn.Module, shape: tuple[int, ...]) -> torch.Tensor:
    like = next(network.parameters(), torch.empty(0))
    return torch.zeros(2, *shape, dtype=like.dtype, device=like.device)
