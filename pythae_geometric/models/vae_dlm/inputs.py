"""What :class:`~.VAE_DLM` is given: batches, times, and a custom steady metric."""

from collections.abc import Callable, Mapping

import torch

from ..._inputs import as_tensor
from ..checks import check_data
from .vae_dlm_config import VAE_DLM_Config


def read_batch(
    inputs: Mapping[str, torch.Tensor], config: VAE_DLM_Config, training: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The states at time 0, the targets, both ``[B, *input_dim]``, and their times ``[B, 1]``.

    Args:
        inputs: with ``data``; and ``time`` and ``target``, or neither of them.
        config: of the model.
        training: whether times that are not given are drawn at random.

    Raises:
        ValueError: if shapes or times do not fit the config, or there are numbers that are not
            finite.
    """
    x = check_data(inputs["data"], config)
    if ("time" in inputs) != ("target" in inputs):
        raise ValueError("A batch must have both time and target, or neither of them.")
    if "time" in inputs:
        target = as_tensor(inputs["target"], "The target").to(x)
        check_data(target, config, "The target", len(x))
        return x, target, check_times(inputs["time"], x, config.horizon)
    if training:
        t = config.horizon * torch.rand(len(x), dtype=x.dtype, device=x.device)
    else:
        t = config.default_time
    return x, x, check_times(t, x, config.horizon)


def check_times(t: float | torch.Tensor, x: torch.Tensor, horizon: float) -> torch.Tensor:
    """The times as ``[B, 1]``, one for each row of ``x``.

    Args:
        t: one time, or B of them.
        x: points or states, ``[B, ...]``.
        horizon: the last time.

    Raises:
        TypeError: if they are not real numbers.
        ValueError: if there are not as many times as rows, or they are not in [0, horizon].
    """
    t = (t if isinstance(t, torch.Tensor) else as_tensor(t, "The time")).to(x)
    if t.numel() not in (1, len(x)):
        raise ValueError(
            f"There must be one time, or one for each of {len(x)} points, got {list(t.shape)}."
        )
    low, high = float(t.min()), float(t.max())
    if not (low >= 0 and high <= horizon * (1 + 1e-6)):
        raise ValueError(
            f"Times must be in [0, {horizon:g}], the model's horizon, got {low:g} to {high:g}: "
            "rescale them, or set horizon in the config."
        )
    return t.reshape(-1, 1).expand(len(x), 1)


def custom_metric(
    steady_metric: Callable[[torch.Tensor], torch.Tensor] | None, u: torch.Tensor
) -> torch.Tensor:
    """The values of a custom steady metric at chart points ``[B, d]``: ``[B, d, d]`` or ``[d, d]``.

    Raises:
        ValueError: if there is none, or its values have another shape or are not symmetric.
    """
    if steady_metric is None:
        raise ValueError(
            'The config says steady_metric="custom": give the function to the model, or, after '
            "loading, set model.steady_metric to it; it is not saved."
        )
    Sigma, (B, d) = steady_metric(u), u.shape
    if not isinstance(Sigma, torch.Tensor) or Sigma.shape not in ((B, d, d), (d, d)):
        raise ValueError(f"steady_metric must give a tensor {[B, d, d]} at {B} points.")
    # Also for d points that are returned as they are, which have the shape [d, d].
    if bool((Sigma - Sigma.mT).abs().amax() > 1e-3 * Sigma.abs().amax()):
        raise ValueError("steady_metric must give symmetric tensors, as a metric is.")
    return Sigma
