"""The boundary between this package and the state that torch keeps for a whole process or thread.

A map is evaluated and differentiated in evaluation mode, outside inference mode and autocast, and
by one thread at a time: forward-mode differentiation has one state for all threads of a process.
Everything is as before afterwards.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from ._checks import check_map

_SCRIPT = (torch.jit.ScriptModule, torch.jit.ScriptFunction, torch._C.ScriptMethod)

# Re-entrant: a metric that is differentiated may differentiate a map itself.
_LOCK = threading.RLock()


def owner_of(f: object) -> nn.Module | None:
    """The module that a map is or is a bound method of, or None for any other function."""
    if isinstance(f, nn.Module):
        return f
    bound_to = getattr(f, "__self__", None)
    return bound_to if isinstance(bound_to, nn.Module) else None


@contextmanager
def evaluation_mode(f: Callable) -> Iterator[None]:
    """Put a module in evaluation mode, and give each of its submodules its own mode back after.

    A batch norm in training mode mixes the points of a batch and dropout draws a new map at every
    call, so neither has a derivative point by point. ``f`` is a module or a bound method of one.
    Nothing happens for any other function: it must be pure. Other threads that want to put a module
    in evaluation mode wait.

    Example:
        >>> decoder = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
        >>> with evaluation_mode(decoder):
        ...     decoder.training, decoder[1].training
        (False, False)
        >>> decoder.training
        True
    """
    check_map(f)
    with _evaluating(_parts(f)):
        yield


@contextmanager
def _evaluating(parts: tuple[object, ...]) -> Iterator[None]:
    with _LOCK:
        in_training = [part for part in parts if isinstance(part, nn.Module) and part.training]
        try:
            for module in in_training:
                module.training = False
            yield
        finally:
            for module in in_training:
                module.training = True


def _parts(f: Callable) -> tuple[object, ...]:
    """The modules that a map consists of, or a function itself."""
    owner = owner_of(f)
    if owner is None:
        return (f,)
    # A metric in closed form has no submodules, and a step of its chains should pay for no search.
    return (owner,) if next(owner.children(), None) is None else tuple(owner.modules())


@contextmanager
def guard(f: Callable, z: torch.Tensor) -> Iterator[None]:
    """Everything that the evaluation of a map at points ``z`` needs of torch's state.

    Raises:
        TypeError: the map is, or holds, a TorchScript module.
    """
    parts = _parts(f)
    _refuse_script(parts)
    with _evaluating(parts):
        if is_plain(z):
            yield
            return
        with_graph = torch.is_grad_enabled()
        with (
            torch.inference_mode(False),
            torch.set_grad_enabled(with_graph),  # leaving inference mode enables gradients
            torch.autocast(z.device.type, enabled=False),
        ):
            yield


def is_plain(z: torch.Tensor) -> bool:
    """Whether neither inference mode nor autocast is on."""
    return not (torch.is_inference_mode_enabled() or torch.is_autocast_enabled(z.device.type))


def _refuse_script(parts: tuple[object, ...]) -> None:
    # From their second call on torch loses derivatives of them, without an error.
    if any(isinstance(part, _SCRIPT) for part in parts):
        raise TypeError(
            "The map is or holds a TorchScript (scripted or traced) module, whose derivatives "
            "torch gets wrong without an error: pass the module that it was made from."
        )
