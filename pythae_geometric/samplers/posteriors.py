"""The codes and posteriors of data, and the data of codes, by the networks of a trained model."""

import math
from collections.abc import Iterator, Mapping

import torch
from pythae.models import BaseAE

from .._checks import check_count
from .._inputs import batches, labelled_batches, like
from .._processes import all_of, place
from ..geometry import evaluation_mode
from ..models.checks import check_data
from ..models.decoder_map import decoder_space
from ..models.foreign import call, labels_for, takes_labels
from ..models.scale import warn_of_scale
from .progress import progress_bar


def encode(
    model: BaseAE, data, batch_size: int, labels=None, shared: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Posterior means and log variances of a data set, read and encoded batch by batch.

    Args:
        model: a pythae model whose encoder returns ``embedding`` and ``log_covariance``; used in
            evaluation mode.
        data: array, tensor, list, data frame, data set or ``DataLoader`` of ``[N, *input_dim]``.
        batch_size: how many are encoded at a time, 1 or more.
        labels: of the rows, for a model whose networks take them.
        shared: whether several processes encode every so many batches each, and all get the whole.

    Returns:
        Means and log variances, both ``[N, d]`` on the CPU.

    Raises:
        TypeError: if the data are not numbers, or the encoder gives no log variances.
        ValueError: if the data are empty, of a wrong shape or not finite, or the posteriors are
            not.
    """
    means, log_vars = _encode(model, data, batch_size, _posterior, labels=labels, shared=shared)
    return means, log_vars


def embed(
    model: BaseAE,
    data,
    batch_size: int,
    name: str = "train_data",
    labels=None,
    shared: bool = False,
) -> torch.Tensor:
    """Codes ``[N, d]`` of a data set; as :func:`encode`, of any encoder with an ``embedding``.

    ``name`` is what the data are called in an error.
    """
    return _encode(model, data, batch_size, lambda *g: (code(*g),), name, labels, shared)[0]


def encode_any(
    model: BaseAE, data, batch_size: int, labels=None, shared: bool = False
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Codes ``[N, d]`` of a data set, and the log variances where the encoder gives them."""
    codes, *more = _encode(
        model, data, batch_size, _code_and_variance, labels=labels, shared=shared
    )
    return codes, more[0] if more else None


def code(model: BaseAE, x: torch.Tensor, *labels: torch.Tensor) -> torch.Tensor:
    """The codes ``[B, d]`` of a batch.

    Raises:
        ValueError: if the encoder gives none of this shape, or NaN or infinity.
    """
    return _code(model, x, *labels)[0]


def decode(model: BaseAE, z: torch.Tensor, *labels: torch.Tensor) -> torch.Tensor:
    """The data ``[B, *input_dim]`` of points ``[B, d]`` that the decoder takes.

    A decoder whose rows have other axes, as many numbers, is understood, as by pythae's models; one
    that makes something else than its input keeps its own shape.

    Raises:
        TypeError: if the decoder does not return a ``reconstruction`` by name.
        ValueError: if it does not return one for each point, or gives NaN or infinity.
    """
    output = call(model.decoder, z, *labels)
    if not isinstance(output, Mapping) or "reconstruction" not in output:
        raise TypeError(
            f"The decoder of {model.model_name} must return a ModelOutput with reconstruction, got "
            f"a {type(output).__name__}."
        )
    x, shape = output["reconstruction"], model.model_config.input_dim
    if x.ndim == 0 or len(x) != len(z):
        raise ValueError(
            f"The decoder of {model.model_name} must give one reconstruction for each of "
            f"{len(z)} points, got {list(x.shape)}."
        )
    bad = ~torch.isfinite(x).flatten(1).all(1)
    if bool(bad.any()):
        raise ValueError(
            f"The decoder of {model.model_name} gives NaN or infinity for {int(bad.sum())} of "
            f"{len(x)} points: its training has diverged. Train it again, with a smaller learning "
            "rate."
        )
    fits = shape is not None and math.prod(x.shape[1:]) == math.prod(shape)
    return x.reshape(len(z), *shape) if fits else x


@torch.no_grad()
def _encode(
    model, data, batch_size, read, name="train_data", labels=None, shared=False
) -> list[torch.Tensor]:
    """What ``read(model, x)``, or ``read(model, x, labels)``, gives of each batch, joined."""
    batch_size = check_count("batch_size", batch_size, 1)
    if data is None:
        raise ValueError(
            "fit needs train_data, the data whose codes make the metric: pass them to fit, or as "
            "GenerationPipeline's train_data."
        )
    number, to_decoder, results, done = like(model), decoder_space(model), [], 0
    rank, processes = place() if shared else (0, 1)
    total = len(data) if hasattr(data, "__len__") and getattr(data, "ndim", 1) != 0 else None
    with progress_bar("Encoding", total) as bar, evaluation_mode(model):
        for i, (x, of_x) in enumerate(_with_labels(model, data, labels, name, batch_size)):
            done += len(x)
            bar.update(len(x))
            if i % processes != rank:
                continue
            rows = f"{name}[{done - len(x)}:{done}]"
            x = check_data(x.to(number), model.model_config, rows)
            parts = read(model, x, *of_x)
            if i == 0:
                warn_of_scale(x, decode(model, to_decoder(parts[0]), *of_x), name)
            results.append((i, [part.cpu() for part in parts]))
    if shared:
        results = sorted(all_of(results), key=lambda result: result[0])
    return [torch.cat(part) for part in zip(*(parts for _, parts in results), strict=True)]


def _with_labels(
    model: BaseAE, data, labels, name: str, batch_size: int
) -> Iterator[tuple[torch.Tensor, list[torch.Tensor]]]:
    """Batches of data, each with a list of its labels, empty for a model that takes none."""
    if labels is None and takes_labels(model):
        for x, of_x in labelled_batches(data, name, batch_size):
            of_x = labels_for(model, of_x, len(x))
            yield x, [] if of_x is None else [of_x]
        return
    labels, done = labels_for(model, labels), 0
    for x in batches(data, name, batch_size):
        done += len(x)
        if labels is not None and len(labels) < done:
            raise ValueError(_not_as_many(labels, name, f"at least {done}"))
        yield x, [] if labels is None else [labels[done - len(x) : done]]
    if labels is not None and len(labels) != done:
        raise ValueError(_not_as_many(labels, name, f"{done}"))


def _not_as_many(labels: torch.Tensor, name: str, rows: str) -> str:
    return (
        f"labels must be one for each row of {name}, but there are {len(labels)} labels and {rows} "
        "rows."
    )


def _code(model: BaseAE, x: torch.Tensor, *labels: torch.Tensor) -> tuple[torch.Tensor, Mapping]:
    """The code of each point, and everything else that the encoder gives."""
    encoded = call(model.encoder, x, *labels)
    if not isinstance(encoded, Mapping) or "embedding" not in encoded:
        raise TypeError(
            f"The encoder of {model.model_name} must return a ModelOutput with embedding, got a "
            f"{type(encoded).__name__}."
        )
    code = encoded["embedding"]
    if code.shape != (len(x), model.latent_dim):
        raise ValueError(
            f"The encoder of {model.model_name} must give an embedding of shape "
            f"{[len(x), model.latent_dim]}, got {list(code.shape)}."
        )
    _check_posterior(model, code)
    return code, encoded


def _posterior(
    model: BaseAE, x: torch.Tensor, *labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    mean, encoded = _code(model, x, *labels)
    if "log_covariance" not in encoded:
        raise TypeError(
            f"The encoder of {model.model_name} gives {', '.join(encoded)} but no log_covariance: "
            "there are no posterior covariances to make a metric of. Take the metric of the codes "
            "(metric='codes', the default of MetricUniformHMCSampler), or a variational model."
        )
    log_var = encoded["log_covariance"]
    if log_var.shape != mean.shape:
        raise ValueError(
            f"The encoder of {model.model_name} must give a log_covariance of shape "
            f"{list(mean.shape)}, a variance for each latent dimension, got "
            f"{list(log_var.shape)}."
        )
    _check_posterior(model, log_var)
    return mean, log_var


def _code_and_variance(model: BaseAE, x: torch.Tensor, *labels: torch.Tensor) -> list[torch.Tensor]:
    mean, encoded = _code(model, x, *labels)
    log_var = encoded.get("log_covariance")
    if log_var is None or log_var.shape != mean.shape:
        return [mean]
    _check_posterior(model, log_var)
    return [mean, log_var]


def _check_posterior(model: BaseAE, value: torch.Tensor) -> None:
    if not bool(torch.isfinite(value).all()):
        raise ValueError(
            f"The encoder of {model.model_name} gives NaN or infinity: its training has diverged. "
            "Train it again, with a smaller learning rate."
        )
