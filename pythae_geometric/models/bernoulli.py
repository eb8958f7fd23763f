"""The Bernoulli likelihood of data in [0, 1], such as images."""

import torch
from torch.nn import functional as F


def bernoulli_log_prob(x: torch.Tensor, mean: torch.Tensor, otherwise: str) -> torch.Tensor:
    r"""The logarithm of :math:`\prod_i \mu_i^{x_i} (1 - \mu_i)^{1 - x_i}` of data
    ``[B, *input_dim]``: ``[B]``.

    For data strictly between 0 and 1 it is minus the usual cross entropy, and not normalised.

    Args:
        x, mean: the data, and their means :math:`\mu`.
        otherwise: what else to set, for the error.

    Raises:
        ValueError: if the data or the means are not in [0, 1].
    """
    _check_unit_interval(x, "data", "rescale them", otherwise)
    _check_unit_interval(
        mean.detach(), "outputs of the decoder", "end it with a sigmoid", otherwise
    )
    with torch.autocast(x.device.type, enabled=False):  # in which torch refuses to take it
        cross_entropy = F.binary_cross_entropy(mean.to(x.dtype), x, reduction="none")
    return -cross_entropy.flatten(1).sum(1)


def _check_unit_interval(x: torch.Tensor, name: str, remedy: str, otherwise: str) -> None:
    low, high = float(x.min()), float(x.max())
    if not (low >= 0 and high <= 1):
        raise ValueError(
            f"The Bernoulli likelihood needs {name} in [0, 1], got {low:.4g} to {high:.4g}: "
            f"{remedy}, or set {otherwise}."
        )
