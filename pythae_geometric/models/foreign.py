"""Autoencoders that are not pythae's, for the samplers, interpolation and evaluation.

Networks may take labels, too: those of :func:`conditional_autoencoder_of`, and of any pythae model
whose encoder or decoder needs a second argument. Then there are ``sampler.fit(x, labels=y)`` (or a
data set with labels), ``sampler.sample(10, labels=y[:10])`` and
``interpolate(model, x[:5], x[5:10], labels=y[:5])``. What takes no labels, such as a metric, a
pipeline or Brownian motion in the decoder's geometry, takes ``given(model, label)``, which is an
autoencoder like any other. All labels share one latent space, in which a code is taken to have the
same distribution whatever the label is, as the prior of a conditional VAE says; where that does not
hold, fit a sampler to the data of one label at a time.
"""

import inspect
from collections.abc import Callable, Mapping

import torch
from pythae.models import AE, AEConfig, BaseAE
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from torch import nn

from .._checks import check_count
from .._inputs import as_model, as_shape, as_tensor, like
from .decoder_map import decoder_space

__all__ = ["ConditionalAutoencoder", "autoencoder_of", "conditional_autoencoder_of", "given"]


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
    return _model_of(AE, encoder, decoder, input_dim, latent_dim)


class ConditionalAutoencoder(AE):
    """An autoencoder whose networks take labels; made by :func:`conditional_autoencoder_of`."""

    def given(self, label: object) -> AE:
        """The autoencoder of the data of one label; see :func:`given`."""
        return given(self, label)


def conditional_autoencoder_of(
    encoder: Callable, decoder: Callable, input_dim: tuple[int, ...], latent_dim: int
) -> ConditionalAutoencoder:
    """A model made of an encoder and a decoder that take labels as their second argument.

    Args:
        encoder: as for :func:`autoencoder_of`, of data and labels, ``[B, ...]``.
        decoder: likewise, of codes and labels.
        input_dim: the shape of a data point.
        latent_dim: d.

    Raises:
        TypeError, ValueError: as for :func:`autoencoder_of`.

    Example:
        >>> class Decoder(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.embedding, self.layer = nn.Embedding(10, 4), nn.Linear(2 + 4, 8)
        ...
        ...     def forward(self, z, label):
        ...         return self.layer(torch.cat([z, self.embedding(label)], 1))
        >>> encoder = lambda x, label: x[:, :2]
        >>> model = conditional_autoencoder_of(encoder, Decoder(), (8,), 2)
        >>> sampler = MetricUniformHMCSampler(model)
        >>> sampler.fit(x, labels=y)
        >>> sevens = sampler.sample(100, labels=7)
    """
    return _model_of(ConditionalAutoencoder, encoder, decoder, input_dim, latent_dim)


def given(model: AE, label: object) -> AE:
    """The autoencoder of the data of one label, of the networks of a model that takes labels.

    Args:
        model: of :func:`conditional_autoencoder_of`, or any pythae model whose encoder or decoder
            needs a second argument.
        label: number or vector, without a batch axis.

    Raises:
        TypeError: if the model takes no labels, or the label is no number.
    """
    model = as_model(model)
    if not takes_labels(model):
        raise _takes_none(model)
    label = _on(model, as_tensor(label, "label"))
    encoder = _Given(model.encoder, label)
    decoder = nn.Sequential(decoder_space(model), _Given(model.decoder, label))
    return autoencoder_of(encoder, decoder, model.model_config.input_dim, model.latent_dim)


def takes_labels(part: nn.Module) -> bool:
    """Whether a network, or one of the networks of a model, needs labels as its second argument."""
    if isinstance(part, BaseAE):
        networks = (getattr(part, name, None) for name in ("encoder", "decoder"))
        return any(network is not None and takes_labels(network) for network in networks)
    if isinstance(part, _Encoder | _Decoder):
        return part.takes_labels
    try:
        parameters = inspect.signature(part.forward).parameters.values()
    except (AttributeError, TypeError, ValueError):  # such as of what is compiled
        return False
    needed = [p for p in parameters if p.kind in _POSITIONAL and p.default is p.empty]
    return len(needed) > 1


