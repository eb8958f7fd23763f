"""The likelihood of data by importance sampling, as every model's ``get_nll`` estimates it."""

import math
from collections.abc import Callable

import torch
from torch import nn

from .._checks import check_count
from ..geometry import evaluation_mode


@torch.no_grad()
def log_likelihood(
    model: nn.Module,
    encode: Callable[..., tuple[torch.Tensor, ...]],
    log_weight: Callable[..., torch.Tensor],
    data: tuple[torch.Tensor, ...],
    n_samples: int,
    batch_size: int,
) -> float:
    r"""The mean over data of an estimate of :math:`\log p(x)`.

    .. math:: \log p(x) \approx \log \frac1S \sum_{s=1}^S \frac{p(x | z_s)\, p(z_s)}{q(z_s | x)},
              \quad z_s \sim q(z | x)

    Its expectation is a lower bound that grows with S towards the value.

    Args:
        model: put in evaluation mode.
        encode: from the first of ``data`` ``[B, *input_dim]`` to the parameters of the posteriors,
            each ``[B, ...]``.
        log_weight: from a batch of ``data`` and of the parameters, ``(*data, *parameters)``, to the
            logarithms of the fractions above at one draw each, ``[B]``.
        data: tensors of N rows, the data first.
        n_samples: S, 1 or more.
        batch_size: how many draws are decoded at a time, 1 or more.

    References:
        Y. Burda, R. Grosse, R. Salakhutdinov, Importance weighted autoencoders, ICLR 2016.

    Raises:
        ValueError: if a number is less than 1.
    """
    S = check_count("n_samples", n_samples, 1)
    batch_size = check_count("batch_size", batch_size, 1)
    N = len(data[0])
    with evaluation_mode(model):
        batches = zip(*(encode(x) for x in data[0].split(batch_size)), strict=True)
        parameters = [torch.cat(part) for part in batches]
        rows = torch.arange(N, device=data[0].device).repeat_interleave(S)
        log_weights = [
            log_weight(*(part[i] for part in (*data, *parameters))) for i in rows.split(batch_size)
        ]
    return float((torch.cat(log_weights).view(N, S).logsumexp(1) - math.log(S)).mean())
