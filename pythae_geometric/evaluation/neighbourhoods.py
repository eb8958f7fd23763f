"""Density and coverage: are samples where the data are, and are they everywhere there?"""

from typing import NamedTuple

import torch

from .._checks import check_count
from ._checks import as_clouds


class DensityCoverage(NamedTuple):
    """What :func:`density_and_coverage` found."""

    density: float
    coverage: float


def density_and_coverage(
    real_features: object, fake_features: object, k: int = 5, batch_size: int = 1000
) -> DensityCoverage:
    r"""Density (fidelity) and coverage (diversity) of samples.

    With :math:`B_i` the ball about a real point :math:`x_i` that reaches to its k-th nearest other
    real point,

    .. math::
        \text{density} = \frac{1}{kM} \sum_j \sum_i 1[y_j \in B_i], \qquad
        \text{coverage} = \frac{1}{N} \sum_i 1[\exists j: y_j \in B_i].

    Samples of the data's own distribution have density 1 in expectation, and coverage
    :math:`1 - \prod_{l=0}^{k-1} (N-1-l)/(M+N-1-l)`, which is :math:`1 - 2^{-k}` for M = N large;
    density can be larger than 1.

    Args:
        real_features: ``[N, p]``, N greater than k.
        fake_features: ``[M, p]``, M at least 1.
        k: which neighbour, at least 1.
        batch_size: samples compared with all real points at a time, 1 or more.

    Raises:
        TypeError: if the points are not real numbers.
        ValueError: if k is out of range, points are not finite, or dimensions differ.

    References:
        Naeem et al., *Reliable Fidelity and Diversity Metrics for Generative Models*, ICML 2020,
        eqs. 4 and 5, https://arxiv.org/abs/2002.09797
    """
    real, fake = as_clouds(1, real_features=real_features, fake_features=fake_features)
    k, batch_size = check_count("k", k, 1), check_count("batch_size", batch_size, 1)
    if k >= len(real):
        raise ValueError(f"k must be less than the {len(real)} real points, got {k}.")
    # The nearest of the k + 1 is the point itself.
    radii = torch.cat(
        [
            torch.cdist(batch, real).topk(k + 1, largest=False).values[:, -1]
            for batch in real.split(batch_size)
        ]
    )
    count, covered = 0, torch.zeros(len(real), dtype=torch.bool, device=real.device)
    for batch in fake.split(batch_size):
        inside = torch.cdist(batch, real) < radii
        count += int(inside.sum())
        covered |= inside.any(0)
    return DensityCoverage(count / (k * len(fake)), float(covered.double().mean()))
