"""Reading the tensors of a fitted sampler from a file, which may hold anything.

Errors go on from "... does not fit a MetricUniformHMCSampler:".
"""

import inspect
from typing import TypeVar

import torch

from ..geometry import Metric

M = TypeVar("M", bound=Metric)


def taken(state: dict[str, torch.Tensor], name: str, shape: tuple[int | None, ...]) -> torch.Tensor:
    """Take a tensor out of the state that a file holds.

    Args:
        state: the state; ``name`` is removed.
        name: key.
        shape: that it must have; None: 1 or more along this axis.

    Raises:
        ValueError: if it is missing, of another shape, or does not hold finite numbers.
    """
    if name not in state:
        raise ValueError(f"it has no {name}.")
    value = state.pop(name)
    fits = value.ndim == len(shape) and all(
        n == wanted or (wanted is None and n > 0)
        for n, wanted in zip(value.shape, shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("1 or more" if n is None else str(n) for n in shape)
        raise ValueError(
            f"its {name} must have shape [{wanted}] for this model, got {list(value.shape)}."
        )
    if not value.is_floating_point() or not bool(torch.isfinite(value).all()):
        raise ValueError(f"its {name} must hold finite numbers.")
    return value


def positive(state: dict[str, torch.Tensor], name: str) -> float:
    """Take a positive number out of the state that a file holds; see :func:`taken`."""
    value = float(taken(state, name, ()))
    if value <= 0:
        raise ValueError(f"its {name} must be positive, got {value}.")
    return value


def metric_of(cls: type[M], state: dict[str, torch.Tensor], dim: int) -> M:
    """Build a metric of the tensors that are left in the state, named as its arguments.

    Raises:
        TypeError, ValueError: if they are others, or do not make a metric of a space of dimension
            ``dim``.
    """
    names = set(inspect.signature(cls).parameters)
    if set(state) != names:
        raise ValueError(
            f"it must hold {', '.join(sorted(names))}, got {', '.join(sorted(state)) or 'nothing'}."
        )
    metric = cls(**state)
    if metric.dim != dim:
        raise ValueError(
            f"it was fitted in a latent space of dimension {metric.dim}, but that of the model has "
            f"{dim}."
        )
    return metric
