"""Checks of points, vectors, maps and numbers that many functions share."""

import math
import numbers
from collections.abc import Mapping

import torch


def check_points(z: torch.Tensor, name: str = "The points z") -> torch.Tensor:
    """Points ``[B, d]``, contiguous and usable outside inference mode.

    Forward mode refuses tensors whose rows share memory, as ``expand`` gives, and autograd those
    that were made in inference mode.
    """
    if not isinstance(z, torch.Tensor):
        raise TypeError(f"{name} must be a tensor [B, d], got a {type(z).__name__}.")
    if z.ndim != 2 or z.shape[1] == 0:
        raise ValueError(
            f"{name} must have shape [B, d], got {list(z.shape)}: a single point is z.unsqueeze(0)."
        )
    if not z.is_floating_point():
        raise TypeError(f"{name} must be floating-point numbers, got {z.dtype}.")
    if z.is_inference():
        with torch.inference_mode(False):
            return z.clone()
    return z.contiguous()


def check_vectors(z: torch.Tensor, v: torch.Tensor, name: str = "The vectors v") -> torch.Tensor:
    """Vectors at the points ``z``, one for each, as :func:`check_points` gives them."""
    if not isinstance(v, torch.Tensor):
        raise TypeError(f"{name} must be a tensor {list(z.shape)}, got a {type(v).__name__}.")
    if v.shape != z.shape:
        raise ValueError(
            f"{name} must have the shape of the points, {list(z.shape)}, got {list(v.shape)}."
        )
    if v.dtype != z.dtype or v.device != z.device:
        raise TypeError(
            f"{name} must be of the dtype and on the device of the points, {z.dtype} on {z.device},"
            f" got {v.dtype} on {v.device}."
        )
    return check_points(v, name)


def value_of(x: object, B: int) -> torch.Tensor:
    """The value ``[B, *out]`` of a map at B points; of what a decoder of pythae returns, the
    reconstruction."""
    if isinstance(x, Mapping) and "reconstruction" in x:
        x = x["reconstruction"]
    if not isinstance(x, torch.Tensor):
        raise TypeError(
            f"The map must return one tensor of shape [B, ...], but returned a {type(x).__name__}:"
            " wrap it to select the tensor, for example in a function that returns decoder(z)[0]."
        )
    if x.ndim == 0 or x.shape[0] != B:
        raise ValueError(
            f"The map must keep the batch axis first: for {B} points it returned shape "
            f"{list(x.shape)} and not [{B}, ...]."
        )
    return x


def check_flag(name: str, value: bool) -> None:
    """Raise a TypeError unless a value is True or False: any text would count as true."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}.")


def check_map(f: object, name: str = "The map") -> None:
    """Raise a TypeError unless it can be called."""
    if not callable(f):
        raise TypeError(f"{name} must be a module or a function, got a {type(f).__name__}.")


def check_real(name: str, value: object) -> float:
    """A number, or a tensor of one, as a ``float``; it may be infinite, or NaN.

    Raises:
        TypeError: if it is something else.
    """
    if isinstance(value, torch.Tensor) and value.numel() == 1 and not value.is_complex():
        return float(value)
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number, got a {type(value).__name__}.")
    return float(value)


def check_tensor(x: object, name: str) -> None:
    """Raise a TypeError unless it is a tensor of floating-point numbers."""
    if not isinstance(x, torch.Tensor) or not x.is_floating_point():
        got = f"one of {x.dtype}" if isinstance(x, torch.Tensor) else f"a {type(x).__name__}"
        raise TypeError(f"{name} must be a tensor of floating-point numbers, got {got}.")


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
        bound = "a number" if least is None else f"at least {least}"
        bound = bound if above is None else f"greater than {above}"
        raise ValueError(f"{name} must be finite and {bound}, got {value!r}.")
    return float(value)


def check_generator(generator: torch.Generator | None) -> None:
    """Raise a TypeError unless it is a source of random numbers, or None."""
    if not (generator is None or isinstance(generator, torch.Generator)):
        raise TypeError(
            f"generator must be a torch.Generator or None, got {generator!r}: "
            "torch.Generator().manual_seed(0) makes one."
        )
