"""Gradients clipped in the backward pass."""

import torch
from torch import nn


def clip_gradients(module: nn.Module, bound: float | None) -> None:
    """Clip every gradient of the module's parameters to [-bound, bound], entry by entry, from now
    on; None: do not.

    Parameters that are frozen now are clipped, too, once they are trained. Copies and pickles of
    parameters lose their hooks: call this again for those.
    """
    if bound is None:
        return
    for parameter in filter(torch.is_floating_point, module.parameters()):
        trained = parameter.requires_grad
        parameter.requires_grad_(True)  # a frozen tensor takes no hook
        parameter.register_hook(lambda gradient: gradient.clamp(-bound, bound))
        parameter.requires_grad_(trained)
