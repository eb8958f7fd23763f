"""The posteriors of a trained variational autoencoder on a data set."""

import numpy as np
import torch
from pythae.data.datasets import collate_dataset_output
from pythae.models import SVAE, VAE_IAF, BaseAE, PoincareVAE, VAE_LinNF
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm


def encode(
    model: BaseAE, data, batch_size: int, device: str, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Posterior means and log variances of a data set, read and encoded batch by batch.

    Args:
        model: a pythae model whose encoder returns ``embedding`` and ``log_covariance``, in
            evaluation mode.
        data: array or tensor ``[N, *input_dim]``, or a ``Dataset`` that returns ``data``.
        batch_size: how many are encoded at a time.
        device: where the model is.
        dtype: of the model.

    Returns:
        Means and log variances, both ``[N, d]`` on the CPU.

    Raises:
        TypeError: if the data are not numbers, or the encoder gives no log variances.
        ValueError: if the data are empty, of a wrong shape or not finite, or the posteriors are
            not.
    """
    means, log_vars = _encode(model, data, batch_size, device, dtype, _posterior)
    return means, log_vars


def embed(model: BaseAE, data, batch_size: int, device: str, dtype: torch.dtype) -> torch.Tensor:
    """Codes ``[N, d]`` of a data set; as :func:`encode`, of any encoder with an ``embedding``."""
    return _encode(model, data, batch_size, device, dtype, lambda *given: _code(*given)[:1])[0]


def encode_any(
    model: BaseAE, data, batch_size: int, device: str, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Codes ``[N, d]`` of a data set, and the log variances where the encoder gives them."""
    codes, *more = _encode(model, data, batch_size, device, dtype, _code_and_variance)
    return codes, more[0] if more else None


@torch.no_grad()
def _encode(model, data, batch_size, device, dtype, read) -> list[torch.Tensor]:
    """What ``read(model, x)`` gives of each batch, joined."""
    number = _check_data(data)
    input_dim = model.model_config.input_dim
    results, done = None, 0
    with tqdm(total=number, desc="Encoding", disable=None, leave=False) as bar:
        for x in _batches(data, batch_size):
            if input_dim is not None and tuple(x.shape[1:]) != tuple(input_dim):
                raise ValueError(
                    f"train_data must have shape [N, {', '.join(map(str, input_dim))}], the "
                    f"model's input_dim, got [N, {', '.join(map(str, x.shape[1:]))}]."
                )
            if not bool(torch.isfinite(x).all()):
                raise ValueError(
                    f"train_data contain NaN or infinity between rows {done} and "
                    f"{done + len(x) - 1}: remove those rows."
                )
            parts = read(model, x.to(device, dtype))
            if results is None:
                results = [torch.empty(number, *p.shape[1:], dtype=p.dtype) for p in parts]
            for result, part in zip(results, parts, strict=True):
                result[done : done + len(x)] = part
            done += len(x)
            bar.update(len(x))
    return results


def to_decoder_space(model: BaseAE, z: torch.Tensor) -> torch.Tensor:
    """Carry points of the space of the posteriors to the space that the decoder takes.

    The two differ in pythae's models with a normalizing flow after the posterior, in the Poincaré
    VAE, whose points are projected on its ball, and in the SVAE, whose codes lie on the unit
    sphere.
    """
    if isinstance(model, VAE_IAF):
        return model.iaf_flow.inverse(z).out
    if isinstance(model, VAE_LinNF):
        for flow in model.net:
            z = flow(z).out
        return z
    if isinstance(model, PoincareVAE):
        radius = (1 - 1e-3) / model.model_config.curvature**0.5
        return z * (radius / z.norm(dim=-1, keepdim=True)).clamp(max=1.0)
    if isinstance(model, SVAE):
        return z / z.norm(dim=-1, keepdim=True)
    return z


def _check_data(data) -> int:
    if data is None:
        raise ValueError(
            "fit needs train_data, the data whose posteriors make the metric: pass them to fit, or "
            "as GenerationPipeline's train_data."
        )
    if isinstance(data, Dataset):
        if len(data) == 0:
            raise ValueError("train_data are empty: at least one point is needed.")
        return len(data)
    if not isinstance(data, (np.ndarray, torch.Tensor)):
        raise TypeError(
            "train_data must be a numpy array, a torch tensor or a Dataset that returns 'data', "
            f"got {type(data).__name__}."
        )
    is_real = data.dtype.kind in "fiub" if isinstance(data, np.ndarray) else not data.is_complex()
    if not is_real:
        raise TypeError(
            f"train_data must hold real numbers, got an array of {data.dtype}: convert it to "
            "float32."
        )
    if data.ndim == 0 or len(data) == 0:
        raise ValueError(
            f"train_data are empty (shape {list(data.shape)}): at least one point is needed."
        )
    return len(data)


def _batches(data, batch_size: int):
    if isinstance(data, Dataset):
        for batch in DataLoader(data, batch_size=batch_size, collate_fn=collate_dataset_output):
            if "data" not in batch:
                raise ValueError(
                    "train_data is a Dataset that does not return 'data': let __getitem__ return "
                    "a DatasetOutput(data=...)."
                )
            yield batch["data"]
    else:
        for start in range(0, len(data), batch_size):
            yield torch.as_tensor(data[start : start + batch_size])


def _code(model: BaseAE, x: torch.Tensor) -> tuple[torch.Tensor, dict]:
    """The code of each point, and everything else that the encoder gives."""
    encoded = model.encoder(x)
    code = encoded["embedding"]
    if code.shape != (len(x), model.latent_dim):
        raise ValueError(
            f"The encoder of {model.model_name} must give an embedding of shape "
            f"{[len(x), model.latent_dim]}, got {list(code.shape)}."
        )
    _check_posterior(model, code)
    return code, encoded


def _posterior(model: BaseAE, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    mean, encoded = _code(model, x)
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


def _code_and_variance(model: BaseAE, x: torch.Tensor) -> list[torch.Tensor]:
    mean, encoded = _code(model, x)
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
