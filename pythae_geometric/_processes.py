"""Several processes that train one model or sample from it, as ``torch.distributed`` has them."""

from collections.abc import Callable, Collection, Iterable
from typing import Any

import torch
from torch import distributed


def place() -> tuple[int, int]:
    """The number of this process, and how many there are: 0 and 1 without a group."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def all_of(parts: list) -> list:
    """The lists of all processes, joined in the order of the processes."""
    processes = place()[1]
    if processes == 1:
        return parts
    lists: list = [None] * processes
    distributed.all_gather_object(lists, parts)
    return [part for of_process in lists for part in of_process]


def from_first(make: Callable[[], Any]) -> Any:
    """What ``make`` gives in the first process, or the error that it raises there, in all."""
    rank, processes = place()
    if processes == 1:
        return make()
    outcome: list = [None, None]
    if rank == 0:
        try:
            outcome = [make(), None]
        except Exception as error:  # the others wait
            outcome = [None, error]
    distributed.broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


def gathered(x: torch.Tensor) -> torch.Tensor:
    """The rows ``[n, ...]`` of all processes, ``[n * processes, ...]``, each with as many.

    Those with one number lie next to each other, as in the data that a ``DistributedSampler``
    deals out.
    """
    if place()[1] == 1:
        return x
    parts = [torch.empty_like(x) for _ in range(distributed.get_world_size())]
    distributed.all_gather(parts, x.contiguous())
    return torch.stack(parts, 1).flatten(0, 1)


def summed(x: torch.Tensor) -> torch.Tensor:
    """The sum over the processes."""
    x = x.clone()
    if distributed.is_initialized():
        distributed.all_reduce(x)
    return x


@torch.no_grad()
def by_first(make: Callable[[], None], tensors: Collection[torch.Tensor]) -> None:
    """Call ``make`` in the first process of several, and give the tensors that it sets to all.

    Args:
        make: what to call.
        tensors: those that it sets; none: each process stands for itself, whatever group it is in.
    """
    several = bool(tensors) and distributed.is_available() and distributed.is_initialized()
    if not several or distributed.get_rank() == 0:
        make()
    if several:
        for tensor in tensors:
            distributed.broadcast(tensor.data, src=0)


def with_gradients_of(parameters: Iterable[torch.Tensor], loss: torch.Tensor) -> torch.Tensor:
    """A loss in which all parameters take part, those without influence with gradients of 0.

    A ``DistributedDataParallel``, as pythae's trainer makes it, waits for the gradients of all.
    """
    return loss + 0 * sum(parameter.sum() for parameter in parameters)
