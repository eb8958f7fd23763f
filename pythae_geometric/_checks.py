"""Checks of arguments that many functions share."""

import torch

from .geometry._checks import check_count, check_flag, check_generator, check_number

__all__ = ["check_count", "check_finite", "check_flag", "check_generator", "check_number"]


def check_finite(x: torch.Tensor, name: str) -> None:
    """Raise a ValueError unless every number in ``x`` is finite."""
    if not bool(torch.isfinite(x).all()):
        raise ValueError(f"{name} contains NaN or infinity: remove those rows, or rescale it.")
