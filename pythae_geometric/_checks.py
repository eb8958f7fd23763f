"""Checks of arguments that many functions share."""

import math
import numbers

import torch

from .geometry._checks import check_flag

__all__ = ["check_count", "check_finite", "check_flag", "check_generator", "check_number"]


def check_count(name: str, value: int, least: int) -> int:
    """A whole number of at least ``least``, as an ``int``; numpy's integers are whole numbers too.

    Raises:
        ValueError: if it is not.
    """
    is_count = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not is_count or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}.")
    return int(value)


def check_number(
    name: str, value: float, least: float | None = None, above: float | None = None
) -> float:
    """A finite number of at least ``least``, or greater than ``above``, as a ``float``.

    Raises:
        ValueError: if it is not.
    """
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    fits = is_number and math.isfinite(value)
    if fits and least is not None:
        fits = value >= least
    if fits and above is not None:
        fits = value > above
    if not fits:
        bound = f"at least {least}" if above is None else f"greater than {above}"
        raise ValueError(f"{name} must be finite and {bound}, got {value!r}.")
    return float(value)


def check_generator(generator: torch.Generator | None) -> None:
    """Raise a TypeError unless it is a source of random numbers, or None."""
    if not (generator is None or isinstance(generator, torch.Generator)):
        raise TypeError(
            f"generator must be a torch.Generator or None, got {generator!r}: "
            "torch.Generator().manual_seed(0) makes one."
        )


def check_finite(x: torch.Tensor, name: str) -> None:
    """Raise a ValueError unless every number in ``x`` is finite."""
    if not bool(torch.isfinite(x).all()):
        raise ValueError(f"{name} contains NaN or infinity: remove those rows, or rescale it.")