_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def call(network: nn.Module, x: torch.Tensor, *labels: torch.Tensor) -> object:
    """The output of a network, to which labels go if it takes them."""
    return network(x, *labels) if labels and takes_labels(network) else network(x)


def labels_for(model: AE, labels: object, count: int | None = None) -> torch.Tensor | None:
    """The labels of rows, ``[count, ...]``, as the networks of a model take them; None where they
    take none.

    Args:
        model: any pythae model.
        labels: numbers ``[count, ...]``, or a single one for all; integers stay integers.
        count: of rows; None: not known yet, and labels must have an axis of rows.

    Raises:
        TypeError: if labels are missing, are no numbers, or the model takes none.
        ValueError: if they are not as many.
    """
    if not takes_labels(model):
        if labels is not None:
            raise _takes_none(model)
        return None
    if labels is None:
        raise TypeError(
            "The networks of this model take labels: pass labels, one for each row, or take the "
            "model of one label, models.foreign.given(model, label)."
        )
    labels = _on(model, as_tensor(labels, "labels"))
    if labels.ndim == 0 and count is not None:
        return labels.expand(count)
    if labels.ndim == 0 or (count is not None and len(labels) != count):
        wanted = "one for each row" if count is None else f"{count}, one for each row"
        raise ValueError(f"labels must be {wanted}, got shape {list(labels.shape)}.")
    return labels


def _takes_none(model: AE) -> TypeError:
    return TypeError(
        f"The networks of {model.model_name} take no labels: leave them out, or make a model of "
        "networks that do by models.foreign.conditional_autoencoder_of."
    )


def _on(model: AE, labels: torch.Tensor) -> torch.Tensor:
    number = like(model)
    labels = labels.to(number.device)
    return labels.to(number.dtype) if labels.is_floating_point() else labels.long()


def _model_of(
    kind: type[AE], encoder: Callable, decoder: Callable, input_dim: tuple, latent_dim: int
) -> AE:
    for name, network in (("encoder", encoder), ("decoder", decoder)):
        if not callable(network):
            raise TypeError(f"The {name} must be a module or a function, got {network!r}.")
    input_dim = as_shape(input_dim, "input_dim")
    config = AEConfig(input_dim=input_dim, latent_dim=check_count("latent_dim", latent_dim, 1))
    takes_labels = kind is ConditionalAutoencoder
    networks = _Encoder(encoder, takes_labels), _Decoder(decoder, takes_labels)
    model = kind(config, encoder=networks[0], decoder=networks[1])
    model.model_name = "autoencoder"
    return model


class _Given(nn.Module):
    """A network of data or codes and labels, with one label for all of them."""

    label: torch.Tensor

    def __init__(self, network: nn.Module, label: torch.Tensor):
        super().__init__()
        self.network = network
        self.register_buffer("label", label)

    def forward(self, x: torch.Tensor) -> object:
        return call(self.network, x, self.label.expand(len(x), *self.label.shape))


class _Encoder(BaseEncoder):
    def __init__(self, network: Callable, takes_labels: bool):
        super().__init__()
        self.network, self.takes_labels = network, takes_labels

    def forward(self, x: torch.Tensor, *labels: torch.Tensor) -> ModelOutput:
        output = self.network(x, *labels)
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
    def __init__(self, network: Callable, takes_labels: bool):
        super().__init__()
        self.network, self.takes_labels = network, takes_labels

    def forward(self, z: torch.Tensor, *labels: torch.Tensor) -> ModelOutput:
        output = self.network(z, *labels)
        if isinstance(output, Mapping):
            return output
        if not isinstance(output, torch.Tensor):
            raise TypeError(
                f"The decoder must return a tensor of data, got a {type(output).__name__}: wrap it "
                "in a function that does."
            )
        return ModelOutput(reconstruction=output)
