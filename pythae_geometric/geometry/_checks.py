"""Checks of points, vectors and maps that many functions share."""

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
